"""``python -m poolc``: the command line."""

from __future__ import annotations

from poolc.cli.main import main

if __name__ == "__main__":
    main()
