"""The longest text a model takes."""

from __future__ import annotations

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.recognize.context import Context
from poolc.errors import InvalidOption

_POSITIONS = ("max_position_embeddings", "n_positions")
_FALLBACK_LENGTH = 512
_NO_LIMIT = 1_000_000  # transformers writes 1e30 for "the tokenizer knows no limit"


def choose_length(context: Context, arch: Architecture, choices: Choices) -> None:
    """Set ``max_length``. Raises InvalidOption."""
    st, limit = context.st, arch.position_limit
    known = int(context.tokenizer.model_max_length)
    if known < _NO_LIMIT:
        choices.set("max_length", known, "tokenizer_config.json: model_max_length")
    if st and st.max_length is not None:
        choices.set("max_length", st.max_length, f"{st.max_length_file}: {st.max_length_key}")
    if limit is not None and choices.get("max_length", limit + 1) > limit:
        overridden = [key for key in _POSITIONS if key in choices.overrides]
        origin = f"config.json: {overridden[0]}" if overridden else f"{arch.name}: positions"
        choices.set("max_length", limit, origin)
    asked = context.options.max_length
    if asked is not None:
        if asked < 2 or (limit is not None and asked > limit):
            raise InvalidOption(
                f"max_length is {asked}; {arch.name} has 2 to {limit or 'any number of'} positions",
                param="max_length",
            )
        choices.set("max_length", asked, "--max-length")
    if choices.get("max_length") is None:
        choices.set("max_length", _FALLBACK_LENGTH, "default: no file names a limit")
        context.warn(f"no file names a maximum length: {_FALLBACK_LENGTH} tokens (--max-length)")
