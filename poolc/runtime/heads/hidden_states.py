"""Hidden states as they are, or cut and normalised as an embedding model's vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolc.errors import InvalidOption
from poolc.runtime.outputs import Float32, Ragged, l2_normalize
from poolc.runtime.request import Params
from poolc.spec import ModelSpec, Task


def check_hidden_states(spec: ModelSpec, task: Task, params: Params) -> None:
    """Refuse token vectors of a model whose vectors pass through more layers than its tokens.

    Raises InvalidOption that names them.
    """
    if task is not Task.ENCODE or (params.normalize is None and params.dimensions is None):
        return
    routes = (spec, *(spec.router.others.values() if spec.router else ()))
    layers = [layer for route in routes for layer in route.layers]
    if layers:
        named = ", ".join(f"{layer.path or 'head'} ({layer.kind})" for layer in layers)
        raise InvalidOption(
            f"token vectors of this model would pass {named}, which this artifact computes after "
            "pooling only; encode without dimensions and normalize gives the hidden states before "
            "them",
            param="normalize" if params.dimensions is None else "dimensions",
        )


def hidden_states(params: Params, states: Sequence[Float32]) -> Ragged:
    """Return one array [tokens, hidden] a text."""
    ragged = Ragged.from_rows(list(states))
    values = np.ascontiguousarray(ragged.values[:, : params.dimensions])
    return Ragged(l2_normalize(values) if params.normalize else values, ragged.offsets)
