"""How a tokenizer writes its tokens, for results that show them."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer


class TokenSpelling:
    """See ``request.Spelling``; the calls are those of transformers' fast tokenizers."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.marks_subwords = bool(getattr(tokenizer.model, "continuing_subword_prefix", None))

    def piece(self, token: int) -> str:
        """Return the token as the vocabulary spells it."""
        return self._tokenizer.id_to_token(token) or ""

    def join(self, pieces: Sequence[str]) -> str:
        """Return the text that pieces make."""
        decoder = self._tokenizer.decoder
        return " ".join(pieces) if decoder is None else str(decoder.decode(list(pieces)))
