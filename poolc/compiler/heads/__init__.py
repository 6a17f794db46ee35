"""Torch modules that put a model's heads behind its trunk, in the form that is exported.

One file a head; ``model.py`` joins trunk and head. Heads compute in fp32.
"""

from poolc.compiler.heads.activations import activation_module
from poolc.compiler.heads.model import PoolingModel

__all__ = ["PoolingModel", "activation_module"]
