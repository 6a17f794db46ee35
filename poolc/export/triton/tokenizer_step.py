"""The tokenizer step of a Triton model repository: texts -> token ids, as poolc's runtime does it.

`poolc export triton` copies this file into the repository as ``model.py``, where Triton's Python
backend runs it. So it imports nothing of poolc: only numpy, the `tokenizers` library and Triton's
own module. ``settings.json`` beside it says what the model wants.

A request may carry the parameters ``prompt_name`` or ``prompt`` (put before every text; ``""``: no
prompt at all) and ``truncate`` (cut what is too long instead of refusing it).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from tokenizers import Encoding, Tokenizer

Int64 = npt.NDArray[np.int64]
Text = str | tuple[str, str]

# Of a text far beyond the limit an excerpt is tokenised: this many characters a token, and tokens
# more than the limit, so that the cut in the excerpt's last word changes nothing that is kept.
_CHARS_PER_TOKEN = 8
_SLACK_TOKENS = 1024
_GROWTH = 4
_MOST_CHARS = 1 << 20
_SHORTEST_POWER = 16
_ALIGNMENT = 8
_ALWAYS_PROMPTS = ("query", "document")


class Refused(ValueError):
    """What a request sent cannot be answered."""


class TextReader:
    """Texts -> rows of token ids, with prompts, truncation and padding."""

    def __init__(self, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._settings = settings
        self._limit = int(settings["max_length"])
        self._keeps_end = settings["truncation_side"] == "left"
        added = tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(i for i, token in added.items() if token.special)

    def tensors(
        self, columns: Sequence[Sequence[str]], asked: dict[str, Any]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the graph's inputs, [batch, seq] each, of one text or two a row.

        Raises Refused, naming the row, for a text that is empty or too long.
        """
        prompt = self._prompt(asked)
        truncate = bool(asked.get("truncate", self._settings["truncate"]))
        texts: list[Text] = []
        for row, parts in enumerate(zip(*columns, strict=True)):
            if not all(parts):
                raise Refused(f"row {row}: a text is empty: there is nothing to compute")
            read = self._readable((prompt + parts[0], *parts[1:]), row, truncate)
            texts.append(read[0] if len(read) == 1 else (read[0], read[1]))
        encodings = self._tokenizer.encode_batch(texts)
        kept = [self._kept(one, row, truncate) for row, one in enumerate(encodings)]
        return self._padded(encodings, kept, self._prompt_tokens(prompt))

    def _prompt(self, asked: dict[str, Any]) -> str:
        """Return what is put before texts (``runtime/prompts.py`` of poolc)."""
        given, name = asked.get("prompt"), asked.get("prompt_name")
        if not self._settings["takes_prompt"] and (given is not None or name is not None):
            raise Refused("this model takes no prompt: leave prompt and prompt_name out")
        if given is not None:
            return str(given)
        prompts: dict[str, str] = self._settings["prompts"]
        name = self._settings["default_prompt_name"] if name is None else name
        if name is None:
            return ""
        if name in prompts:
            return prompts[name]
        if name in _ALWAYS_PROMPTS:
            return ""
        known = ", ".join(sorted({*prompts, *_ALWAYS_PROMPTS}))
        raise Refused(f"prompt_name is {name!r}; this model has: {known}")

    def _readable(self, parts: tuple[str, ...], row: int, truncate: bool) -> list[str]:
        """Return a row's texts, of one far beyond the limit as much as truncation can keep."""
        texts = [self._first_chars(part, row, truncate) for part in parts]
        found = [self._excerpt(text, row, truncate) for text in texts]
        # Of two long texts each keeps half, and the longer one the odd token: excerpts do not tell.
        both = len(texts) == 2 and None not in found
        if not both:
            pairs = zip(texts, found, strict=True)
            texts = [text if part is None else part for text, part in pairs]
        longest = max(map(len, texts))
        if longest > self._most_chars():
            raise self._too_long(row, f"{longest} characters", self._most_chars())
        return texts

    def _first_chars(self, text: str, row: int, truncate: bool) -> str:
        """Cut a text to the characters that the model's own library reads, or refuse it."""
        per_token = self._settings["chars_per_token"]
        if per_token is None or len(text) <= per_token * self._limit:
            return text
        if not truncate:
            raise self._too_long(row, f"{len(text)} characters", per_token * self._limit)
        return text[: per_token * self._limit]

    def _excerpt(self, text: str, row: int, truncate: bool) -> str | None:
        """Return a part with more tokens than can be kept; None where the text has to be read."""
        size = self._first_size()
        if len(text) <= 2 * size:
            return None
        while size < min(len(text), self._most_chars() + 1):
            start = 0
            if self._keeps_end:  # long numbers are grouped from their first digit
                start = max(0, text.rfind(" ", 0, len(text) - size))
            part = text[start:] if self._keeps_end else text[:size]
            if len(part) > self._most_chars():
                return None
            tokens = len(self._tokenizer.encode(part, add_special_tokens=False))
            if tokens > self._limit + _SLACK_TOKENS:
                if not truncate:
                    raise self._too_long(row, f"at least {tokens - _SLACK_TOKENS} tokens")
                return part
            size *= _GROWTH
        return None

    def _first_size(self) -> int:
        return (self._limit + _SLACK_TOKENS) * _CHARS_PER_TOKEN

    def _most_chars(self) -> int:
        return max(_MOST_CHARS, _GROWTH * self._first_size())

    def _kept(self, encoding: Encoding, row: int, truncate: bool) -> Int64:
        """Return which tokens truncation keeps, as the library's ``longest_first`` does."""
        count = len(encoding.ids)
        if count == 0:
            raise Refused(f"row {row}: a text has no tokens")
        if count <= self._limit:
            return np.arange(count)
        if not truncate:
            raise self._too_long(row, f"{count} tokens")
        sides = np.array([-1 if side is None else side for side in encoding.sequence_ids])
        kept = [np.flatnonzero(sides == -1)]  # the special tokens
        places = [np.flatnonzero(sides == side) for side in (0, 1)]
        room = self._limit - len(kept[0])
        first, second = map(len, places)
        shorter = min(first, second, room // 2)
        shares = (room - shorter, shorter) if first > second else (shorter, room - shorter)
        for place, share in zip(places, shares, strict=True):
            kept.append(place[len(place) - share :] if self._keeps_end else place[:share])
        return np.sort(np.concatenate(kept))

    def _prompt_tokens(self, prompt: str) -> int:
        """Return how many tokens at the beginning pooling does not count."""
        if not prompt or self._settings["include_prompt"]:
            return 0
        ids = self._tokenizer.encode(prompt).ids
        length = min(len(ids), self._limit)
        # Sentence Transformers takes one token off, if the last one is special.
        return length - bool(length and ids[-1] in self._special_ids)

    def _padded(
        self, encodings: Sequence[Encoding], kept: Sequence[Int64], uncounted: int
    ) -> dict[str, npt.NDArray[Any]]:
        shape = (len(kept), self._length(max(map(len, kept))))
        made = {}
        for name, dtype in self._settings["inputs"].items():
            made[name] = np.zeros(shape, dtype)
        # Some families derive positions from "is this the padding id", not from the mask.
        made["input_ids"].fill(self._settings["pad_token_id"])
        for row, (encoding, places) in enumerate(zip(encodings, kept, strict=True)):
            own = slice(0, len(places))
            made["input_ids"][row, own] = np.array(encoding.ids)[places]
            made["attention_mask"][row, own] = 1
            if "token_type_ids" in made:
                made["token_type_ids"][row, own] = np.array(encoding.type_ids)[places]
            if "pooling_mask" in made:
                if uncounted >= len(places):
                    raise Refused(
                        f"row {row}: the prompt takes all of its {len(places)} tokens, and this "
                        "model's pooling does not count a prompt"
                    )
                made["pooling_mask"][row, uncounted : len(places)] = 1
        return made

    def _length(self, longest: int) -> int:
        """Return a padded length of few, so that Triton can batch requests: shapes are equal."""
        size = longest + -longest % _ALIGNMENT
        if self._settings["pad_to_powers"]:
            size = _SHORTEST_POWER
            while size < longest:
                size *= 2
        return max(longest, min(size, self._limit), int(self._settings["least_tokens"]))

    def _too_long(self, row: int, found: str, limit: int | None = None) -> Refused:
        return Refused(
            f"row {row} has {found}; the limit is {limit or self._limit}: shorten it, split it, or "
            "ask for truncation (the request parameter truncate)"
        )


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and the settings that lie beside this file."""
        folder = Path(__file__).resolve().parent
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._names: list[str] = settings["texts"]
        self._reader = TextReader(tokenizer, settings)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer every request, each with its own tensors or its own error."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            columns = [_texts(request, name) for name in self._names]
            made = self._reader.tensors(columns, _parameters(request))
        except Refused as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        tensors = [pb_utils.Tensor(name, array) for name, array in made.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _texts(request: Any, name: str) -> list[str]:
    """Return the texts of an input [batch, 1] of bytes."""
    values = pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)
    try:
        return [
            value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values
        ]
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is not valid UTF-8: {error}") from error


def _parameters(request: Any) -> dict[str, Any]:
    asked: dict[str, Any] = json.loads(request.parameters() or "{}")
    truncate = asked.get("truncate")
    if isinstance(truncate, str):  # headers that Triton forwards are text
        asked["truncate"] = truncate.lower() == "true"
    return asked
