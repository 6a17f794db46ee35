"""Formats of files by their names, and the library that reads and writes tables.

Knows suffixes; knows nothing about what is in a file.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from poolc.errors import InvalidOption, MissingDependency


class Format(StrEnum):
    """What a file holds."""

    TEXT = "text"  # one text a line
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    ARROW = "arrow"  # Arrow IPC, the file format (Feather 2)
    NPY = "npy"


# A file without suffix is text where it is named, and nothing that a folder is searched for.
_SUFFIXES: Mapping[str, Format] = {
    ".txt": Format.TEXT,
    ".text": Format.TEXT,
    "": Format.TEXT,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".arrow": Format.ARROW,
    ".feather": Format.ARROW,
    ".npy": Format.NPY,
}
COMPRESSIONS: Mapping[str, str] = {".gz": "gzip", ".zst": "zstd"}
INPUTS = (Format.TEXT, Format.JSONL, Format.CSV, Format.TSV, Format.PARQUET, Format.ARROW)
OUTPUTS = (Format.JSONL, Format.PARQUET, Format.ARROW, Format.NPY)
TABLES = (Format.PARQUET, Format.ARROW)


def input_format(name: str) -> tuple[Format, str | None]:
    """Return the format of an input by its name, and how it is compressed. Raises InvalidOption."""
    path = PurePosixPath(name)
    compression = COMPRESSIONS.get(path.suffix.lower())
    inner = PurePosixPath(path.stem) if compression else path
    found = _SUFFIXES.get(inner.suffix.lower())
    if found not in INPUTS:
        raise InvalidOption(
            f"{name}: inputs are {_listed(INPUTS)}, text-like ones also as "
            f"{' or '.join(COMPRESSIONS)}; not {inner.suffix}: name the format (input_format)",
            param="inputs",
        )
    if compression and found in TABLES:
        raise InvalidOption(
            f"{name}: {found} is compressed inside and is not read from {path.suffix}: unpack it",
            param="inputs",
        )
    return found, compression


def is_known_input(name: str) -> bool:
    """Return whether a file of a folder is an input: one of a known suffix."""
    try:
        input_format(name)
    except InvalidOption:
        return False
    path = PurePosixPath(name)
    inner = path.stem if path.suffix.lower() in COMPRESSIONS else path.name
    return PurePosixPath(inner).suffix != ""


def output_format(name: str) -> Format:
    """Return the format of an output by its name. Raises InvalidOption."""
    found = _SUFFIXES.get(PurePosixPath(name).suffix.lower())
    if found not in OUTPUTS:
        raise InvalidOption(
            f"the output {name} has no known format; allowed: {_listed(OUTPUTS)}, a folder of "
            "parts (a name that ends with /), or - (JSON lines to standard output)",
            param="output",
        )
    return found


def named_format(name: str, allowed: tuple[Format, ...], param: str) -> Format:
    """Return the format called ``name``. Raises InvalidOption for none of those allowed."""
    if name not in allowed:
        raise InvalidOption(f"{param} is {name!r}; allowed: {', '.join(allowed)}", param=param)
    return Format(name)


def import_arrow(module: str, purpose: str) -> Any:
    """Import pyarrow or a module of it (``"parquet"``). Raises MissingDependency."""
    try:
        return importlib.import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise MissingDependency(
            f'{purpose} needs pyarrow, which is not installed: pip install "poolc[bulk]"'
        ) from error


def _listed(formats: tuple[Format, ...]) -> str:
    suffixes = {
        kind: [suffix for suffix, found in _SUFFIXES.items() if found is kind and suffix]
        for kind in formats
    }
    return ", ".join(f"{kind} ({', '.join(found)})" for kind, found in suffixes.items())
