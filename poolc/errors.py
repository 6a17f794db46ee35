"""The errors that poolc raises on purpose. A leaf: it imports nothing of ours.

    PoolcError
    ├── InputError (ValueError)        what a caller passed to a loaded model
    │   ├── InvalidText                empty, not a string, not valid Unicode, not a token id
    │   ├── TextTooLong                longer than the model accepts and not to be truncated
    │   ├── InvalidDimensions          a Matryoshka size that the model does not allow
    │   ├── UnsupportedTask            the model has no such task
    │   └── InvalidOption              an option, flag or parameter outside what is allowed
    ├── ModelError                     the model given to the compiler
    │   ├── ModelNotFound              no such folder, or no such repository or revision on the hub
    │   ├── UnsupportedModel           an architecture, module or head that poolc cannot compile
    │   ├── TokenizerError             no tokenizer, or one that cannot be converted
    │   ├── RemoteCodeRefused          the model brings its own Python and trust was not given
    │   ├── UnsafeWeights              pickled weights that torch's weights-only loader refuses
    │   └── CorruptWeights             weights that cannot be read or do not fit the architecture
    ├── CompileError                   a stage of the compiler failed
    │   └── ParityError                the artifact does not reproduce its reference
    ├── ArtifactError                  a compiled artifact
    │   ├── ArtifactNotFound           nothing there
    │   ├── ArtifactCorrupt            a file is missing, altered or malformed
    │   ├── ArtifactIncompatible       written for another poolc, runtime or machine
    │   ├── ArtifactExists             publishing would overwrite something else
    │   └── CannotExport               what another server or library has no way to run
    ├── MissingDependency              a package is not installed, or two exclude each other
    ├── BackendError                   the execution backend failed on valid input
    │   └── DeviceOutOfMemory          one text does not fit into a device's memory
    └── Overloaded                     the queue is full: try again later

What only HTTP can raise is in ``serve/errors.py``, as subclasses of these. A message says what was
given, what is allowed and what to do. Errors carry no exit code or HTTP status:
``cli/exit_codes.py`` and ``serve/errors.py`` hold the only two tables that map them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """Return what a message says to an unknown name: the known one it is near to, or all."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def meant(value: object, allowed: Sequence[str]) -> str:
    """Return what a message that lists the allowed values adds: the nearest one, if one is near."""
    written = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(str(value).lower(), written, 1)
    return f"; did you mean {written[near[0]]}?" if near else ""


class PoolcError(Exception):
    """Base of every error that poolc raises on purpose."""


class InputError(PoolcError, ValueError):
    """What a caller passed to a loaded model is not acceptable.

    ``index`` is the position of the offending item in the caller's list, ``param`` the name of the
    offending parameter; either is None where it does not apply.
    """

    def __init__(self, message: str, *, index: int | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.index = index
        self.param = param


class InvalidText(InputError):
    """A text is empty, not a string, not valid Unicode, or a token id is out of the vocabulary."""


class TextTooLong(InputError):
    """A text has more tokens than the model accepts and truncation was not asked for."""


class InvalidDimensions(InputError):
    """A Matryoshka size that the model does not allow."""


class UnsupportedTask(InputError):
    """The model has no such task."""


class InvalidOption(InputError):
    """An option, flag or parameter is outside what is allowed."""


class ModelError(PoolcError):
    """The model given to the compiler cannot be compiled."""


class ModelNotFound(ModelError):
    """No such folder, or no such repository or revision on the hub."""


class UnsupportedModel(ModelError):
    """An architecture, module or head that poolc cannot compile."""


class TokenizerError(ModelError):
    """The model has no tokenizer, or one that cannot be converted."""


class RemoteCodeRefused(ModelError):
    """The model brings its own Python and ``trust_remote_code`` was not given."""


class UnsafeWeights(ModelError):
    """Pickled weights that torch's weights-only loader refuses."""


class CorruptWeights(ModelError):
    """Weights that cannot be read or that do not fit the architecture."""


class CompileError(PoolcError):
    """A stage of the compiler failed."""


class ParityError(CompileError):
    """The artifact does not reproduce its reference within the bound; nothing was published."""


class ArtifactError(PoolcError):
    """A compiled artifact cannot be used."""


class ArtifactNotFound(ArtifactError):
    """There is no artifact at that place."""


class ArtifactCorrupt(ArtifactError):
    """A file of the artifact is missing, altered or malformed."""


class ArtifactIncompatible(ArtifactError):
    """The artifact was written for another poolc, runtime or machine."""


class ArtifactExists(ArtifactError):
    """Publishing would overwrite something else."""


class CannotExport(ArtifactError):
    """The artifact holds what the other server or library has no way to run."""


class MissingDependency(PoolcError):
    """A package or extra is not installed, or two that exclude each other are."""


class BackendError(PoolcError):
    """The execution backend failed on valid input."""


class DeviceOutOfMemory(BackendError):
    """One text does not fit into a device's memory beside what is there."""


class Overloaded(PoolcError):
    """The queue is full. ``retry_after_s`` is when to try again, in seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
