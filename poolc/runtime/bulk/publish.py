"""Putting a finished output in place: rows, their description, and what could not be processed.

An older output stays until the new one replaces it, and comes back when that fails. Where
``<output>.meta.json`` stands beside an output, it describes that output. Everything is one ``os``
call after another. Knows nothing about formats or jobs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from poolc.model_cache import durable

META_SUFFIX = ".meta.json"
_PART = ".part"


def publish(draft: Path, path: Path, meta: Mapping[str, Any] | None) -> None:
    """Put the file ``draft``, which is on disk, at ``path`` in one step; ``draft`` is gone then.

    ``meta`` describes it beside it; None: the file itself does. Raises OSError, and then nothing
    has changed.
    """
    meta_path = meta_place(path)
    if meta is None:
        os.replace(draft, path)
        with contextlib.suppress(FileNotFoundError):
            meta_path.unlink()  # an older output's
    else:
        aside = _part(meta_path)
        durable.write_new(aside, meta_bytes(meta))
        try:
            _replace_both((draft, path), (aside, meta_path))
        finally:
            with contextlib.suppress(FileNotFoundError):
                aside.unlink()
    durable.fsync_folder(path.parent)


def write_beside(path: Path, data: bytes | None) -> None:
    """Put ``data`` at ``path`` in one step, or remove what is there. Raises OSError."""
    if data is None:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return
    aside = _part(path)
    try:
        durable.write_new(aside, data)
        os.replace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    durable.fsync_folder(path.parent)


def meta_bytes(meta: Mapping[str, Any]) -> bytes:
    """Return a description as the file that is written."""
    return orjson.dumps(meta, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def meta_place(path: Path) -> Path:
    """Return where the description of an output is."""
    return path.with_name(path.name + META_SUFFIX)


def _replace_both(rows: tuple[Path, Path], meta: tuple[Path, Path]) -> None:
    """Rename rows and description, each a (from, to); after an error the old ones are there."""
    old_meta, old_rows = _part(meta[1]), _part(rows[1])
    with contextlib.ExitStack() as undo:
        undo.callback(_restore, old_meta, meta[1])
        undo.callback(_restore, old_rows, rows[1])
        # The old description goes first: none may ever stand beside rows of another job.
        with contextlib.suppress(FileNotFoundError):
            os.replace(meta[1], old_meta)
        with contextlib.suppress(FileNotFoundError):
            _keep(rows[1], old_rows)
        if not os.path.lexists(rows[1]):
            undo.callback(_back, rows[1], rows[0])
        os.replace(*rows)
        os.replace(*meta)
        undo.pop_all()
    for old in (old_rows, old_meta):
        old.unlink(missing_ok=True)


def _back(path: Path, draft: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, draft)


def _keep(path: Path, aside: Path) -> None:
    try:
        os.link(path, aside, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links: for a moment nothing is at ``path``
        os.replace(path, aside)


def _restore(aside: Path, path: Path) -> None:
    if os.path.lexists(aside):
        os.replace(aside, path)
        aside.unlink(missing_ok=True)  # renaming one link over another of a file keeps both


def clear_drafts(path: Path) -> None:
    """Remove what a killed process left of its steps towards ``path``; no other may be at work."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(path.parent):
            if name.startswith(f".{path.name}.") and name.endswith(_PART):
                (path.parent / name).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
