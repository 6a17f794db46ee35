"""The reference of embedding models: sentence-transformers' own modules, by route."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from poolc.compiler.parity_texts import PARITY_MAX_LENGTH, parity_texts
from poolc.compiler.recognize import Recognized, Route
from poolc.compiler.reference.base import Case, Reference, Subject
from poolc.compiler.static import table_name
from poolc.runtime.request import Item, Params
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    POOLED,
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    TOKEN_TYPE_IDS,
    CompileOptions,
    Defaults,
    Kind,
    LayerKind,
    LayerSpec,
    ModelSpec,
    PoolingType,
    Trunk,
)

_POOLING_MODES = {
    PoolingType.CLS: "cls",
    PoolingType.MAX: "max",
    PoolingType.MEAN: "mean",
    PoolingType.MEAN_SQRT_LEN: "mean_sqrt_len_tokens",
    PoolingType.WEIGHTED_MEAN: "weightedmean",
    PoolingType.LAST: "lasttoken",
}


_PROMPT = "Represent the sentence: "  # of models that have no prompt of their own


class _Chain(Protocol):
    """The library's modules of one route."""

    name: str

    def tokenize(self, text: str) -> dict[str, torch.Tensor]:
        """Return what the graph is fed, each [1, seq]."""
        ...

    def run(self, features: dict[str, torch.Tensor], prompt: str) -> dict[str, torch.Tensor]:
        """Return every output, each [1, ...]."""
        ...


