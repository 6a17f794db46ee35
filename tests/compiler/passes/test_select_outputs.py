"""Keeping some outputs and dropping what only the others needed."""

from __future__ import annotations

from poolc.compiler.passes.select_outputs import SelectOutputsPass
from tests.compiler.graphs import two_outputs


def test_select_outputs_drops_what_only_the_others_needed() -> None:
    result = SelectOutputsPass(["z"])(two_outputs())
    graph = result.model.graph
    assert result.modified
    assert [value.name for value in graph.outputs] == ["z"]
    assert [node.op_type for node in graph] == ["MatMul", "Add", "Sigmoid"]
    assert set(graph.initializers) == {"copy", "b"}


def test_select_outputs_orders() -> None:
    result = SelectOutputsPass(["z", "y"])(two_outputs())
    assert result.modified
    assert [value.name for value in result.model.graph.outputs] == ["z", "y"]
    assert len(list(result.model.graph)) == 5


def test_select_outputs_of_all_changes_nothing() -> None:
    assert not SelectOutputsPass(["y", "z"])(two_outputs()).modified
