"""The public methods of an engine: lists in and arrays out, their streaming and their async twins.

Everything here is written over the seam (``prepare``, ``submit``, ``finish``); nothing here knows
how a model runs. One file a kind of result.
"""

from poolc.runtime.calls.arguments import as_pairs
from poolc.runtime.calls.base import WINDOW, windows
from poolc.runtime.calls.classes import ClassCalls
from poolc.runtime.calls.embedding import EmbeddingCalls
from poolc.runtime.calls.retrieval import RetrievalCalls
from poolc.runtime.calls.tokens import TokenCalls

__all__ = ["WINDOW", "Calls", "as_pairs", "windows"]


class Calls(EmbeddingCalls, RetrievalCalls, ClassCalls, TokenCalls):
    """embed, embed_sparse, embed_tokens, embed_hybrid, classify, score, reward and encode over the
    seam that a subclass provides."""
