"""Artifact -> answers, without PyTorch."""
