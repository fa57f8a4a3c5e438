"""Whatever connects to a provider's host outside of a guarded call is told, refused, or let through."""

from __future__ import annotations

import pytest

from budgetguard import BudgetGuardError, UnguardedCallError

from .clients import ways
from .conftest import Watch
from .server import CountingServer

WAYS = ways()
way = pytest.mark.parametrize("way", WAYS)


@way
def test_what_goes_around_is_told_once_and_made(way: str, watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="warn")
    WAYS[way](server.url)
    WAYS[way](server.url)
    assert server.requests == 2
    assert watching.addresses == [server.host]
    (event,) = watching.told
    assert not event.refused
    (line,) = watching.logged
    assert server.host in line
    assert "guard.call" in line
    assert 'unguarded="allow"' in line


@way
def test_what_goes_around_is_refused_before_a_byte_is_sent(
    way: str, watch: Watch, server: CountingServer
) -> None:
    watching = watch(server.host, unguarded="block")
    for _ in range(2):
        with pytest.raises(UnguardedCallError, match=server.host) as refused:
            WAYS[way](server.url)
        assert refused.value.address == server.host
        assert isinstance(refused.value, BudgetGuardError)
    assert (server.connections, server.received) == (0, b"")
    (event,) = watching.told  # refused each time, told once
    assert event.refused
    assert len(watching.logged) == 1


@way
def test_what_is_allowed_is_silent(way: str, watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="allow")
    WAYS[way](server.url)
    assert server.requests == 1
    assert not watching.told
    assert not watching.logged


@way
def test_what_a_guarded_call_makes_is_its_own(way: str, watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="block")

    @watching.guard.budgeted(model="gpt-4o-mini", usage=lambda _: (1, 1))
    def ask(prompt: str) -> str:
        WAYS[way](server.url)
        return "answer"

    assert ask("hello") == "answer"
    with watching.guard.call(model="gpt-4o-mini", input="hello") as call:
        WAYS[way](server.url)
        call.settle("answer")
        server.hang_up()
        with pytest.raises(UnguardedCallError):  # it is settled, so this is another
            WAYS[way](server.url)
    assert server.requests == 2
    assert len(watching.told) == 1


@way
def test_other_hosts_are_nobody_s_business(way: str, watch: Watch, server: CountingServer) -> None:
    watching = watch("localhost:1", "api.example", unguarded="block")
    WAYS[way](server.url)
    assert server.requests == 1
    assert not watching.told
