"""A client of files and batches, and what /proc tells of the highest memory of a process."""

import json
import time
from pathlib import Path
from typing import Any

from bench.box import PATIENCE_SECONDS, call

from footplate_daemon.paths import Paths
from footplate_daemon.supervisord import UnixConnection

POLL_SECONDS = 0.05
BOUNDARY = "bench-batch-boundary"
FINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class Client:
    """Speaks to one daemon over its Unix socket."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def upload(self, path: Path) -> str:
        """Send a file as it is read; give its id."""
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
        ).encode()
        tail = f"\r\n--{BOUNDARY}--\r\n".encode()
        connection = UnixConnection(self._paths.socket, timeout=PATIENCE_SECONDS)
        try:
            connection.putrequest("POST", "/v1/files")
            connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
            connection.putheader("Content-Length", str(len(head) + path.stat().st_size + len(tail)))
            connection.endheaders()
            connection.send(head)
            with path.open("rb") as file:
                while piece := file.read(1024 * 1024):
                    connection.send(piece)
            connection.send(tail)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return str(answer["id"])

    def create(self, file_id: str, endpoint: str) -> dict[str, Any]:
        wish = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
        return dict(call(self._paths, "POST", "/v1/batches", wish))

    def batch(self, batch_id: str) -> dict[str, Any]:
        return dict(call(self._paths, "GET", f"/v1/batches/{batch_id}"))

    def cancel(self, batch_id: str) -> None:
        call(self._paths, "POST", f"/v1/batches/{batch_id}/cancel")

    def until_over(self, batch_id: str) -> dict[str, Any]:
        """Wait until a batch has ended."""
        while (batch := self.batch(batch_id))["status"] not in FINAL:
            time.sleep(POLL_SECONDS)
        return batch

    def run(self, path: Path, endpoint: str) -> dict[str, Any]:
        """Do all that a file needs; give the batch at its end."""
        began = time.monotonic()
        batch = self.create(self.upload(path), endpoint)
        while batch["status"] == "validating":
            time.sleep(POLL_SECONDS / 5)
            batch = self.batch(batch["id"])
        began = time.monotonic()
        batch = self.until_over(batch["id"])
        return {**batch, "generation_seconds": time.monotonic() - began}

    def generation_seconds(self, batch: dict[str, Any]) -> float:
        """Give the seconds from `in_progress` to the end, as they were seen."""
        return float(batch["generation_seconds"])


def reset_peak(pid: int) -> None:
    """Forget the highest memory of a process so far."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """Give the highest resident memory of a process since then."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return round(kib / 1024, 1)
