"""Where the files of one Footplate are.

Imports little: every command needs it, and the terminal before its first picture.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from footplate_daemon.errors import Invalid

SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path that Linux accepts (sun_path less its closing zero, unix(7))."""


@dataclass(frozen=True)
class Paths:
    """Every folder and file of one Footplate; folders are made by `make`."""

    config_dir: Path
    data_dir: Path
    state_dir: Path
    run_dir: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Paths":
        """Use `FOOTPLATE_HOME` as one root if it is set, the XDG folders otherwise."""
        home = environment.get("FOOTPLATE_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            return cls(root / "config", root / "data", root / "state", root / "run")
        dirs = platformdirs.PlatformDirs("footplate", appauthor=False)
        state = Path(dirs.user_state_path)
        runtime = environment.get("XDG_RUNTIME_DIR")
        run = Path(runtime) / "footplate" if runtime and os.access(runtime, os.W_OK) else state / "run"
        return cls(Path(dirs.user_config_path), Path(dirs.user_data_path), state, run)

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.toml"

    @property
    def models_dir(self) -> Path:
        """Where the user puts GGUF files."""
        return self.data_dir / "models"

    @property
    def database(self) -> Path:
        return self.state_dir / "footplate.db"

    @property
    def batch_database(self) -> Path:
        """Files and batches: apart, so that a large one makes nobody wait."""
        return self.state_dir / "batches.db"

    @property
    def files_dir(self) -> Path:
        """The bytes of uploaded files and of what batches answered."""
        return self.state_dir / "files"

    @property
    def logs_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def daemon_log(self) -> Path:
        return self.logs_dir / "footplated.log"

    @property
    def access_log(self) -> Path:
        """The newest of its files, see `access_log`."""
        return self.logs_dir / "access.log"

    @property
    def socket(self) -> Path:
        return self.run_dir / "footplate.sock"

    @property
    def supervisor_socket(self) -> Path:
        return self.run_dir / "supervisor.sock"

    @property
    def supervisor_conf(self) -> Path:
        """The copy of supervisor.conf that supervisord and supervisorctl read."""
        return self.run_dir / "supervisor.conf"

    @property
    def engines_dir(self) -> Path:
        """One program file and one record for each engine (0600: they hold launch keys)."""
        return self.run_dir / "engines"

    def make(self) -> None:
        """Make every folder, the private ones 0700; raise `Invalid` naming the folder that cannot be used."""
        for folder in (self.config_dir, self.data_dir, self.models_dir, self.state_dir, self.logs_dir):
            _make_folder(folder, 0o755)
        for folder in (self.run_dir, self.engines_dir):
            _make_folder(folder, 0o700)
        for socket in (self.socket, self.supervisor_socket):
            if len(os.fsencode(socket)) > SOCKET_PATH_LIMIT:
                raise Invalid(
                    f"The socket path is {len(os.fsencode(socket))} bytes long, "
                    f"Linux allows {SOCKET_PATH_LIMIT}: {socket}",
                    hint="Set FOOTPLATE_HOME or XDG_RUNTIME_DIR to a folder with a shorter path.",
                )


def _make_folder(folder: Path, mode: int) -> None:
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        if mode == 0o700:
            folder.chmod(mode)
        # Without a name: two that start at a time must not find each other's.
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise Invalid(
            f"Footplate cannot write in {folder}: {error.strerror}.",
            hint="Free disk space or mend the folder's permissions, or set FOOTPLATE_HOME to another folder.",
        ) from error
