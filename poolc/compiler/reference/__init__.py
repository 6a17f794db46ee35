"""The references of the parity gate, one file a kind of model."""

from collections.abc import Mapping

from poolc.compiler.reference.base import Case, Reference, Subject
from poolc.compiler.reference.embedding import EmbeddingReference
from poolc.compiler.reference.hybrid import HybridReference
from poolc.compiler.reference.multi_vector import MultiVectorReference
from poolc.compiler.reference.sparse import SparseReference
from poolc.compiler.reference.tokens import RewardReference, TokenLogitsReference
from poolc.compiler.reference.transformer import ClassifierReference
from poolc.spec import Kind

__all__ = ["Case", "Reference", "Subject", "open_reference"]

_REFERENCES: Mapping[Kind, type[Reference]] = {
    Kind.EMBEDDING: EmbeddingReference,
    Kind.CLASSIFIER: ClassifierReference,
    Kind.TOKEN_CLASSIFIER: TokenLogitsReference,
    Kind.REWARD: RewardReference,
    Kind.SPARSE: SparseReference,
    Kind.MULTI_VECTOR: MultiVectorReference,
    Kind.HYBRID: HybridReference,
}


def open_reference(subject: Subject) -> Reference:
    """Load the library's model. Raises CorruptWeights."""
    return _REFERENCES[subject.recognized.spec.kind](subject)
