"""Dense, LayerNorm and Normalize: their configuration and the activation that Dense names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poolc.compiler.json_files import read_json
from poolc.compiler.st_files.modules import Module
from poolc.errors import UnsupportedModel
from poolc.spec import Activation, LayerKind, LayerSpec

TOKENS = "token_embeddings"
TEXT = "sentence_embedding"
LAYERS = ("Dense", "LayerNorm", "Normalize")


def read_layer(folder: Path, module: Module, vectors: str, *, unnamed: str = TEXT) -> LayerSpec:
    """Read a module that works on ``vectors``: those of tokens before Pooling, of texts behind.

    ``unnamed`` is what it works on where its file does not say (PyLate's: tokens). Normalize gets
    its size from what stands before it. Raises UnsupportedModel.
    """
    name = f"{module.path}/config.json"
    config = read_json(folder / module.path / "config.json")
    if module.kind != "Normalize" and not config:
        raise UnsupportedModel(f"{name} is missing, which modules.json needs")
    _check_vectors({"module_input_name": unnamed, **config}, module.kind, name, vectors)
    if module.kind == "Normalize":
        return LayerSpec(module.path, 0, 0, kind=LayerKind.NORMALIZE)
    if not (folder / module.path / "model.safetensors").is_file():
        raise UnsupportedModel(
            f"{module.path}/model.safetensors is missing, which modules.json needs; "
            "pytorch_model.bin would do too"
        )
    try:
        return (
            _dense(config, module.path, name) if module.kind == "Dense" else _norm(config, module)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedModel(f"{name}: {error}") from error


def _dense(config: dict[str, Any], path: str, name: str) -> LayerSpec:
    return LayerSpec(
        path=path,
        in_features=int(config["in_features"]),
        out_features=int(config["out_features"]),
        bias=bool(config.get("bias", True)),
        activation=activation(config.get("activation_function", "torch.nn.Tanh"), name),
        residual=bool(config.get("use_residual", False)),
    )


def _norm(config: dict[str, Any], module: Module) -> LayerSpec:
    size = int(config["dimension"])
    return LayerSpec(module.path, size, size, kind=LayerKind.LAYER_NORM)


def _check_vectors(config: dict[str, Any], kind: str, name: str, vectors: str) -> None:
    # LayerNorm has no such keys: it reads the vectors of texts.
    read = config.get("module_input_name") or TEXT
    place = "before" if vectors == TOKENS else "behind"
    if read != vectors:
        raise UnsupportedModel(
            f"{name}: module_input_name is {read!r}; a {kind} module {place} Pooling reads "
            f"{vectors}"
        )
    written = config.get("module_output_name") or read
    if written != read:
        raise UnsupportedModel(
            f"{name}: module_output_name is {written!r}; poolc reads modules that replace what "
            f"they read, here {read}"
        )


def activation(path: object, where: str) -> Activation:
    """Map a dotted torch class name to an Activation; None, which the library reads as no function.

    Raises UnsupportedModel for others, and for those with weights or shapes of their own.
    """
    if path is None:
        return Activation.IDENTITY
    package, _, name = str(path).rpartition(".")
    if f"{package}.".removeprefix("torch.nn.") == f"{package}." or name.lower() not in set(
        Activation
    ):
        raise UnsupportedModel(
            f"{where}: activation {path!r}; known: torch.nn's {', '.join(Activation)}"
        )
    return Activation(name.lower())
