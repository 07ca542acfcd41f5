#!/usr/bin/env bash
# Make .venv with Footplate and all that its tests need; uv if it is there, pip otherwise.
# usage: venv.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "Footplate needs Python 3.11 or newer; this is $("$python" --version). Try: make PYTHON=python3.12 …" >&2; exit 1; }
echo "Setting up .venv (a minute, the first time) …" >&2
if command -v uv >/dev/null; then
  [ -x .venv/bin/python ] || uv venv --quiet --python "$python" .venv
  uv pip install --quiet --python .venv/bin/python --editable '.[dev]'
else
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
fi
