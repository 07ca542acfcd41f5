"""Weights are read ahead, as much as was asked and no longer than wanted."""

import threading
from pathlib import Path

from footplate_daemon.switching.read_ahead import BLOCK_BYTES, read_ahead


def test_a_folder_s_weight_files_are_read_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x" * (BLOCK_BYTES + 5))
    (tmp_path / "b.safetensors").write_bytes(b"x" * 7)
    (tmp_path / "config.json").write_bytes(b"{}")

    assert read_ahead(tmp_path, threading.Event()) == BLOCK_BYTES + 12


def test_it_ends_when_told_and_minds_no_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"x" * 10)
    stop = threading.Event()
    stop.set()

    assert read_ahead(file, stop) == 0
    assert read_ahead(tmp_path / "gone.gguf", threading.Event()) == 0
