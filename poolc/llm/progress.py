"""The bar that counts prompts: tqdm's interface, drawn by rich on a terminal and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

_DESCRIPTION = "Processed prompts"


class ProgressBar(Protocol):
    """What a ``use_tqdm`` callable returns, as tqdm does."""

    def update(self, n: int, /) -> object:
        """Count ``n`` more prompts."""

    def close(self) -> object:
        """Finish."""


UseTqdm = bool | Callable[..., ProgressBar]


def progress_bar(use_tqdm: UseTqdm, total: int) -> ProgressBar:
    """Return the bar asked for: the caller's own, rich's on a terminal, or a silent one."""
    if callable(use_tqdm):
        return use_tqdm(total=total, desc=_DESCRIPTION)
    if use_tqdm and sys.stderr is not None and sys.stderr.isatty():
        return _RichBar(total)
    return _Silent()


class _Silent:
    def update(self, n: int, /) -> None:
        pass

    def close(self) -> None:
        pass


class _RichBar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(_DESCRIPTION, total=total)
        self._progress.start()

    def update(self, n: int, /) -> None:
        self._progress.advance(self._task, n)

    def close(self) -> None:
        self._progress.stop()
