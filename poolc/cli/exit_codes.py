"""The one table of exit codes. Knows errors and numbers, nothing about commands."""

from __future__ import annotations

from dataclasses import dataclass

from poolc import errors

SUCCESS = 0
USAGE = 2
SOME_ROWS_FAILED = 11
BEYOND_THRESHOLD = 12
BUG = 70
TERMINATED = 143


@dataclass(frozen=True, slots=True)
class ExitCode:
    """One row: what a process exits with when an error of this class reaches the top."""

    code: int
    meaning: str
    error: type[BaseException] | None = None


# The first row whose class an error is an instance of decides, so subclasses stand first.
EXIT_CODES: tuple[ExitCode, ...] = (
    ExitCode(SUCCESS, "done"),
    ExitCode(USAGE, "a wrong option or argument", errors.InvalidOption),
    ExitCode(3, "a text or file that cannot be used", errors.InputError),
    ExitCode(4, "the model cannot be found or compiled", errors.ModelError),
    ExitCode(6, "the compiled model does not reproduce its reference", errors.ParityError),
    ExitCode(5, "a stage of the compiler failed", errors.CompileError),
    ExitCode(7, "an artifact is missing, damaged or made for something else", errors.ArtifactError),
    ExitCode(8, "something is not installed", errors.MissingDependency),
    ExitCode(9, "the model failed while running", errors.BackendError),
    ExitCode(1, "any other error", errors.PoolcError),
    ExitCode(10, "the operating system refused a file", OSError),
    ExitCode(SOME_ROWS_FAILED, "done, but for rows that could not be processed"),
    ExitCode(BEYOND_THRESHOLD, "done, but a comparison does not keep to a threshold"),
    ExitCode(BUG, "a bug in poolc", Exception),
    ExitCode(130, "interrupted", KeyboardInterrupt),
    ExitCode(TERMINATED, "terminated"),
)


def exit_code(error: BaseException) -> int:
    """Return the code of an error."""
    for row in EXIT_CODES:
        if row.error is not None and isinstance(error, row.error):
            return row.code
    return BUG


def table() -> str:
    """Return the table as lines of text, by code."""
    rows = sorted(EXIT_CODES, key=lambda row: row.code)
    return "\n".join(f"{row.code:>5}  {row.meaning}" for row in rows)
