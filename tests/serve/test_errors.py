"""The table of statuses, and the one shape of an error's body."""

from __future__ import annotations

import inspect
import json

import pytest

from poolc import errors
from poolc.errors import (
    ArtifactCorrupt,
    BackendError,
    InputError,
    InvalidDimensions,
    Overloaded,
    PoolcError,
    TextTooLong,
    UnsupportedTask,
)
from poolc.serve.errors import (
    STATUSES,
    BadBody,
    BodyTooLarge,
    Draining,
    NotReady,
    UnknownModel,
    error_response,
)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadBody("m"), 400, "BadRequestError"),
        (TextTooLong("m", index=1), 400, "BadRequestError"),
        (UnsupportedTask("m"), 400, "BadRequestError"),
        (InvalidDimensions("m"), 400, "BadRequestError"),
        (UnknownModel("m"), 404, "NotFoundError"),
        (BodyTooLarge("m"), 413, "RequestTooLargeError"),
        (Overloaded("m"), 429, "OverloadedError"),
        (Draining(), 503, "ServiceUnavailableError"),
        (NotReady("m"), 503, "ServiceUnavailableError"),
        (BackendError("m"), 500, "InternalServerError"),
        (ArtifactCorrupt("m"), 500, "InternalServerError"),
    ],
)
def test_error_response_status(error: PoolcError, status: int, kind: str) -> None:
    response = error_response(error)
    body = json.loads(bytes(response.body))
    assert (response.status_code, body["code"], body["type"]) == (status, status, kind)


def test_error_response_body() -> None:
    body = json.loads(bytes(error_response(InputError("a message", param="input")).body))
    same = body.pop("error")
    assert (
        body
        == same
        == {
            "object": "error",
            "message": "a message",
            "type": "BadRequestError",
            "param": "input",
            "code": 400,
        }
    )


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (1.5, "2"), (30.0, "30")])
def test_error_response_retry_after(seconds: float, header: str) -> None:
    assert error_response(Overloaded("m", retry_after_s=seconds)).headers["retry-after"] == header


def test_error_response_keeps_what_is_inside_inside() -> None:
    assert b"/secret" not in bytes(error_response(BackendError("cannot map /secret")).body)


def test_statuses_cover_every_error() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    ours = [c for c in classes if issubclass(c, PoolcError)]
    assert all(any(issubclass(c, row) for row, _, _ in STATUSES) for c in ours)


def test_statuses_have_no_row_behind_its_base() -> None:
    rows = [row for row, _, _ in STATUSES]
    assert not [b for i, a in enumerate(rows) for b in rows[i + 1 :] if issubclass(b, a)]
