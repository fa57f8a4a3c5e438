"""Random histories on every store, opened twice, beside the memory store and the naive model."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from budgetguard.stores import open_store
from budgetguard.stores import redis as redis_store
from budgetguard.stores.base import Transfer
from budgetguard.stores.redis_link import LuaScript
from budgetguard.stores.verifying import verify
from budgetguard.testing.clock import FakeClock
from tests.stores import SHARED, STORES, Place, Row, on

from .test_histories import Histories

# BUDGETGUARD_TEST_HISTORIES=2000 searches further, and elsewhere each time.
_MORE = os.environ.get("BUDGETGUARD_TEST_HISTORIES")
SETTINGS = settings(
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=_MORE is None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


class HistoriesOfAPlace(Histories):
    """Histories on one server, which have a project each."""

    place: ClassVar[Place]
    clock = FakeClock()
    _projects = count()

    @initialize()
    def begin(self) -> None:
        self.clock.set(FakeClock()())
        project = f"p{next(self._projects)}"
        self.disk = [self.place.open(self.clock, project=project) for _ in range(2)]
        self.memory = open_store("memory://", project=project, clock=self.clock)
        self.begin_alike()

    @rule()
    def something_happens_to_the_server(self) -> None:
        self.place.disturb()

    @rule(by=st.booleans())
    def balances_are_added_up_again(self, by: bool) -> None:
        beneath = self.place.beneath(self.disk[by], self.clock)
        for store in (self.memory, beneath):
            assert isinstance(store, Transfer)
            assert verify(store).differences == ()

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            for store in (*self.disk, self.memory):
                store.close()


def search(row: Row, folder: Path, examples: int) -> None:
    with row.serve(folder) as place:
        kind = type("Machine", (HistoriesOfAPlace,), {"place": place, "in_full": row.in_full})
        run_state_machine_as_test(kind, settings=settings(SETTINGS, max_examples=int(_MORE or examples)))


@pytest.mark.parametrize("examples", [4, pytest.param(20, marks=pytest.mark.full)])
@on(SHARED)
def test_every_history_is_what_the_ledger_and_the_naive_model_say(
    row: Row, examples: int, tmp_path: Path
) -> None:
    search(row, tmp_path, examples)


@pytest.mark.full
def test_every_history_is_the_same_if_a_script_ends_one_expiry_a_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script for Redis is sent again for the next one."""
    patient = redis_store._script

    def hasty(name: str) -> LuaScript:
        text = patient(name).text
        changed = text.replace("local BATCH = 200\n", "local BATCH = 1\n")
        assert changed != text
        return LuaScript(changed)

    monkeypatch.setattr(redis_store, "_script", hasty)
    (row,) = (row for row in STORES if row.name == "redis")
    search(row, tmp_path, 10)
