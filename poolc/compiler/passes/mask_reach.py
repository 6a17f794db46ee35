"""How far a query sees: the keys before and after its own place that a mask ever lets it see.

A mask is made of positions and of the padding, so the sub-graph that makes it is run on texts
without padding, of two lengths: what differs with the length has no bound. What would need more
than that (a bias a head, masks of what a text says) has none either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options
from poolc.spec import ATTENTION_MASK, INPUT_IDS

_LENGTHS = (1536, 2304)  # a window of up to 1,535 keys to one side is seen in both
_MASKED_OUT = -1e30  # exp of it is 0 in fp32 beside any score
_SEED = 3


@dataclass(frozen=True, slots=True)
class Reach:
    """The most keys before and after its own that a query sees; None for all there are."""

    before: int | None = None
    after: int | None = None

    @property
    def span(self) -> int | None:
        """The most keys that a query sees; None where their number grows with the text."""
        if self.before is None or self.after is None:
            return None
        return self.before + 1 + self.after

    def __str__(self) -> str:
        sides = ("all" if side is None else str(side) for side in (self.before, self.after))
        return "{} before, {} after".format(*sides)


EVERYTHING = Reach()


def reach_of(graph: ir.Graph, mask: ir.Value) -> Reach:
    """Return the reach of a mask of [1 or batch, 1, seq, seq] (or of the last two) axes."""
    if mask.producer() is None or mask.shape is None or len(mask.shape) < 2:
        return EVERYTHING
    if mask.dtype not in (ir.DataType.BOOL, ir.DataType.FLOAT):
        return EVERYTHING
    heads = mask.shape[-3] if len(mask.shape) > 3 else 1
    if heads != 1 or mask.shape[-2] == 1:
        return EVERYTHING
    made = ir.convenience.extract(graph, list(graph.inputs), [mask])
    used = {value.name for value in made.inputs if value.uses()}
    if not used <= {INPUT_IDS, ATTENTION_MASK}:
        return EVERYTHING
    for value in [value for value in made.inputs if value.name not in used]:
        made.inputs.remove(value)
    found = [_seen(made, sorted(map(str, used)), length) for length in _LENGTHS]
    if any(one is None for one in found):
        return EVERYTHING
    (before, after), (longer_before, longer_after) = (one for one in found if one is not None)
    return Reach(
        before if before == longer_before else None, after if after == longer_after else None
    )


def _seen(made: ir.Graph, used: list[str], length: int) -> tuple[int, int] | None:
    """Return the most keys before and after a query's own in a text; None if its words decide."""
    ort = import_onnxruntime()
    model = ir.Model(made, ir_version=10)
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(),
        session_options(ort),
        providers=["CPUExecutionProvider"],
    )
    random = np.random.default_rng(_SEED)
    allowed: npt.NDArray[np.bool_] | None = None
    for _ in range(2):
        words = random.integers(0, 100, (1, length))
        feeds = {INPUT_IDS: words, ATTENTION_MASK: np.ones((1, length), np.int64)}
        (mask,) = session.run(None, {name: feeds[name] for name in used})
        found = mask.reshape(mask.shape[-2:])
        found = found if found.dtype == np.bool_ else found > _MASKED_OUT
        if allowed is not None and not np.array_equal(found, allowed):
            return None
        allowed = found
    assert allowed is not None
    rows, columns = np.nonzero(allowed)
    if not len(rows):
        return None
    distances = columns - rows
    return max(0, -int(distances.min())), max(0, int(distances.max()))
