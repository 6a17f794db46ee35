"""The model's tokenizer as one ``tokenizer.json`` that the runtime loads.

Slow and SentencePiece tokenizers are converted by transformers; the parity gate compares the result
with AutoTokenizer, text by text.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase, Normalizer, Sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from poolc.compiler.architecture import one_line
from poolc.compiler.source import TOKENIZER_FILES
from poolc.compiler.st_files import SentenceTransformer
from poolc.errors import TokenizerError

# Without one of these the rest of a tokenizer's files say nothing.
_VOCABULARIES = frozenset(TOKENIZER_FILES) - {
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
}


def load_tokenizer(
    folder: Path, st: SentenceTransformer | None, *, trust_remote_code: bool
) -> PreTrainedTokenizerBase:
    """Load AutoTokenizer from ``folder``, as Sentence Transformers is told to by the folder.

    Raises TokenizerError.
    """
    if not any((folder / name).exists() for name in _VOCABULARIES):
        raise TokenizerError(
            f"{folder.name} holds no tokenizer (tokenizer.json, vocab.txt, tokenizer.model, ...): "
            "save it into the folder, or name another with --tokenizer"
        )
    settings = dict(st.bert.processor_kwargs) if st else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, **settings
        )
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        given = f", with {st.bert.file}: processor_kwargs" if st and settings else ""
        raise TokenizerError(f"the tokenizer cannot be loaded{given}: {one_line(error)}") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise TokenizerError(
            f"{type(tokenizer).__name__} runs in Python only; poolc needs one that converts to "
            "tokenizer.json (the `tokenizers` library)"
        )
    if st and st.lower_case:
        _lower(tokenizer)
    return tokenizer


def tokenizer_json(tokenizer: PreTrainedTokenizerBase) -> str:
    """Serialise without padding or truncation, which the runtime decides itself."""
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return str(copy.to_str())


def _lower(tokenizer: PreTrainedTokenizerBase) -> None:
    """Lower-case first, as Sentence Transformers does: not where the tokenizer does it already."""
    backend = tokenizer.backend_tokenizer
    given = backend.normalizer
    several = isinstance(given, Sequence)
    steps: list[Normalizer] = [given[i] for i in range(len(given))] if several else [given]
    if any(isinstance(step, Lowercase) for step in steps):
        return
    backend.normalizer = Sequence([Lowercase()] if given is None else [Lowercase(), given])
