"""Token-level reward models. A reward for the whole text is a classifier's one label."""

from __future__ import annotations

from poolc.compiler.architecture import Architecture
from poolc.compiler.choices import Choices
from poolc.compiler.recognize.context import Context
from poolc.spec import PoolingType, Task


def choose_reward(context: Context, arch: Architecture, choices: Choices) -> None:
    """Fill in the fields of Kind.REWARD."""
    choices.set("tasks", (Task.REWARD, Task.ENCODE), choices.origins["tasks"])
    choices.set("pooling", (PoolingType.ALL,), "default of reward models: every token")
