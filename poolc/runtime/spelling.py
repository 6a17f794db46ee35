"""How a tokenizer writes its tokens, for results and callers that want to see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from poolc.errors import InvalidText

# The tokenizer's own record of a token takes about 150 bytes.
_MOST_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A token as the tokenizer spells it, and the characters of the text that it stands for."""

    id: int
    text: str
    special: bool  # added by the tokenizer: it stands for nothing
    start: int
    stop: int


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

    def pieces(self, texts: Sequence[str], *, special: bool) -> list[list[Piece]]:
        """Return every token of texts that may be longer than the model takes.

        ``special``: with the tokens that a whole text gets. Raises InvalidText for more than 2^20
        characters in all.
        """
        chars = sum(map(len, texts))
        if chars > _MOST_CHARS:
            raise InvalidText(f"{chars} characters in all; allowed: {_MOST_CHARS}: send fewer")
        found = []
        for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=special):
            marks = map(bool, encoding.special_tokens_mask)
            fields = zip(encoding.ids, encoding.tokens, marks, encoding.offsets, strict=True)
            found.append([Piece(i, text, mark, *place) for i, text, mark, place in fields])
        return found

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of token ids. Raises InvalidText for one outside the vocabulary."""
        for i in ids:
            if self._tokenizer.id_to_token(i) is None:
                raise InvalidText(f"token id {i} is outside the vocabulary")
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))
