"""Multi-vector models (ColBERT): layers, lengths, expansion, skipped tokens and markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import AddedToken, PreTrainedTokenizerBase

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.late_interaction import Expansion, LateInteraction, read_late_interaction
from poolc.compiler.recognize.context import Context
from poolc.compiler.recognize.embedding import choose_matryoshka, choose_prompts
from poolc.compiler.recognize.sides import name_origins
from poolc.errors import InvalidOption, UnsupportedModel
from poolc.spec import MultiVectorSpec, SideSpec, Task

_MEAN = "meanmaxsim"
_ST_FILE = "config_sentence_transformers.json"


def choose_multi_vector(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.MULTI_VECTOR. The tokenizer learns the model's markers.

    Raises UnsupportedModel or InvalidOption.
    """
    tasks = (Task.EMBED_TOKENS, Task.SCORE, Task.ENCODE)
    choices.set("tasks", tasks, choices.origins["tasks"])
    st = context.st
    found = read_late_interaction(context.folder, st)
    dim = _width(found, arch)
    _register(context.tokenizer, found.markers)
    query, document = _sides(context, arch, choices, found)
    grown = found.expansion
    spec = MultiVectorSpec(
        dim=dim,
        max_length=choices.values["max_length"],
        query=query,
        document=document,
        layers=found.layers,
        normalize=choose_unit(context, choices, found.normalize),
        expansion_id=None if grown is None else _expansion_id(context, grown.token),
        mean=bool(st and st.settings.get("similarity_fn_name") == _MEAN),
    )
    choices.set("multi_vector", spec, found.file)
    name_origins(found, spec, arch, choices)
    choices.set("embedding_size", dim, "the last layer's width")
    longest = max(spec.max_length, query.max_length, document.max_length)
    if longest != choices.values["max_length"]:
        side = "query" if longest == query.max_length else "document"
        origin = choices.origins[f"multi_vector.{side}.max_length"]
        choices.set("max_length", longest, f"{origin}, the longer side")
    if st is None:
        choices.set("prompts", dict(found.prompts), f"{found.file}: markers")
    else:  # similarity_fn_name compares single vectors, or is read above
        settings = {**st.settings, "prompts": found.prompts, "similarity_fn_name": None}
        choose_prompts(replace(context, st=replace(st, settings=settings)), choices)
        if "prompts" in choices.origins:
            choices.origins["prompts"] = found.files["markers"]
    choose_matryoshka(context, choices)


def choose_unit(context: Context, choices: Choices, usual: bool) -> bool:
    """Return whether token vectors are scaled to unit length: their activation, in vLLM."""
    name, asked = context.pooler.unit
    if asked is None:
        return usual
    choices.origins["multi_vector.normalize"] = context.pooler.origin(name)
    return asked


def _width(found: LateInteraction, arch: Architecture) -> int:
    width, before = arch.hidden_size, arch.name
    for layer in found.layers:
        if layer.in_features != width:
            raise UnsupportedModel(
                f"{layer.path}: in_features is {layer.in_features}, but {before} gives {width}"
            )
        width, before = layer.out_features, layer.path
    if not found.layers and found.markers:
        raise UnsupportedModel(
            "modules.json has no Dense module: a projection would have to be made up"
        )
    return width


def _sides(
    context: Context, arch: Architecture, choices: Choices, found: LateInteraction
) -> tuple[SideSpec, SideSpec]:
    usual, asked = choices.values["max_length"], context.options.max_length
    limit = arch.position_limit

    def capped(length: int | None) -> int:
        length = asked or length or usual
        return length if limit is None else min(length, limit)

    query, expansion = capped(found.query_length), found.expansion
    if expansion is not None:
        _check_expansion(found, expansion, arch, asked)
        query = expansion.length if expansion.fixed else max(query, expansion.length)
    skipped, sides = _skipped(context, found), found.skiplist_sides
    return (
        SideSpec(
            query,
            expand_to=expansion.length if expansion else None,
            attend_expansion=bool(expansion and expansion.attend),
            skipped_ids=skipped if "query" in sides else (),
        ),
        SideSpec(
            capped(found.document_length),
            skipped_ids=skipped if "document" in sides else (),
            kept_ids=found.kept_ids,
        ),
    )


def _check_expansion(
    found: LateInteraction, expansion: Expansion, arch: Architecture, asked: int | None
) -> None:
    rooms = {f"{arch.name} has positions for": arch.position_limit, "--max-length is": asked}
    for name, room in rooms.items():
        if room is not None and room < expansion.length:
            raise InvalidOption(
                f"queries are expanded to {expansion.length} tokens ({found.files['expansion']}), "
                f"but {name} "
                f"{room}",
                param="max_length",
            )
    if found.query_length is not None and found.query_length < expansion.length:
        raise UnsupportedModel(
            f"query_length is {found.query_length}, less than the {expansion.length} tokens that "
            "query_expansion pads to"
        )


def _skipped(context: Context, found: LateInteraction) -> tuple[int, ...]:
    """Return the ids of the skipped tokens; a word of several pieces is none, and is said."""
    tokenizer = context.tokenizer
    ids, unknown = [], []
    for word in found.skiplist:
        token_id = tokenizer.convert_tokens_to_ids(word)
        if token_id is None or (token_id == tokenizer.unk_token_id and word != tokenizer.unk_token):
            unknown.append(word)
        else:
            ids.append(int(token_id))
    if unknown:
        context.warn(
            f"{found.files['skiplist']}: {' '.join(unknown)} are no tokens of this tokenizer: they "
            "are not skipped"
        )
    return tuple(sorted(set(ids)))


def _expansion_id(context: Context, token: str | None) -> int:
    tokenizer = context.tokenizer
    if token is None:
        for token_id in (tokenizer.mask_token_id, tokenizer.eos_token_id):
            if token_id is not None:
                return int(token_id)
        raise UnsupportedModel(
            "queries are expanded with the mask token, but the tokenizer has neither a mask nor an "
            "end token: name one in query_expansion"
        )
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or (token_id == tokenizer.unk_token_id and token != tokenizer.unk_token):
        raise UnsupportedModel(
            f"query_expansion: token {token!r} is not in the tokenizer's vocabulary"
        )
    return int(token_id)


def _register(tokenizer: PreTrainedTokenizerBase, markers: Sequence[str]) -> None:
    """Make markers that the vocabulary has single tokens, as they were inserted in training.

    As text ``[unused0]`` would be cut into pieces. A marker that is no token stays text.
    """
    added, vocabulary = set(tokenizer.added_tokens_encoder), tokenizer.get_vocab()
    tokens = []
    for marker in markers:
        forms = (marker, *marker.split(None, 1)[:1])
        known = next((form for form in forms if form in added or form in vocabulary), None)
        if marker.strip() and known and tokenizer.tokenize(known) != [known]:
            tokens.append(AddedToken(known, normalized=False, special=True))
    if tokens:
        tokenizer.add_special_tokens({"additional_special_tokens": tokens})
