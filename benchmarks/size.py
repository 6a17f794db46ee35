"""Installed size: each environment's packages, and the model files that a system loads.

python -m benchmarks.size [--model M] [--systems A,B]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import home, python_of, versions, why_missing
from benchmarks.options import parser, write
from benchmarks.results import ANCHOR, Store
from benchmarks.subject import Subject, subject
from benchmarks.systems.sentence_transformers import FILES, file_of
from benchmarks.table import BY_NAME, REFERENCE, System, system_names
from benchmarks.tables import size_table

# What venv itself brings is not what a system costs.
_BROUGHT = ("pip", "setuptools")


def main() -> None:
    """Measure and print."""
    options = parser("Installed size")
    options.add_argument("--systems", type=system_names, default=f"{ANCHOR},{REFERENCE}")
    arguments = options.parse_args()
    target = subject(arguments.model, arguments.data)
    found = measure(target, arguments.systems)
    print(size_table(found))
    write({"model": target.model.name, "size": found}, arguments.json)


def run(target: Subject, systems: Sequence[str], store: Store) -> None:
    """Measure into ``store``."""
    store.put(measure(target, systems), "size")
    print(f"\ninstalled size:\n{size_table(store.get('size'))}", flush=True)


def measure(target: Subject, systems: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row a system: bytes of packages, their number, and bytes of the model's files."""
    made: list[dict[str, Any]] = []
    for name in systems:
        system = BY_NAME[name]
        packages = home() / "environments" / system.environment / "lib"
        if python_of(system.environment) is None or not packages.is_dir():
            reason = f"no environment of its own: {why_missing(system.environment)}"
            made.append({"system": name, "not_run": reason})
            continue
        made.append(
            {
                "system": name,
                "package_bytes": folder_bytes(packages, without=_BROUGHT),
                "packages": len(versions(system.environment)) - 1 - len(_BROUGHT),
                "model_bytes": sum(file.stat().st_size for file in _model_files(target, system)),
            }
        )
    return made


def folder_bytes(folder: Path, without: Sequence[str] = ()) -> int:
    """Return the bytes of all files below, hard links once, without the packages named."""
    seen: dict[tuple[int, int], int] = {}
    for file in folder.rglob("*"):
        parts = file.relative_to(folder).parts
        if any(part.partition("-")[0] in without for part in parts) or file.is_symlink():
            continue
        if file.is_file():
            status = file.stat()
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


def _model_files(target: Subject, system: System) -> list[Path]:
    if system.module == "poolc":
        folder = target.files / f"artifact-{system.variant}"
        return [file for file in folder.rglob("*") if file.is_file()]
    variant = {"fastembed": "onnx"}.get(system.module, system.variant)
    if system.module == "openvino":
        variant = "openvino-int8" if system.int8 else "openvino"
    if variant not in FILES:
        return list(target.folder.glob("*.safetensors"))
    folder = target.files / variant.partition("-")[0]
    file = folder / file_of(folder, variant)
    beside = (file.with_suffix(".bin"), file.with_name(f"{file.name}_data"))
    return [f for f in (file, *beside) if f.exists()]


if __name__ == "__main__":
    main()
