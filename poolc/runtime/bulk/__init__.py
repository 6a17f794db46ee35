"""Bulk jobs: files in, files out, in bounded memory; killed at any moment, they go on.

``records.py`` reads rows, ``parts.py`` cuts them into parts, ``compute.py`` runs one part,
``storing.py`` makes files of it, ``commit.py`` makes it count (``shelf.py`` and ``ledger.py`` are
what it writes to), ``outputs.py`` says what a part is as bytes; ``run.py`` does all of it at once.
Cutting, running, storing and committing are functions of their own, so that another program may
hand out the parts.
"""

from __future__ import annotations

from poolc.runtime.bulk.columns import Columns
from poolc.runtime.bulk.job import (
    BulkJob,
    BulkResult,
    Settings,
    check,
    job_for_model,
)
from poolc.runtime.bulk.progress import BulkProgress
from poolc.runtime.bulk.run import run

__all__ = [
    "BulkJob",
    "BulkProgress",
    "BulkResult",
    "Columns",
    "Settings",
    "check",
    "job_for_model",
    "run",
]
