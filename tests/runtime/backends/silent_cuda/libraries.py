"""Builds the libraries that ONNX Runtime's CUDA provider links, out of functions that do nothing.

``cudart.c`` is the runtime; of cuBLAS and cuDNN there is only what the provider asks for by name.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What else is loaded, with nothing asked of it by name at once; cuDNN's functions are looked up.
_EMPTY = ("libcurand.so.10", "libcuda.so.1")
_CUDNN = "libcudnn.so"
_RUNTIME = "libcudart.so.13"
# The compiler's own header, which is in no package: what it defines means nothing to C.
_HOST_DEFINES = "".join(
    f"#define {name}\n"
    for name in (
        "__device_builtin__",
        "__device_builtin_texture_type__",
        "__builtin_align__(n)",
        "__device_builtin_surface_type__",
        "__cudart_builtin__",
        "CUDARTAPI",
        "__align__(n)",
    )
)
_VALUES = {"cudnnGetVersion": 91200, "cudnnGetCudartVersion": 13000}


def build(folder: Path, provider: Path, headers: Path) -> None:
    """Write the libraries for ``provider`` into ``folder``; ``headers`` are the CUDA runtime's."""
    (folder / "crt").mkdir()
    (folder / "crt" / "host_defines.h").write_text(_HOST_DEFINES)
    asked = _asked_of(provider)
    runtime = (HERE / "cudart.c").read_text()
    defined = set(re.findall(r"\b(_*cuda\w+)\(", runtime))
    asked[_RUNTIME] -= defined
    for library, names in asked.items():
        source = _stubs(names, runtime if library == _RUNTIME else "#include <stdlib.h>\n")
        _compile(folder, library, source, headers, versioned=True)
    looked_up = set(re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes()))
    source = _stubs((name.decode() for name in looked_up), "#include <stdlib.h>\n")
    _compile(folder, _CUDNN, source, headers)
    (folder / f"{_CUDNN}.9").symlink_to(_CUDNN)
    for library in _EMPTY:
        name = re.sub(r"\W", "_", library)
        _compile(
            folder, library, f"int {name};\nint cuTensorMapEncodeTiled(){{return 0;}}", headers
        )


def _asked_of(provider: Path) -> dict[str, set[str]]:
    """Return the functions that the provider links, by library."""
    command = ["nm", "-D", "--undefined-only", str(provider)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = defaultdict(set)
    for name, library in re.findall(r" U (\w+)@(libcu\S+)", told):
        found[library].add(name)
    return found


def _stubs(names: Iterable[str], before: str) -> str:
    return before + "\n".join(map(_stub, sorted(names)))


def _stub(name: str) -> str:
    if "Create" in name:
        return f"int {name}(void**made){{*made=calloc(1,64);return 0;}}"
    if name.endswith(("ErrorString", "StatusName", "StatusString")):
        return f'const char*{name}(int code){{return "{name}";}}'
    if name == "cublasLtMatmulAlgoGetHeuristic":  # that there is one
        ignored = ", ".join(f"void*a{i}" for i in range(7))
        return f"int {name}({ignored}, int wanted, void*found, int*count){{*count=1;return 0;}}"
    if name.startswith("cudnnGetReduction"):  # bytes of a workspace
        return f"int {name}(void*a,void*b,void*c,void*d,size_t*size){{*size=0;return 0;}}"
    if name == "cublasGetMathMode":
        return f"int {name}(void*handle,int*mode){{*mode=0;return 0;}}"
    return f"long {name}(){{return {_VALUES.get(name, 0)};}}"


def _compile(
    folder: Path, library: str, source: str, headers: Path, *, versioned: bool = False
) -> None:
    file = folder / f"{library}.c"
    file.write_text(source)
    command = ["cc", "-w", "-O1", "-shared", "-fPIC", f"-I{folder}", f"-I{headers}"]
    command += [str(file), "-lpthread"]
    command += [f"-Wl,-soname,{library}", "-o", str(folder / library)]
    if versioned:
        versions = folder / f"{library}.map"
        versions.write_text(f"{library} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={versions}")
    subprocess.run(command, check=True, capture_output=True, text=True)
