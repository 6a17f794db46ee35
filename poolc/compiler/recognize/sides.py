"""Where each setting of a multi-vector model comes from: an origin a field of MultiVectorSpec."""

from __future__ import annotations

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.late_interaction import LateInteraction
from poolc.spec import MultiVectorSpec

_ST_FILE = "config_sentence_transformers.json"


def name_origins(
    found: LateInteraction, spec: MultiVectorSpec, arch: Architecture, choices: Choices
) -> None:
    """Set the origins of the fields, by dotted name; what is set already stays."""
    usual, files, grown = choices.origins["max_length"], found.files, found.expansion
    asked = usual if usual == "--max-length" else None

    def length(value: int, named: str | None, own: int | None) -> str:
        capped = own is not None and value < own and not asked
        return asked or (f"{arch.name}: positions" if capped else named or usual)

    query_key = "expansion" if grown and spec.query.max_length == grown.length else "query_length"
    rows: dict[str, str | None] = {
        "dim": "the last layer's width",
        "layers": files.get("layers"),
        "normalize": files.get("normalize", "default: modules.json has no Normalize of tokens"),
        "max_length": usual,
        "query.max_length": files["expansion"]
        if query_key == "expansion"
        else length(spec.query.max_length, files.get(query_key), found.query_length),
        "document.max_length": length(
            spec.document.max_length, files.get("document_length"), found.document_length
        ),
        "query.skipped_ids": files.get("skiplist") if spec.query.skipped_ids else None,
        "document.skipped_ids": files.get("skiplist"),
        "mean": f"{_ST_FILE}: similarity_fn_name" if spec.mean else None,
    }
    if grown is not None:
        rows |= {
            "query.expand_to": files["expansion"],
            "query.attend_expansion": files["attend"],
        }
        rows["expansion_id"] = (
            files["expansion"] if grown.token else "tokenizer: its mask token, else its end token"
        )
    for name, origin in rows.items():
        if origin is not None:
            choices.origins.setdefault(f"multi_vector.{name}", origin)
