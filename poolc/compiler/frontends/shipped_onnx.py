"""From the ONNX graph that a model ships. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from transformers import PreTrainedTokenizerBase

from poolc.compiler.architecture import Architecture
from poolc.compiler.comparison import Case, Reference, Subject
from poolc.compiler.events import Progress
from poolc.compiler.onnx_source.attach import KINDS
from poolc.compiler.onnx_source.checks import OR_WEIGHTS
from poolc.compiler.onnx_source.facts import look
from poolc.compiler.onnx_source.reference import ShippedReference
from poolc.compiler.onnx_source.reference_sides import SidesReference
from poolc.compiler.onnx_source.shipped import Shipped, open_shipped
from poolc.compiler.onnx_source.surgery import attach_heads
from poolc.compiler.parity_texts import parity_texts
from poolc.compiler.recognize import Recognized, recognize
from poolc.errors import CompileError, InvalidOption, UnsupportedModel
from poolc.runtime.request import Params
from poolc.spec import (
    POOLED,
    POOLING_MASK,
    CompileOptions,
    Kind,
    ModelSpec,
    Task,
    Trunk,
)

# Classes that bring a head over tokens, of which a graph's hidden states say nothing.
_REWARD_CLASSES = ("RewardModel", "ForRewardModeling")
# Options that choose how a text's vector is made, which a graph that pools has decided.
_POOLING_OPTIONS = frozenset({"pooling_type", "seq_pooling_type", "normalize", "use_activation"})
_UNIT = 1e-3  # how far the length of a unit vector may be from 1


class ShippedOnnxFrontend:
    """See ``Frontend``."""

    def __init__(self) -> None:
        self._shipped: Shipped | None = None  # filled by ``recognize``

    def recognize(
        self, folder: Path, work: Path, options: CompileOptions, progress: Progress
    ) -> tuple[Recognized, PreTrainedTokenizerBase]:
        """See ``Frontend.recognize``. Raises UnsupportedModel for a head that is not attached."""
        shipped = self._shipped = open_shipped(folder, work)
        if shipped.half:
            progress.warn(
                f"{shipped.file} is in fp16: its weights are kept, and computed with in fp32"
            )

        recognized, words = recognize(folder, options, progress.warn, partial(_facts, shipped))
        spec = _checked(recognized.spec, shipped, folder)
        spec = replace(
            spec, origins={**spec.origins, "trunk": f"{shipped.file}: the shipped graph"}
        )
        if shipped.tokens is None:
            _check_tokens(spec, shipped)
            spec = _without_tokens(spec, shipped)
        recognized = replace(recognized, spec=spec)
        if spec.kind is Kind.EMBEDDING and shipped.tokens is None:
            subject = Subject(folder, recognized, words, options)
            recognized = replace(recognized, spec=_as_shipped(subject, shipped))
        return recognized, words

    def graphs(self, subject: Subject, progress: Progress) -> dict[str, ir.Model]:
        """See ``Frontend.graphs``."""
        with progress.stage("attach"):
            return {"": attach_heads(self._opened(), subject.recognized.spec, subject.folder)}

    def reference(self, subject: Subject) -> Reference:
        """See ``Frontend.reference``."""
        sides = subject.recognized.spec.multi_vector
        if sides is not None:
            return SidesReference(subject, self._opened(), sides)
        return ShippedReference(subject, self._opened())

    def _opened(self) -> Shipped:
        if self._shipped is None:
            raise CompileError("no graph was opened; this is a bug in poolc")
        return self._shipped


def _facts(
    shipped: Shipped, config: Any, trunk: Trunk, kind: Kind, *, trust_remote_code: bool
) -> Architecture:
    """See ``Look``. Raises UnsupportedModel."""
    if kind not in KINDS:
        raise _refusal(f"{kind} heads", shipped)
    return look(shipped, config, trunk)


def _checked(spec: ModelSpec, shipped: Shipped, folder: Path) -> ModelSpec:
    """Refuse by name what the PyTorch route does and this one does not."""
    own_class = spec.trunk is Trunk.BASE and spec.architecture.endswith(_REWARD_CLASSES)
    projection = spec.multi_vector.layers if spec.multi_vector else ()
    asked = {
        "rows of a language model's head": spec.lm_head is not None,
        "step rewards": spec.step is not None,
        "the head of a reward model's own class": spec.kind is Kind.REWARD and own_class,
        # Stanford's ColBERT; the weights that a graph stands in for are not read.
        "a layer among the model's weights": any((folder / x.path).is_file() for x in projection),
        "routes": spec.router is not None,
        "a static table": spec.trunk is Trunk.STATIC,
    }
    refused = next((name for name, wanted in asked.items() if wanted), None)
    if refused is not None:
        raise _refusal(refused, shipped)
    return spec


def _refusal(heads: str, shipped: Shipped) -> UnsupportedModel:
    return UnsupportedModel(
        f"poolc does not attach {heads} to {shipped.file}: compile the model's weights, "
        "without --from-onnx"
    )


def _check_tokens(spec: ModelSpec, shipped: Shipped) -> None:
    """Refuse heads on token vectors where the graph has none."""
    needs = {
        f"{spec.kind} models need": spec.trunk is Trunk.BASE and spec.kind is not Kind.EMBEDDING,
        "layers before pooling need": bool(spec.token_layers),
        "pooling without the prompt (include_prompt) needs": POOLING_MASK in spec.inputs,
    }
    needed = next((name for name, wanted in needs.items() if wanted), None)
    if needed is not None:
        raise UnsupportedModel(
            f"{shipped.file} gives {', '.join(shipped.outputs)}, no vectors of tokens, which "
            f"{needed}: export it with the output last_hidden_state, {OR_WEIGHTS}"
        )


def _without_tokens(spec: ModelSpec, shipped: Shipped) -> ModelSpec:
    origin = f"{shipped.file} gives {', '.join(shipped.outputs)}: no token vectors to encode"
    tasks = tuple(task for task in spec.tasks if task is not Task.ENCODE)
    return replace(spec, tasks=tasks, origins={**spec.origins, "tasks": origin})


def _as_shipped(subject: Subject, shipped: Shipped) -> ModelSpec:
    """Describe an embedding whose graph pools by itself, as its numbers show.

    Raises InvalidOption for options that would pool otherwise, UnsupportedModel for another width.
    """
    spec, size = subject.recognized.spec, shipped.outputs[str(shipped.sentence)][-1]
    asked = sorted(_POOLING_OPTIONS & set(subject.options.pooler_config))
    if asked:
        raise InvalidOption(
            f"pooler_config: {asked[0]} cannot change {shipped.file}, which pools by itself and "
            "has no token vectors",
            param="pooler_config",
        )
    st = subject.recognized.st
    if st is not None and st.pooling and spec.embedding_size != size:
        raise UnsupportedModel(
            f"{shipped.file}: sentence_embedding has {size} numbers; modules.json describes "
            f"{spec.embedding_size}"
        )
    origin = f"{shipped.file}: sentence_embedding as shipped"
    plain = replace(spec, pooling=(), layers=(), normalize=False, embedding_size=size)
    known = replace(subject, recognized=replace(subject.recognized, spec=plain))
    reference = ShippedReference(known, shipped)
    texts = parity_texts(min(spec.max_length, 64))
    case = Case(Task.EMBED, texts, Params(prompt=""))
    norms = [np.linalg.norm(row[POOLED]) for row in reference.rows(case)]
    unit = bool(np.allclose(norms, 1.0, rtol=0, atol=_UNIT))
    decided = ("pooling", "layers", "normalize", "embedding_size")
    origins = {**spec.origins, **dict.fromkeys(decided, origin)}
    return replace(plain, normalize=unit, origins=origins)
