"""Load on a server, poolc's or another one of the same dialects: ``poolc bench serve``."""
