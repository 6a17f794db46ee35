"""An artifact as a folder that Sentence Transformers loads with ``backend="onnx"``.

That backend runs a graph of optimum-onnx's interface and then the library's own modules. poolc's
graph has pooling and every layer in it, so what it hands over is one token a text, the pooled
vector, of which ``Pooling`` takes the first; ``Normalize`` stays the library's, so that
``truncate_dim`` does what it does for the original. Knows nothing about other homes.

Layouts: sentence_transformers 3.2 to 5 (``backend/load.py``, ``base/modules/transformer.py``) and
optimum-onnx 0.1 (``onnxruntime/modeling.py``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from poolc.errors import CannotExport
from poolc.export.answers import answers, check_exportable, cuts, embeds
from poolc.export.card import sentence_transformers_card
from poolc.export.folder import exporting
from poolc.export.graphs import (
    Edit,
    as_tokens,
    cut_vectors,
    in_turn,
    keep_outputs,
    write_graph,
)
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.manifest import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from poolc.spec import (
    LOGITS,
    MAIN_SET,
    POOLED,
    POOLING_MASK,
    Activation,
    ModelSpec,
    Target,
    Trunk,
)

HOME = "sentence-transformers"

# What optimum reads of a graph of features, and of a classifier.
_TOKENS = "last_hidden_state"
_CUT = "pooled_cut"
# Model types that the transformers of that backend (below 4.58) does not know. It never builds the
# model, it only wants a class of settings: BERT's will do.
_UNKNOWN_TYPES = frozenset({"eurobert", "gte", "jina_bert", "jina_embeddings_v3", "nomic_bert"})
_SPECIAL_TOKENS = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
)
_POOLING_MODES = (
    *("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"),
    *("weightedmean_tokens", "lasttoken"),
)
_TORCH_NAMES = (
    *("Sigmoid", "Softmax", "Tanh", "ReLU", "GELU", "SiLU", "ELU", "LeakyReLU", "Mish"),
    *("Softplus", "CELU", "SELU", "ReLU6", "RReLU", "Hardsigmoid", "Hardswish", "Hardtanh"),
    *("Hardshrink", "Softshrink", "Softsign", "Tanhshrink", "LogSigmoid"),
)


def export_sentence_transformers(
    artifact: Artifact, output: str | Path, *, force: bool = False
) -> None:
    """Write a folder for ``SentenceTransformer`` or, of a classifier, ``CrossEncoder``.

    Raises CannotExport for what that backend cannot run, ArtifactExists for a folder that holds
    something else, and MissingDependency without onnx.
    """
    check_exportable(artifact, "Sentence Transformers")
    spec = artifact.manifest.spec
    _check(artifact)
    with exporting(Path(output), HOME, artifact, force=force) as folder:
        (folder / "onnx").mkdir()
        graph = artifact.file(artifact.manifest.graphs[MAIN_SET].file)
        write_graph(graph, folder / "onnx", _edit(spec))
        _write_tokenizer(artifact, folder)
        _write_json(folder / "config.json", _config(spec))
        if embeds(spec):
            _write_modules(spec, folder)
        card = sentence_transformers_card(artifact)
        (folder / "README.md").write_text(card, encoding="utf-8")


def _check(artifact: Artifact) -> None:
    manifest, spec = artifact.manifest, artifact.manifest.spec
    if manifest.target is not Target.CPU:
        raise CannotExport(
            f"the artifact is for the target {manifest.target}; that backend gets graphs for the "
            "CPU: compile the model with --target cpu"
        )
    if spec.trunk is Trunk.STATIC:
        raise CannotExport(
            "static models have no ONNX backend in Sentence Transformers: load the model's own "
            "folder there"
        )
    if POOLING_MASK in spec.inputs:
        raise CannotExport(
            "pooling leaves out the tokens of the prompt, by an input of the graph that this "
            "backend does not fill in"
        )
    if not embeds(spec) and spec.default_prompt_name is not None:
        raise CannotExport(
            f"a default prompt ({spec.default_prompt_name!r}) stands before the left text of each "
            "pair, and the folder of a cross-encoder says none: load the model's own folder there"
        )


def _edit(spec: ModelSpec) -> Edit:
    if not embeds(spec):
        return keep_outputs([LOGITS])
    size = answers(spec)[0].size
    if not cuts(spec):
        return as_tokens(POOLED, size, _TOKENS)
    cut = cut_vectors(POOLED, size, normalize=False, output=_CUT)
    return in_turn(cut, as_tokens(_CUT, size, _TOKENS))


def _config(spec: ModelSpec) -> dict[str, Any]:
    """Return config.json: what the libraries read beside the graph."""
    config: dict[str, Any] = {
        "architectures": [spec.architecture],
        "model_type": "bert" if spec.model_type in _UNKNOWN_TYPES else spec.model_type,
        "hidden_size": spec.hidden_size,
        "max_position_embeddings": spec.max_length,
        "vocab_size": spec.vocab_size,
        "pad_token_id": spec.pad_token_id,
        "torch_dtype": "float32",
    }
    if embeds(spec):
        size = answers(spec)[0].size
        if spec.matryoshka.enabled:
            config["is_matryoshka"] = True
            fitting = [one for one in spec.matryoshka.dimensions if one <= size]
            config |= {"matryoshka_dimensions": fitting} if fitting else {}
        return config
    labels = dict(enumerate(spec.labels))
    return config | {
        "id2label": {str(i): label for i, label in labels.items()},
        "label2id": {label: i for i, label in labels.items()},
        "sentence_transformers": {"activation_fn": activation_class(spec)},
    }


def activation_class(spec: ModelSpec) -> str:
    """Return the dotted name of torch's class that makes poolc's default answer of logits."""
    kind = spec.activation if spec.use_activation else None
    if kind in (None, Activation.IDENTITY):
        return "torch.nn.modules.linear.Identity"
    names = {name.lower(): name for name in _TORCH_NAMES}
    return f"torch.nn.modules.activation.{names[str(kind)]}"


def _write_modules(spec: ModelSpec, folder: Path) -> None:
    size = answers(spec)[0].size
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modules += [("Normalize", "2_Normalize")] if spec.normalize else []
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", entries)
    pooling: dict[str, Any] = {"word_embedding_dimension": size, "include_prompt": True}
    pooling |= {f"pooling_mode_{mode}": mode == "cls_token" for mode in _POOLING_MODES}
    (folder / "1_Pooling").mkdir()
    _write_json(folder / "1_Pooling" / "config.json", pooling)
    limits = {"max_seq_length": spec.max_length, "do_lower_case": False}
    _write_json(folder / "sentence_bert_config.json", limits)
    settings = {
        "model_type": "SentenceTransformer",
        "prompts": dict(spec.prompts),
        "default_prompt_name": spec.default_prompt_name,
        "similarity_fn_name": str(spec.similarity),
    }
    _write_json(folder / "config_sentence_transformers.json", settings)


def _write_tokenizer(artifact: Artifact, folder: Path) -> None:
    spec = artifact.manifest.spec
    file = artifact.file(spec.tokenizer)
    shutil.copyfile(file, folder / TOKENIZER_FILE)
    settings: dict[str, Any] = {}
    if TOKENIZER_CONFIG_FILE in artifact.manifest.files:
        content = artifact.file(TOKENIZER_CONFIG_FILE).read_text(encoding="utf-8")
        settings = json.loads(content)
    special = _special_tokens(Tokenizer.from_file(str(file)), settings, spec)
    _write_json(
        folder / TOKENIZER_CONFIG_FILE,
        {
            # The class that takes tokenizer.json as it is, in every version.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": spec.max_length,
            "model_input_names": list(spec.inputs),
            "padding_side": "right",
            "truncation_side": spec.truncation_side,
            "clean_up_tokenization_spaces": False,
            **special,
        },
    )


def _special_tokens(
    tokenizer: Tokenizer, settings: Mapping[str, Any], spec: ModelSpec
) -> dict[str, str]:
    """Return the tokenizer's special tokens by name, with one to pad with.

    Only tokens that tokenizer.json has as special ones: the library would make others special, and
    cut them out of texts. The attention mask hides padding, whatever its token.
    """
    special = {
        token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special
    }
    named = {name: _content(settings.get(name)) for name in _SPECIAL_TOKENS}
    found = {name: token for name, token in named.items() if token in special}
    own = tokenizer.id_to_token(spec.pad_token_id)
    if own in special:
        found["pad_token"] = own
    elif "pad_token" not in found:
        spare = [*found.values(), *sorted(special)]
        if not spare:
            raise CannotExport(
                "the tokenizer has no special token, and the library pads with one: serve the "
                "model with `poolc serve`"
            )
        found["pad_token"] = spare[0]
    return {name: str(token) for name, token in found.items()}


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def _write_json(path: Path, value: Any) -> None:
    content = json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(content + "\n", encoding="utf-8")
