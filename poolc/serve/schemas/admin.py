"""What the admin routes are asked and reply."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from poolc.serve.schemas.common import Request


def _names(names: list[str]) -> list[str]:
    if not all(map(str.strip, names)) or len({*names}) != len(names):
        raise ValueError("allowed: names that differ, none empty")
    return names


class AddRequest(Request):
    """A model to serve."""

    model: str = Field(min_length=1, description="an artifact, a model folder or a hub id")
    names: Annotated[list[str], AfterValidator(_names)] = Field(
        [], description="what requests call it; model unless given"
    )


class ServedModel(BaseModel):
    """A model that answers."""

    names: list[str]
    artifact: str
    space: str
    tasks: list[str]
    max_model_len: int


class ServedModels(BaseModel):
    """All of them."""

    models: list[ServedModel]


class Removed(BaseModel):
    """A model that answers no more; ``finished``: nothing that it was asked was cut off."""

    names: list[str]
    finished: bool
