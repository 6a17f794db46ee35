"""What every artifact is compared on: texts that break tokenizers, poolers and masks."""

from __future__ import annotations

from poolc.runtime.request import Item

# Longer texts cost minutes and show nothing new.
PARITY_MAX_LENGTH = 2048  # tokens

_TEXTS = (
    "a",
    ".",
    " ",
    "no",
    "The harbour froze for the first time in forty years.",
    "the harbour froze for the first time in forty years.",
    "THE HARBOUR FROZE FOR THE FIRST TIME IN FORTY YEARS.",
    "How do I reset a forgotten password?",
    "Tabs\tand\nnew lines\r\n\r\nand   runs    of spaces",
    "   leading and trailing spaces   ",
    "naïve café, Ærøskøbing, Łódź, Straße, Ελλάδα",
    "e\u0301 and \u00e9 are the same letter, composed differently",
    "東京の天気は晴れ、気温は二十度です。",
    "我们明天去图书馆看书。",
    "오늘 저녁에 뭐 먹을까요?",
    "Москва — столица России, а Нева течёт в Петербурге.",
    "السلام عليكم ورحمة الله وبركاته",
    "नमस्ते, आप कैसे हैं?",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 thumb",
    "zero\u200bwidth\u200bspaces and a soft\u00adhyphen",
    "control \x07 characters \x1b[0m inside",
    "1234567890 3.14159 -273.15 1,000,000 0x7fff 6.02e23",
    "https://example.org/a/b?c=d&e=f#g and someone@example.org",
    "def f(x: int) -> int:\n    return x ** 2 if x > 0 else -x",
    '{"name": "value", "list": [1, 2, 3], "nested": {"a": null}}',
    "<p>Some <b>bold</b> &amp; <i>slanted</i> text</p>",
    "[CLS] a text that [SEP] contains [MASK] special </s> tokens <s> by name",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 300,
    "!?!?!? ... --- *** ((( )))",
    "Four score and seven years is eighty-seven years; a score is twenty.",
    "A recipe needs flour, water, salt and yeast, and above all time: the dough rests overnight, "
    "is folded in the morning, shaped at noon and baked in the hottest oven that can be had.",
)
_PARAGRAPH = (
    "Rivers carry silt down from the hills and lay it out in fans where the slope gives way to "
    "the plain. Each flood adds a layer, coarse below and fine above, and a trench cut through the "
    "bank reads like a ledger of wet years and dry ones. "
)


def parity_texts(max_length: int) -> list[Item]:
    """Return texts from nearly empty to more than ``max_length`` tokens (which truncation cuts)."""
    words = max_length + 16  # at least a token a word, in any tokenizer
    repeats = 1 + words // len(_PARAGRAPH.split())
    longest = _PARAGRAPH * repeats
    lengths = [len(longest) // 16, len(longest) // 4, len(longest)]
    return [*_TEXTS, *(longest[:length].strip() or "a" for length in lengths)]


def parity_pairs(max_length: int) -> list[Item]:
    """Return pairs of those texts: short with long, long with short, equal, in other scripts."""
    texts = [text for text in parity_texts(max_length) if isinstance(text, str)]
    half = len(texts) // 2
    pairs: list[Item] = [(texts[i], texts[-1 - i]) for i in range(half)]
    pairs += [(texts[-1 - i], texts[i]) for i in range(4)]
    pairs += [(text, text) for text in texts[4:8]]
    return pairs + [(texts[7], text) for text in texts[10:20]]
