"""Static models: which tokens count, and how long a text may be."""

from __future__ import annotations

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.pooler_fields import pooler_error
from poolc.compiler.recognize.context import Context
from poolc.compiler.st_files import SentenceTransformer
from poolc.compiler.st_files.chain import MODEL2VEC
from poolc.compiler.st_files.model2vec import is_model2vec
from poolc.compiler.static import StaticTokenizer, check_vocabulary
from poolc.errors import InvalidOption, UnsupportedModel
from poolc.spec import Convert, PoolingType

# Neither library has a limit where the files name none; a graph holds all of a text's vectors.
_LONGEST = 32768
_MODEL2VEC_LENGTH = 512  # model2vec's own default


def choose_static(
    context: Context,
    st: SentenceTransformer,
    words: StaticTokenizer,
    arch: Architecture,
    choices: Choices,
) -> None:
    """Set what only static models have, and the maximum length.

    Raises UnsupportedModel, TokenizerError or InvalidOption.
    """
    _check_options(context)
    check_vocabulary(words.tokenizer, arch.vocab_size)
    choices.set("max_length", _LONGEST, "default of static models: no file names a limit")
    if words.max_length is not None:
        choices.set("max_length", words.max_length, "tokenizer.json: truncation")
    if st.reader == MODEL2VEC:
        _choose_model2vec(context, words, choices)
    elif is_model2vec(context.folder / st.transformer) and words.unknown_id is not None:
        context.warn(
            "config.json is model2vec's, modules.json Sentence Transformers', which is followed: "
            "unknown tokens count, and no text is cut by its characters"
        )
    asked = context.options.max_length
    if asked is not None:
        if asked < 1:
            raise InvalidOption(
                f"max_length is {asked}; a static model takes 1 or more", param="max_length"
            )
        choices.set("max_length", asked, "--max-length")


def _choose_model2vec(context: Context, words: StaticTokenizer, choices: Choices) -> None:
    length = getattr(context.config, "max_length", _MODEL2VEC_LENGTH)
    if length is None:
        choices.set("max_length", _LONGEST, "config.json: max_length is null; default of poolc")
    elif isinstance(length, int) and not isinstance(length, bool) and length > 0:
        named = hasattr(context.config, "max_length")
        origin = "config.json: max_length" if named else "default of model2vec"
        choices.set("max_length", length, origin)
        choices.set("chars_per_token", words.median_chars, "tokenizer.json: median of its tokens")
    else:
        raise UnsupportedModel(
            f"config.json: max_length is {length!r}; it must be null or positive"
        )
    if words.unknown_id is not None:
        choices.set("uncounted_ids", (words.unknown_id,), "tokenizer.json: the unknown token")


def _check_options(context: Context) -> None:
    if context.options.convert not in (Convert.AUTO, Convert.NONE, Convert.EMBED):
        raise UnsupportedModel(
            f"a static model has vectors only: --convert {context.options.convert} needs a "
            "transformer"
        )
    pooling = context.pooler.pooling
    if pooling not in (None, PoolingType.MEAN):
        raise pooler_error(
            f"{context.pooler.written['pooling']} is {pooling.upper()}; a static model averages "
            "its tokens; allowed: MEAN"
        )
