"""Which retrieval head beyond one dense vector a folder holds: sparse, multi-vector, or all three.

Decides by files and by the names that vLLM knows; reads no weights.
"""

from __future__ import annotations

from poolc.compiler.architecture import architecture_name
from poolc.compiler.models import has_masked_lm
from poolc.compiler.recognize.context import Context
from poolc.errors import UnsupportedModel
from poolc.model_cache.source_files import HEAD_PICKLES
from poolc.spec import Convert, Kind, Trunk

STANFORD = "HF_ColBERT"
_SPLADE = "SpladeSparseEmbeddingModel"  # vLLM's suffix of SPLADE classes
_BGE_M3 = "BgeM3EmbeddingModel"  # vLLM's name for BGE-M3 with all its heads


def retrieval_kind(context: Context) -> tuple[Kind, Trunk, str] | None:
    """Return kind, trunk and origin; None for a model without such a head, or converted to another.

    Raises UnsupportedModel for ``--convert embed_sparse`` of a model without language model head.
    """
    st, name, asked = context.st, architecture_name(context.config), context.options.convert
    if asked is Convert.EMBED_SPARSE:
        return _sparse(context, "--convert embed_sparse")
    if asked not in (Convert.AUTO, Convert.NONE):
        return None
    if st and st.sparse:
        return _sparse(context, "modules.json: a SpladePooling module")
    if st and st.multi_vector:
        return Kind.MULTI_VECTOR, Trunk.BASE, f"modules.json of a {st.model_type} model"
    if name.endswith(_SPLADE):
        return _sparse(context, f"config.json: architectures {name}")
    if name == STANFORD and st is None:
        return Kind.MULTI_VECTOR, Trunk.BASE, f"config.json: architectures {name}"
    if name == _BGE_M3:
        return Kind.HYBRID, Trunk.BASE, f"config.json: architectures {name}"
    folder = context.folder / (st.transformer if st else "")
    if all((folder / head).exists() for head in HEAD_PICKLES):
        return Kind.HYBRID, Trunk.BASE, " and ".join(HEAD_PICKLES)
    return None


def _sparse(context: Context, origin: str) -> tuple[Kind, Trunk, str]:
    if not has_masked_lm(context.config.model_type):
        raise UnsupportedModel(
            f"{architecture_name(context.config)} has no masked-language-model head in "
            f"transformers, which sparse embeddings are made of ({origin})"
        )
    return Kind.SPARSE, Trunk.MASKED_LM, origin
