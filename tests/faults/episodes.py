"""Episodes: short worlds one after another, each from its own seed, so that a failure is short to repeat."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from budgetguard.core.windows import Milliseconds
from budgetguard.stores import Store, open_store
from budgetguard.testing.clock import FakeClock

from .world import Broken, OpenStore, World

STEPS = 150
_numbers = count(1)


@dataclass(frozen=True)
class Failure:
    """Hold how an episode broke a law.

    Attributes:
        seed: of the whole run.
        episode: which of its episodes.
        step: after which step; the last one is the end, when everything must be booked.
        law: what does not hold.
        happened: what came before, oldest first.
    """

    seed: int
    episode: int
    step: int
    law: str
    happened: tuple[str, ...]


def run(seed: int, steps: int, url: str, *, first: int = 0) -> Iterator[Failure | int]:
    """Run episodes until so many steps are done; yield the steps of each, or the failure that ends it all.

    Args:
        seed: from which everything is drawn, together with an episode's number.
        steps: how many in all.
        url: of a store (see `served`); `disk://` makes folders of its own.
        first: the episode to begin with.
    """
    episode = first
    while steps > 0:
        todo = min(steps, STEPS)
        failure = one(seed, episode, todo, url)
        if failure is not None:
            yield failure
            return
        yield todo
        steps -= todo
        episode += 1


def one(seed: int, episode: int, steps: int, url: str) -> Failure | None:
    """Run one episode."""
    with tempfile.TemporaryDirectory() as folder, _opener(url, Path(folder)) as opener:
        world = World(f"{seed}/{episode}", opener, Path(folder) / "spool")
        with world.ours():
            step = 0
            try:
                while step < steps:
                    step += 1
                    world.step()
                step += 1
                world.end()
            except Exception as error:
                law = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
                return Failure(seed, episode, step, law, tuple(world.happened))
    return None


@contextmanager
def _opener(url: str, folder: Path) -> Iterator[OpenStore]:
    if url == "memory://":
        # Two openings of it are two stores, so all processes share one.
        kept: list[Store] = []

        def shared(clock: FakeClock) -> Store:
            if not kept:
                kept.append(open_store(url, project="p", clock=clock))
            return kept[0]

        yield shared
        return
    where = f"disk://{folder}/store" if url == "disk://" else url
    # A server's balances outlive an episode: each has a project of its own.
    project = f"p{next(_numbers)}-{folder.name}"
    yield _opening(where, project)


@contextmanager
def served(store: str) -> Iterator[str]:
    """Yield the URL of a store; `valkey`, `postgres` and `hosted` start such a server and stop it again."""
    if store == "postgres":
        from tests.servers.postgres import running

        with running() as server:
            yield server.url
    elif store == "valkey":
        from tests.servers.valkey import ValkeyServer

        with tempfile.TemporaryDirectory() as folder:
            valkey = ValkeyServer(Path(folder))
            try:
                yield valkey.url
            finally:
                valkey.kill()
    elif store == "hosted":
        from tests.server.services import running as running_service

        with tempfile.TemporaryDirectory() as folder:
            disk = f"disk://{folder}/store"
            with running_service(disk, clock=_world_clock, rate="none") as service:
                yield f"{service.url}?timeout=60"
    else:
        yield store


_clocks: list[FakeClock] = []


def _world_clock() -> Milliseconds:
    """Tell the time of the world that opened a store last: a service, whose clock counts, outlives worlds."""
    return _clocks[-1]() if _clocks else FakeClock()()


def _opening(url: str, project: str) -> Callable[[FakeClock], Store]:
    def opening(clock: FakeClock) -> Store:
        _clocks[:] = [clock]
        return open_store(url, project=project, clock=clock)

    return opening
