"""One file a dialect; a router speaks HTTP and asks the registry's models, nothing else."""
