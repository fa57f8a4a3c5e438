"""Random histories once more: the memory store, a Valkey server opened twice, and the naive model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import initialize, rule

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from budgetguard.stores import redis as redis_store
from budgetguard.stores.redis_link import LuaScript
from budgetguard.testing.clock import FakeClock
from tests.servers.valkey import ValkeyServer

from .naive import Model
from .test_histories import Histories

SERVERS: list[ValkeyServer] = []


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run a server for the machines, which hypothesis makes without asking for a fixture."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    SERVERS.append(server)
    yield
    SERVERS.remove(server)
    server.kill()


class RedisHistories(Histories):
    _projects = count()

    @initialize()
    def begin(self) -> None:
        (server,) = SERVERS
        self.clock = FakeClock()
        self.client: redis.Redis = server.client()
        self.client.flushall()
        project = f"p{next(self._projects)}"
        self.disk = [open_store(server.url, project=project, clock=self.clock) for _ in range(2)]
        self.memory = open_store("memory://", project=project, clock=self.clock)
        self.told = {0: [], 1: []}
        self.memory.on_expiry(lambda expiry: self.told[0].append(expiry.hold_id))
        for store in self.disk:
            store.on_expiry(lambda expiry: self.told[1].append(expiry.hold_id))
        self.model = Model()
        self.holds = []
        for account in ("user:1", "project:p"):
            self._set_budget(account, Budget(30, "hourly"), 0)

    @rule()
    def the_server_forgets_all_scripts(self) -> None:
        self.client.script_flush()

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            for store in (*self.disk, self.memory):
                store.close()
            self.client.close()


class HastyHistories(RedisHistories):
    """As a script sees it that may end one expiry a run only, and is sent again for the next."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(redis_store, "_script", _hasty)
        super().begin()

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "patch"):
            self.patch.undo()


_patient = redis_store._script


def _hasty(name: str) -> LuaScript:
    text = _patient(name).text
    hasty = text.replace("local BATCH = 200\n", "local BATCH = 1\n")
    assert hasty != text
    return LuaScript(hasty)


_MORE = os.environ.get("BUDGETGUARD_TEST_HISTORIES")
_SETTINGS = settings(
    max_examples=int(_MORE or 25),
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=_MORE is None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)

TestRedisHistories = RedisHistories.TestCase
TestRedisHistories.settings = _SETTINGS
TestHastyHistories = HastyHistories.TestCase
TestHastyHistories.settings = _SETTINGS
