"""`budgetguard serve` as a process of its own, to be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from tests.servers.valkey import free_port

_STARTS_WITHIN = 60.0


class ServeProcess:
    """Serve a store on a port that stays the same from start to start.

    Args:
        store: its URL.
        log: a file that it writes to.
        options: of its command line, after `serve`.
        variables: of its environment, besides this process's.
    """

    def __init__(self, store: str, log: Path, *options: str, **variables: str) -> None:
        self.port = free_port()
        self._log = log
        program = "from budgetguard.cli import main; main()"
        named = ("--port", str(self.port), "--store", store, "--rate", "none", *options)
        self._command = (sys.executable, "-c", program, "serve", *named)
        self._environment = {**os.environ, **variables}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _STARTS_WITHIN
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text("utf-8")
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/healthz", timeout=5, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False
