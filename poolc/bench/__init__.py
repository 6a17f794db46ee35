"""How fast: a model on this machine, and a server, poolc's or another one of the same dialects."""