class EmbeddingReference(Reference):
    """Runs the modules of the folder's SentenceTransformer one after the other."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        found = {"": Route(subject.recognized, subject.tokenizer), **subject.recognized.routes}
        router = self.spec.router
        self._chains = {
            name: _open(subject, route, name or (router.main if router else ""))
            for name, route in found.items()
        }
        self.name = self._chains[""].name
        self._found = found

    def cases(self) -> list[Case]:
        """Return every kind of text, through every route; not those that no token is left of."""
        router = self.spec.router
        sides: dict[str, str | None] = {"": None}
        if router is not None:
            sides = {_of(router.main, route): side for side, route in router.sides.items()}
        cases = []
        for route, side in sides.items():
            spec = self._found[route].recognized.spec
            longest = min(spec.max_length, PARITY_MAX_LENGTH)
            params = Params(prompt="", truncate=True, max_length=longest, side=side)
            texts = [
                text
                for text in parity_texts(longest)
                if isinstance(text, str) and self._chains[route].tokenize(text)[INPUT_IDS].numel()
            ]
            cases.append(Case(spec.tasks[0], texts, params))
        if self.spec.include_prompt:
            return cases
        prompt = next(filter(None, self.spec.prompts.values()), _PROMPT)
        prompted = [replace(case, params=replace(case.params, prompt=prompt)) for case in cases]
        return [*cases, *prompted]

    def token_ids(self, case: Case, item: Item) -> tuple[list[int], list[int] | None]:
        """See ``Reference.token_ids``."""
        features = self._chain(case).tokenize(_prompted(case, item))
        types = features.get(TOKEN_TYPE_IDS)
        return features[INPUT_IDS][0].tolist(), None if types is None else types[0].tolist()

    def outputs(self, case: Case, item: Item) -> dict[str, torch.Tensor]:
        """See ``Reference.outputs``."""
        chain = self._chain(case)
        return chain.run(chain.tokenize(_prompted(case, item)), case.params.prompt or "")

    def _chain(self, case: Case) -> _Chain:
        router, side = self.spec.router, case.params.side
        if router is None or side is None:
            return self._chains[""]
        return self._chains[_of(router.main, router.sides[side])]


def _prompted(case: Case, item: Item) -> str:
    return (case.params.prompt or "") + str(item)


def _of(main: str, route: str) -> str:
    return "" if route == main else route


def _open(subject: Subject, route: Route, name: str) -> _Chain:
    if route.recognized.arch.trunk is Trunk.STATIC:
        return _StaticChain(subject.folder, route.recognized)
    return _TransformerChain(subject, route, name)


class _TransformerChain:
    """Transformer, and every module behind it.

    Where modules.json lists them, the library tokenises too: poolc's own tokenizer would hide a
    setting of the folder that was not followed.
    """

    def __init__(self, subject: Subject, route: Route, name: str) -> None:
        self._spec, self._tokenizer = route.recognized.spec, route.tokenizer
        self._listed = route.recognized.st is not None
        self._max_length = min(self._spec.max_length, PARITY_MAX_LENGTH)
        self.name, self._modules = _modules(subject.folder, route, name, subject.options)

    def tokenize(self, text: str) -> dict[str, torch.Tensor]:
        """See ``_Chain``."""
        how = {"truncation": True, "max_length": self._max_length, "return_tensors": "pt"}
        if self._listed:
            asked = {"common": {**how, "padding": False}}
            encoded = self._modules[0].preprocess([text], processing_kwargs=asked)
        else:
            encoded = self._tokenizer([text], **how)
        return {name: encoded[name] for name in self._spec.inputs if name in encoded}

    def run(self, features: dict[str, torch.Tensor], prompt: str) -> dict[str, torch.Tensor]:
        """See ``_Chain``."""
        state: dict[str, Any] = dict(features)
        if prompt:
            # As its ``preprocess`` does.
            state["prompt_length"] = self._modules[0]._get_prompt_length(prompt)
        return _run(self._modules, state, self._spec.normalize)


class _StaticChain:
    """StaticEmbedding, and every module behind it; model2vec's rules over the same table."""

    name = "sentence-transformers StaticEmbedding"

    def __init__(self, folder: Path, recognized: Recognized) -> None:
        self._spec = recognized.spec
        self._static = _static_embedding(folder, recognized.transformer).float()
        self._limit = min(self._spec.max_length, PARITY_MAX_LENGTH)
        side = self._spec.truncation_side
        self._static.tokenizer.enable_truncation(self._limit, direction=side)
        self._modules = [*_layers(folder, self._spec.layers), *_end(self._spec)]

    def tokenize(self, text: str) -> dict[str, torch.Tensor]:
        """See ``_Chain``."""
        chars = self._spec.chars_per_token
        ids = self._static.preprocess([text[: chars * self._limit] if chars else text])["input_ids"]
        return {INPUT_IDS: ids[None], ATTENTION_MASK: torch.ones_like(ids)[None]}

    def run(self, features: dict[str, torch.Tensor], prompt: str) -> dict[str, torch.Tensor]:
        """See ``_Chain``."""
        ids = features[INPUT_IDS][0]
        counted = [token for token in ids.tolist() if token not in self._spec.uncounted_ids]
        bag = torch.tensor(counted, dtype=torch.long)
        state = self._static({"input_ids": bag, "offsets": torch.zeros(1, dtype=torch.long)})
        state[TOKEN_EMBEDDINGS] = self._static.embedding.weight[ids][None]
        return _run(self._modules, state, self._spec.normalize)


def _static_embedding(folder: Path, path: str) -> Any:
    """Load the library's module; a table of integers (model2vec's int8) as the numbers that it has.

    model2vec computes with those, and the library would train them, which takes floats.
    """
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    class Floats(StaticEmbedding):
        @classmethod
        def load_torch_weights(cls, *args: Any, **options: Any) -> Any:
            found = super().load_torch_weights(*args, **options)
            table = table_name(found)
            whole = not found[table].is_floating_point()
            return {**found, table: found[table].float()} if whole else found

    return Floats.load(str(folder), subfolder=path)


def _run(modules: list[Any], state: dict[str, Any], normalize: bool) -> dict[str, torch.Tensor]:
    """Run the modules; ``pooled`` is what the Normalize at the end gets where ``normalize``."""
    last = len(modules) - 1
    pooled = None
    for place, module in enumerate(modules):
        if normalize and place == last and type(module).__name__ == "Normalize":
            pooled = state["sentence_embedding"].clone()
        state = module(state)
    unit = state["sentence_embedding"]
    return {
        POOLED: unit if pooled is None else pooled,
        SENTENCE_EMBEDDING: unit,
        TOKEN_EMBEDDINGS: state["token_embeddings"],
    }


