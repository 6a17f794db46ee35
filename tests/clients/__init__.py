"""Clients that people have, unmodified, each set in an environment of its own (slow tests)."""
