"""``poolc serve``, in a process that loses its GPU once it reads a line.

    python -m benchmarks.gpu.losing ARTIFACT [options of poolc serve]

Reading far beyond an array ends everything that CUDA does for the process: what a device that fell
off its bus looks like from here.
"""

from __future__ import annotations

import runpy
import sys
import threading


def main() -> None:
    """Serve until told to lose the device, and go on then."""
    threading.Thread(target=_lose_when_told, daemon=True).start()
    sys.argv = ["poolc", "serve", *sys.argv[1:]]
    runpy.run_module("poolc", run_name="__main__")


def _lose_when_told() -> None:
    if not sys.stdin.readline():
        return
    import torch

    try:
        print(torch.zeros(1, device="cuda")[torch.tensor([1 << 40], device="cuda")].cpu())
    except Exception as error:
        print(f"the device is lost: {error}"[:300], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