def _modules(folder: Path, route: Route, name: str, options: CompileOptions) -> tuple[str, Any]:
    """Return the library's pipeline of the folder, which it completes by its own defaults; or one
    assembled from its modules where an option overrides them."""
    from sentence_transformers import SentenceTransformer

    recognized = route.recognized
    st = recognized.st
    # None: what the folder says of devices and precision is not for the gate.
    given = dict.fromkeys(st.bert.model_kwargs) if st else {}
    model_options = {**given, "attn_implementation": "eager", "dtype": torch.float32}
    config_options = {
        key: options.hf_overrides[key]
        for key in (st.bert.config_kwargs if st else {})
        if key in options.hf_overrides
    }
    overridden = {"pooling_type", "seq_pooling_type", "normalize", "use_activation"}
    asked = bool(overridden & set(options.pooler_config))
    if _is_the_librarys(recognized, options) and not asked:
        model = SentenceTransformer(
            str(folder),
            device="cpu",
            model_kwargs=model_options,
            config_kwargs=config_options,
            trust_remote_code=options.trust_remote_code,
            local_files_only=True,
        )
        return "sentence-transformers", _of_route(model.eval(), name)
    load = {"model_kwargs": model_options, "config_kwargs": config_options}
    transformer = _transformer(folder, recognized, load, options.trust_remote_code)
    return "sentence-transformers modules", _assembled(folder, recognized.spec, transformer)


def _is_the_librarys(recognized: Recognized, options: CompileOptions) -> bool:
    """Say whether SentenceTransformer makes the model of this folder that was recognised."""
    if recognized.st is not None:
        return bool(recognized.st.pooling)
    defaults = options.defaults is Defaults.SENTENCE_TRANSFORMERS
    return defaults and recognized.spec.kind is Kind.EMBEDDING


def _of_route(model: Any, route: str) -> list[Any]:
    modules: list[Any] = []
    for module in model:
        routes = getattr(module, "sub_modules", None)
        modules += [module] if routes is None else list(routes[route])
    return [module for module in modules if type(module).__name__ != "Dropout"]


def _transformer(
    folder: Path, recognized: Recognized, load: dict[str, dict[str, Any]], trust: bool
) -> Any:
    from sentence_transformers.sentence_transformer.modules import Transformer

    if recognized.st is not None:  # reads sentence_bert_config.json
        path = recognized.transformer
        return Transformer.load(str(folder), subfolder=path, trust_remote_code=trust, **load)
    own = {"trust_remote_code": trust}
    return Transformer(
        str(folder / recognized.transformer),
        model_kwargs={**load["model_kwargs"], **own},
        processor_kwargs=dict(own),
        config_kwargs={**load["config_kwargs"], **own},
    )


def _assembled(folder: Path, spec: ModelSpec, transformer: Any) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    modes = [_POOLING_MODES[kind] for kind in spec.pooling]
    size = spec.token_layers[-1].out_features if spec.token_layers else spec.hidden_size
    tokens, texts = (_layers(folder, layers) for layers in (spec.token_layers, spec.layers))
    pooling = Pooling(size, pooling_mode=modes, include_prompt=spec.include_prompt)
    modules = [transformer, *tokens, pooling, *texts, *_end(spec)]
    return [module.eval() for module in modules]


def _layers(folder: Path, layers: tuple[LayerSpec, ...]) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize

    classes = {LayerKind.DENSE: Dense, LayerKind.LAYER_NORM: LayerNorm}
    return [
        classes[layer.kind].load(str(folder), subfolder=layer.path).eval()
        if layer.kind in classes
        else Normalize.load(str(folder), subfolder=layer.path)
        if layer.path
        else Normalize()
        for layer in layers
    ]


def _end(spec: ModelSpec) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Normalize

    return [Normalize()] if spec.normalize else []
