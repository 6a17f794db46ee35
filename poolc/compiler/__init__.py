"""HF model -> artifact. The only room that may import torch or transformers.

It runs in a process of its own (``python -m poolc.compiler``), started by ``poolc.api``.
"""
