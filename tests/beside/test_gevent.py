"""gevent, patched in after the guard was made: a common mistake, which must not hang."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.servers.postgres import fresh_url, shared_server
from tests.servers.valkey import ValkeyServer

pytest.importorskip("gevent")


def run_patched_late(url: str) -> str:
    code = """
        import faulthandler, sys
        faulthandler.dump_traceback_later(40, exit=True)
        from budgetguard import Guard
        guard = Guard(store=sys.argv[1], project="g", default_budget=1, spool=None)
        from gevent import monkey
        monkey.patch_all()
        import gevent

        def work(number):
            return str(guard.set_budget(1, user=f"u{number % 3}").limit)

        jobs = [gevent.spawn(work, number) for number in range(12)]
        gevent.joinall(jobs, timeout=30)
        print([job.value for job in jobs])
        guard.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), url], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_redis_store_is_opened_by_many_greenlets_at_once(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "valkey")
    try:
        assert run_patched_late(server.url) == str(["1.00"] * 12)
    finally:
        server.kill()


def test_a_postgres_store_whose_connections_are_all_in_use_lets_greenlets_wait() -> None:
    assert run_patched_late(f"{fresh_url(shared_server())}&pool=1&timeout=20") == str(["1.00"] * 12)


def test_a_disk_store_is_opened_by_many_greenlets_at_once(tmp_path: Path) -> None:
    assert run_patched_late(f"disk://{tmp_path}/store") == str(["1.00"] * 12)
