"""File-to-file jobs: records in, rows out, in bounded memory, complete or not there at all.

``records.py`` reads, ``sinks.py`` writes, ``job.py`` streams one through the engine into the other.
"""

from __future__ import annotations

from poolc.runtime.bulk.job import BulkJob, BulkProgress, BulkResult, check, job_for_model, run
from poolc.runtime.bulk.records import Columns

__all__ = ["BulkJob", "BulkProgress", "BulkResult", "Columns", "check", "job_for_model", "run"]
