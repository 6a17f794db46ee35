"""fp32 graphs -> int8 or fp8 graphs: one file a step, in order in ``quantize.py``."""
