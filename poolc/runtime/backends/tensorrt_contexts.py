"""Execution contexts of an engine, as TensorRT and TensorRT-RTX make them.

TensorRT-RTX compiles kernels while it runs: for each new shape in the background, and a general
kernel runs until that is done. What is recorded would keep the general one for ever, so that a
context that is recorded compiles before it runs. What one context compiled the others find in a
cache that they share. Knows nothing about lanes or memory.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


class Contexts:
    """Makes the contexts of one engine. They take scratch memory from whoever runs them."""

    def __init__(self, trt: ModuleType, engine: Any) -> None:
        self._engine = engine
        user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        # What a context is made with, by whether it is to be recorded.
        self._settings: dict[bool, Any] = {False: user_managed, True: user_managed}
        self._cache: Any = None
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            strategy = trt.DynamicShapesKernelSpecializationStrategy
            self._settings = {
                False: self._config(user_managed, strategy.LAZY),
                True: self._config(user_managed, strategy.EAGER),
            }

    def new(self, *, recorded: bool) -> Any:
        """Return a context, or None where the library makes none."""
        return self._engine.create_execution_context(self._settings[recorded])

    def _config(self, allocation: Any, specialization: Any) -> Any:
        config = self._engine.create_runtime_config()
        if config is None:
            return allocation
        config.set_execution_context_allocation_strategy(allocation)
        config.dynamic_shapes_kernel_specialization_strategy = specialization
        if self._cache is None:
            self._cache = config.create_runtime_cache()
        if self._cache is not None:  # without it each context compiles for itself
            config.set_runtime_cache(self._cache)
        return config
