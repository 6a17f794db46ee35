"""The names of a head's columns, as config.json has them."""

from __future__ import annotations

from poolc.compiler.recognize.context import Context
from poolc.errors import UnsupportedModel


def id2label(context: Context) -> tuple[str, ...]:
    """Return config.json's labels in the order of their numbers, which are those of the columns.

    Raises UnsupportedModel where a column has no label: closing a gap would name the wrong ones.
    """
    names = dict(context.config.id2label or {})
    numbers = sorted(names)
    if numbers != [*range(len(names))]:
        shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
        count = len(names)
        raise UnsupportedModel(
            f"config.json: id2label has the numbers {shown}; the model's {count} columns are 0 to "
            f"{count - 1}: correct them there, or call the columns by their numbers with "
            f'--hf-overrides \'{{"id2label": null, "num_labels": {count}}}\''
        )
    return tuple(str(names[number]) for number in numbers)
