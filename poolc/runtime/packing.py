"""Where the real tokens of a padded micro-batch are: what graphs without padding are fed.

Pure functions over lengths. The inputs are those of ONNX Runtime's PackedMultiHeadAttention
(com.microsoft: ``token_offset``, ``cumulative_sequence_length``), and two for Gather.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poolc.spec import CU_SEQLENS, RESTORE_INDICES, TOKEN_INDICES, TOKEN_OFFSET

Int32 = npt.NDArray[np.int32]


def packing(lengths: npt.NDArray[np.int64], seq: int) -> dict[str, Int32]:
    """Return the further inputs for texts of ``lengths`` [batch], each padded to ``seq``.

    A text may have no tokens: a row that fills a bucket up.
    """
    batch = len(lengths)
    starts = np.zeros(batch + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    columns = np.arange(seq, dtype=np.int32)
    is_real = columns < lengths[:, None]
    places = np.arange(batch * seq, dtype=np.int32).reshape(batch, seq)
    indices = places[is_real]
    # Behind a text's tokens its last one is repeated: the head masks it. A row of no tokens reads
    # another's.
    last = np.maximum(lengths - 1, 0).astype(np.int32)
    restore = starts[:-1, None] + np.minimum(columns, last[:, None])
    return {
        TOKEN_INDICES: indices,
        TOKEN_OFFSET: np.concatenate([indices, places[~is_real]]).reshape(batch, seq),
        CU_SEQLENS: starts,
        RESTORE_INDICES: np.minimum(restore, np.int32(len(indices) - 1)),
    }
