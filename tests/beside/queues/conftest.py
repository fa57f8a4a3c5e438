"""Real workers, as processes of their own, on a real Valkey."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from budgetguard import Guard
from tests.provider.server import OpenAIServer, Reply
from tests.servers.valkey import shared_valkey

USERS = ("alice", "bob")

# Seconds that a worker may take to be ready.
_START = 240


class Queues:
    """A broker, a provider and a store, which workers and this process share."""

    def __init__(self, store: str, provider: OpenAIServer) -> None:
        self.provider = provider
        self.broker = f"{shared_valkey().url}/1"
        self.store = store
        self.guard = Guard(store=store, project="jobs", spool=None)
        for user in USERS:
            self.guard.set_budget(1, user=user)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "BROKER": self.broker,
            "BUDGETGUARD_STORE": self.store,
            "BUDGETGUARD_PROJECT": "jobs",
            "BUDGETGUARD_SPOOL": "none",
            "OPENAI_BASE_URL": self.provider.base_url,
            "OPENAI_API_KEY": "not-a-key",
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @contextmanager
    def worker(
        self, *command: str, ready: str, folder: Path, **environ: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a worker until the block ends, from when it says that it is ready."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BUDGETGUARD_")}
        log = folder / "worker.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env={**kept, **self.environ, "IN_WORKER": "1", "PYTHONFAULTHANDLER": "1", **environ},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            started = threading.Event()

            def read() -> None:
                assert process.stdout is not None
                for line in process.stdout:
                    out.write(line)
                    out.flush()
                    if ready in line:
                        started.set()
                started.set()

            reading = threading.Thread(target=read, daemon=True)
            reading.start()
            try:
                if not started.wait(_START):
                    process.send_signal(signal.SIGABRT)  # the log then says where each thread is
                    process.wait(60)
                    reading.join(30)
                    pytest.fail(f"the worker did not start:\n{log.read_text()}")
                assert process.poll() is None, log.read_text()
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(120)
                finally:
                    process.kill()
                    process.wait()
                    reading.join(30)
                    assert process.stdout is not None
                    process.stdout.close()

    def paid(self) -> dict[str | None, int]:
        """Return how many calls each has paid, and see that each was tagged so."""
        found: dict[str | None, int] = {}
        for record in self.guard.calls():
            if record.state == "voided":
                continue
            assert record.state == "settled", record
            assert record.tags == (str(record.user),), (record.user, record.tags)
            found[record.user] = found.get(record.user, 0) + 1
        return found


@pytest.fixture(params=["redis", "disk"])
def queues(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queues]:
    """Queues on each kind of store that processes can share here."""
    with shared_valkey().client() as client:
        client.flushall()
    store = f"{shared_valkey().url}/0" if request.param == "redis" else f"disk://{tmp_path}/budgets"
    with OpenAIServer(Reply(prompt_tokens=10, completion_tokens=3)) as provider:
        found = Queues(store, provider)
        for name, value in found.environ.items():
            monkeypatch.setenv(name, value)
        yield found
        found.guard.close()


@pytest.fixture
def in_program(tmp_path: Path) -> Callable[..., Any]:
    """Run a program beside the workers, as the one that sends jobs; return what it printed, read as JSON."""
    import json

    def run(queues: Queues, text: str) -> Any:
        path = tmp_path / "program.py"
        path.write_text(text)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BUDGETGUARD_")}
        done = subprocess.run(
            [sys.executable, str(path)],
            env={**kept, **queues.environ},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
