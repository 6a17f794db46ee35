"""One vector a token: truncated, normalised, converted, compared by MaxSim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolc.runtime.late_interaction import maxsim
from poolc.runtime.outputs import Float32, Ragged, convert_dtype, l2_normalize
from poolc.runtime.request import Params, Prepared, Row
from poolc.spec import TOKEN_VECTORS, Kind, ModelSpec


def token_vectors(spec: ModelSpec, params: Params, rows: Sequence[Row]) -> Ragged:
    """Return one array [tokens, dim] a text: the rows that count, cut, normalised, converted."""
    ragged = Ragged.from_rows([row[TOKEN_VECTORS] for row in rows])
    made_unit = bool(spec.multi_vector and spec.multi_vector.normalize)
    normalize = made_unit if params.normalize is None else params.normalize
    # int8 counts 127ths of a unit vector: any other length would overflow or waste the range.
    normalize = normalize or params.output_dtype in ("int8", "uint8")
    # A hybrid model's sizes are those of its dense vector.
    default = spec.default_dimensions if spec.kind is Kind.MULTI_VECTOR else None
    dimensions = params.dimensions or default
    values = ragged.values[:, :dimensions]
    if normalize and (dimensions is not None or not made_unit):
        values = l2_normalize(values)
    return Ragged(convert_dtype(np.ascontiguousarray(values), params.output_dtype), ragged.offsets)


def late_interaction_scores(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Float32:
    """Return one score a pair [n]: MaxSim of a query and a document."""
    if prepared.pairs is None or spec.multi_vector is None:
        raise ValueError("a score by MaxSim needs pairs; this is a bug in poolc")
    vectors = token_vectors(spec, Params(dimensions=prepared.params.dimensions), rows)
    queries, documents = prepared.pairs[:, 0], prepared.pairs[:, 1]
    scores = np.empty(len(queries), np.float32)
    for query in np.unique(queries):
        places = np.flatnonzero(queries == query)
        chosen = Ragged.from_rows([vectors[i] for i in documents[places]])
        scores[places] = maxsim(vectors[int(query)], chosen, mean=spec.multi_vector.mean)
    return scores
