"""The async driver under trio, through anyio, as the openai client runs there."""

import threading

import pytest

from budgetguard import budget_user
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.flow import adrive, guarded
from tests.guarded_calls import GatedStore, Scripted, make_guard, nanos

trio = pytest.importorskip("trio")


def call(store: GatedStore) -> tuple[GuardedCall, object]:
    guard = make_guard(store)
    with budget_user("u"):
        return GuardedCall(guard.engine, Scripted()), guard


def test_a_call_is_held_and_settled() -> None:
    made, guard = call(GatedStore())

    async def answer() -> int:
        await trio.lowlevel.checkpoint()
        assert nanos(guard) == (0, 300_000)
        return 70

    async def main() -> int:
        return await adrive(guarded(made), answer)

    assert trio.run(main) == 70
    assert nanos(guard) == (70_000, 0)


def test_cancelled_during_the_call_books_what_an_unknown_outcome_costs() -> None:
    made, guard = call(GatedStore())

    async def main() -> None:
        with trio.CancelScope() as scope:

            async def answer() -> None:
                scope.cancel()
                await trio.sleep(60)

            await adrive(guarded(made), answer)
        assert scope.cancelled_caught

    trio.run(main)
    assert nanos(guard) == (300_000, 0)


def test_cancelled_while_the_store_settles_books_all_the_same() -> None:
    store = GatedStore()
    gate = threading.Event()
    made, guard = call(store)
    store.gates = {"settle": gate}

    async def answer() -> int:
        return 70

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(adrive, guarded(made), answer)
            while not store.reached.is_set():
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
            gate.set()

    trio.run(main)
    assert nanos(guard) == (70_000, 0)
