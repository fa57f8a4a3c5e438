"""What PostgreSQL computes by itself is what the ledger's own functions say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from budgetguard.core.accounts import UNITS, unit_of
from budgetguard.core.windows import duration_ms, falls_out
from budgetguard.stores import open_store
from budgetguard.testing.clock import FakeClock
from tests.servers.postgres import fresh_url, shared_server

DURATIONS = [
    *("hourly", "daily", "weekly", "monthly", "yearly"),
    *(f"{count}{unit}" for count in (1, 7, 59, 100) for unit in ("s", "m", "h", "d", "w", "mo")),
    *("1y", "12y", "100y", "999999999s"),
]
NAMES = [
    *("user:1", "run:labels:@unit=tokens", "labels:@rolling=1h&user=1", "labels:@unit", "labels:a=@unit=b"),
    *(f"labels:@unit={unit}" for unit in UNITS),
    *(f"labels:@unit={unit}&@rolling=daily&user=a%26b" for unit in UNITS),
]


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[..., Any]]:
    url = fresh_url(shared_server())
    store = open_store(url, project="p")
    store.read("user:1")  # makes the schema
    store.close()
    schema = url.partition("schema=")[2]
    with psycopg.connect(shared_server().url, autocommit=True) as con:

        def call(function: str, *arguments: Any) -> Any:
            places = ", ".join(["%s"] * len(arguments))
            ((found,),) = con.execute(f"SELECT {schema}.{function}({places})".encode(), arguments).fetchall()
            return found

        yield call


@pytest.mark.parametrize("duration", DURATIONS)
def test_when_what_is_spent_falls_out(ask: Callable[..., Any], duration: str) -> None:
    assert ask("duration_ms", duration) == duration_ms(duration)
    for later in (0, 1, 16, 17, 499, 500, 59_999, 60_000, 3_599_999, 86_400_000, 10**10 + 7):
        now = FakeClock()() + later
        assert ask("falls_out", duration, now) == falls_out(duration, now)


@pytest.mark.parametrize("name", NAMES)
def test_what_an_account_counts(ask: Callable[..., Any], name: str) -> None:
    assert ask("unit_of", name) == unit_of(name)
