"""Options of the commands that run jobs: what is asked of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from poolc.spec import Task

UseActivation = Annotated[
    bool | None,
    typer.Option(
        help="Probabilities or raw logits; as the model says if not given.", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class CutArguments:
    """How texts that are too long are cut."""

    truncate: Annotated[
        bool,
        typer.Option("--truncate", help="Cut texts that are too long instead of refusing them."),
    ] = False
    truncation_side: Annotated[
        str | None,
        typer.Option(help="Which end is cut off: left or right; the model's if not given."),
    ] = None
    truncate_prompt_tokens: Annotated[
        int | None,
        typer.Option(
            help="Cut texts to so many tokens, special tokens included; -1: to what the model "
            "takes, as --truncate."
        ),
    ] = None

    def params(self) -> dict[str, Any]:
        """Return fields of Params. Raises InvalidOption for no number of tokens."""
        from poolc.errors import InvalidOption

        length = self.truncate_prompt_tokens
        if length is not None and length != -1 and length < 1:
            raise InvalidOption(
                f"--truncate-prompt-tokens is {length}; allowed: 1 or more tokens, or -1 for as "
                "many as the model takes",
                param="truncate_prompt_tokens",
            )
        return {
            "truncate": self.truncate or length is not None,
            "truncation_side": self.truncation_side,
            "max_length": None if length == -1 else length,
        }


@dataclass(frozen=True, slots=True)
class LengthArguments(CutArguments):
    """What happens to texts that are too long."""

    chunk: Annotated[
        bool | None,
        typer.Option(
            help="Embed texts that are too long in windows and average them; as the model says "
            "if not given.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class EmbedArguments:
    """What the vectors should be like."""

    dimensions: Annotated[int | None, typer.Option(help="Matryoshka size of the vectors.")] = None
    output_dtype: Annotated[
        str, typer.Option(help="float32, float16, int8, uint8, binary or ubinary.")
    ] = "float32"
    prompt_name: Annotated[
        str | None, typer.Option(help="Which of the model's prompts is put before each text.")
    ] = None
    prompt: Annotated[
        str | None, typer.Option(help='A prompt of your own; "" for none.', show_default=False)
    ] = None
    no_normalize: Annotated[
        bool, typer.Option("--no-normalize", help="Vectors as the model made them.")
    ] = False


@dataclass(frozen=True, slots=True)
class HeadArguments:
    """Which head answers, of models that have several, and for which side."""

    sparse: Annotated[
        bool, typer.Option("--sparse", help="Weights by token id (SPLADE, BGE-M3).")
    ] = False
    tokens: Annotated[
        bool, typer.Option("--tokens", help="One vector a token (ColBERT, BGE-M3).")
    ] = False
    side: Annotated[
        str | None,
        typer.Option(
            help="Whose texts these are, query or document: its prompt, its route through a model "
            "that has one a side, its markers and limits (ColBERT); plain: neither's.",
        ),
    ] = None
    top_k: Annotated[
        int | None, typer.Option(help="How many weights of a sparse vector are kept.")
    ] = None

    def task(self) -> Task:
        """Return what was asked for. Raises InvalidOption for both."""
        from poolc.errors import InvalidOption
        from poolc.spec import Task

        if self.sparse and self.tokens:
            raise InvalidOption("--sparse and --tokens are two outputs: give one", param="tokens")
        if self.sparse:
            return Task.EMBED_SPARSE
        return Task.EMBED_TOKENS if self.tokens else Task.EMBED


@dataclass(frozen=True, slots=True)
class PairColumns:
    """Where the two texts of a pair are."""

    left_column: Annotated[
        str | None,
        typer.Option(help="Column of the first text; text_1, query or sentence1 if not given."),
    ] = None
    right_column: Annotated[
        str | None,
        typer.Option(help="Column of the second text; text_2, document or sentence2."),
    ] = None


@dataclass(frozen=True, slots=True)
class ClassifiedPairColumns:
    """Where the two texts of a pair are, of models that classify pairs."""

    left_column: Annotated[
        str | None,
        typer.Option(help="To classify pairs of texts: column of JSON lines of the first text."),
    ] = None
    right_column: Annotated[str | None, typer.Option(help="Column of the second text.")] = None


@dataclass(frozen=True, slots=True)
class PairArguments:
    """How the two texts of a pair are read."""

    instruction: Annotated[
        str | None, typer.Option(help="What the model's score template is told to look for.")
    ] = None
    max_query_length: Annotated[
        int | None, typer.Option(help="Tokens of the first text; more are cut off.")
    ] = None
    max_document_length: Annotated[
        int | None, typer.Option(help="Tokens of the second text; more are cut off.")
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Jinja template that makes one prompt of a pair, instead of the model's own.",
        ),
    ] = None

    def params(self) -> dict[str, Any]:
        """Return fields of Params. Raises InvalidOption for a template that cannot be read."""
        from poolc.model_cache.score_templates import template_text

        template = self.template
        return {
            "instruction": self.instruction,
            "max_query_length": self.max_query_length,
            "max_document_length": self.max_document_length,
            "template": None if template is None else template_text(template, "--template"),
        }
