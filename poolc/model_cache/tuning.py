"""Where a tuning record is read from: an artifact's manifest, or a JSON file of the same fields.

Knows nothing about what a record chooses between.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from poolc.errors import InputError, InvalidOption, meant
from poolc.model_cache.manifest import MANIFEST_FILE

TUNE_MODES = ("quick", "full", "off")
# Other fields hold for one precision of one model.
_FIELDS = ("rewrites", "budget_tokens", "lone_threads")


def tuning_record(place: str) -> dict[str, Any]:
    """Read a record; of an artifact without one, the fields that it has.

    Raises InvalidOption for what is neither a mode nor there, InputError for what cannot be read.
    """
    path = Path(place).expanduser()
    if not path.exists():
        raise InvalidOption(
            f"tune is {place!r}; allowed: {', '.join(TUNE_MODES)}, an artifact, or a JSON file "
            f"with a tuning record{meant(place, TUNE_MODES)}",
            param="tune",
        )
    file = path / MANIFEST_FILE if path.is_dir() else path
    try:
        plain = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} holds no tuning record: {error}", param="tune") from error
    record = plain.get("tuning", plain) if isinstance(plain, dict) else None
    if not isinstance(record, dict) or "rewrites" not in record:
        raise InputError(f"{file} holds no tuning record: rewrites is missing", param="tune")
    return {name: record[name] for name in _FIELDS if name in record}
