"""One file a target: canonical graph -> the files that its runtime loads."""
