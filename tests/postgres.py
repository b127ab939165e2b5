"""A PostgreSQL of our own, on the loopback alone, run by somebody who is not root."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hw_sim.ports import free_port

__all__ = ["PASSWORD", "Server", "serving", "url"]

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PASSWORD = "a plant's own"


def url(port: int) -> str:
    return f"postgresql://plant@127.0.0.1:{port}/postgres"


@dataclass(frozen=True)
class Server:
    """One that is up, or on its way."""

    port: int

    def admin(self) -> Any:
        """A connection that may write; it is closed when it is left."""
        import psycopg

        end = time.monotonic() + 20
        while True:
            try:
                return psycopg.connect(url(self.port), password=PASSWORD, autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


@contextmanager
def serving() -> Iterator[Server]:
    """Start one in a folder of its own; skips the test where there is none, or no client library."""
    pytest.importorskip("psycopg")
    if not BINARIES:
        pytest.skip("there is no PostgreSQL here")
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="dxad-postgres-"))
    secret, data, port = folder / "secret", folder / "data", free_port()
    secret.write_text(PASSWORD)
    if user:
        for each in (folder, secret):
            shutil.chown(each, **user)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    how = ["-U", "plant", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync", "--no-locale"]
    subprocess.run([BINARIES[-1] / "initdb", "-D", data, *how], check=True, **quiet, **user)
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = subprocess.Popen([BINARIES[-1] / "postgres", "-D", data, *options], **quiet, **user)
    try:
        yield Server(port)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        shutil.rmtree(folder)
