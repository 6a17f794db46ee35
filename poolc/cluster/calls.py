"""What actors were asked and have not answered yet, and who ended before answering.

Knows Ray's references and errors; knows nothing about what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from poolc.cluster.library import import_ray
from poolc.errors import BackendError


class Calls:
    """Questions under way. Each has who was asked, and what is done with the answer.

    ``on_end`` is told, once for each question, of one who ended before answering, and why.
    """

    def __init__(self, on_end: Callable[[Any, Exception], None]) -> None:
        self._ray = import_ray()
        errors = self._ray.exceptions
        self._lost = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        )
        self._pending: dict[Any, tuple[Any, Callable[[Any], None]]] = {}
        self._on_end = on_end

    def __len__(self) -> int:
        return len(self._pending)

    def ask(self, who: Any, reference: Any, then: Callable[[Any], None]) -> None:
        """Call ``then`` with what a reference will be, when it is there."""
        self._pending[reference] = (who, then)

    def forget(self, who: Any) -> None:
        """Want no more answers of one who was asked."""
        self._pending = {ref: entry for ref, entry in self._pending.items() if entry[0] is not who}

    def wait(self, timeout_s: float) -> None:
        """Take the answers that are there, or come within so many seconds.

        Raises BackendError where somebody failed without ending, and what taking an answer raises.
        """
        if not self._pending:
            return
        references = list(self._pending)
        ready, _ = self._ray.wait(references, num_returns=1, timeout=timeout_s, fetch_local=False)
        if ready:
            rest = [ref for ref in references if ref is not ready[0]]
            more = (
                len(rest)
                and self._ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
            )
            ready = [*ready, *(more or ())]
        for reference in ready:
            if reference in self._pending:  # else somebody's end made it unwanted meanwhile
                self._take(reference)

    def _take(self, reference: Any) -> None:
        who, then = self._pending.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._lost as error:
            self._on_end(who, error)
            return
        except self._ray.exceptions.RayError as error:
            raise BackendError(f"a worker failed: {error}") from error
        then(answer)
