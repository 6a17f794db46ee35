"""Reading a model's JSON files. Knows nothing about what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from poolc.errors import UnsupportedModel


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} where the file is not there.

    Raises UnsupportedModel naming the file where it is not a JSON object.
    """
    if not path.is_file():
        return {}
    name = f"{path.parent.name}/{path.name}"  # every module of a model has a config.json
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UnsupportedModel(f"{name} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnsupportedModel(f"{name} must hold a JSON object")
    return value
