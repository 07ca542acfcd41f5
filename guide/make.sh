#!/bin/sh
# Make the guide: train, export, evaluate, and install the results where the program and the tests look for them.
# Needs a Python with venv and PyPI; PYTHON and GUIDE_VENV say which, if not the usual ones. Takes about half an hour.
set -eu
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1  # Two threads on a model this small wait for each other most of the time.

venv=${GUIDE_VENV:-.cache/guide-venv}
new=.cache/guide
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet -r guide/requirements.txt

rm -rf "$new"
"$venv/bin/python" guide/train.py "$new/hf"
"$venv/bin/python" guide/export_gguf.py "$new/hf" "$new/guide.gguf"
"$venv/bin/python" guide/evaluate.py "$new/guide.gguf" --hf "$new/hf" --show  # Under a gate, nothing is installed.

mkdir -p daemon/footplate_daemon/guide tests/data/guide-hf
install -m 644 "$new/guide.gguf" daemon/footplate_daemon/guide/
install -m 644 "$new/hf/"* tests/data/guide-hf/
