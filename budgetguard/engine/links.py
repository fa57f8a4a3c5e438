"""The chain of what is entered around us: a link for each `with`, and how links are put in and taken out.

See `context` for what of it counts.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import weakref
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from contextvars_extras import ContextVarsRegistry

if TYPE_CHECKING:
    from budgetguard.core.holds import Charge
    from budgetguard.engine.call import GuardedCall

Place: TypeAlias = tuple[int | None, CodeType]
"""A function that runs: the id of its frame (None for any of its frames), and its code."""

Lost: TypeAlias = Literal["ended", "generator", "process", "stranded", "job", "message"]
"""Why nobody can say who pays: the block ended, it is a generator's, it is another process's, it was entered
where it reaches nobody, and perhaps for this call, or it was not known where a job was sent, or what came
with the job cannot be read."""

GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
# What context managers are entered and left by.
_OF_MANAGERS: Final = frozenset({"__enter__", "__aenter__", "__exit__", "__aexit__"})
# Modules that step a generator once to enter what it enters, for whoever asked them to; of which kinds.
_ENTERS_BY_STEPPING: Final = {
    "contextlib": GENERATOR,
    "_pytest.fixtures": inspect.CO_GENERATOR,
    "pytest_asyncio.plugin": GENERATOR,
    # Its jobs may be the steps of generators that are not async.
    "anyio._backends._asyncio": inspect.CO_ASYNC_GENERATOR,
    "anyio._backends._trio": inspect.CO_ASYNC_GENERATOR,
}
# Modules that call the functions of threads and jobs.
_RUN_JOBS: Final = frozenset(
    {
        "anyio._backends._asyncio",
        "budgetguard.engine.threads",
        "concurrent.futures.thread",
        "multiprocessing.pool",
        "threading",
        "trio._threads",
    }
)


class Scope:
    """Where something was entered, and whether that is over. Shared by all copies of its link.

    Attributes:
        open: whether it is still entered.
        task: the task in which it was entered, see `task_here`.
        thread: the thread in which it was entered.
        frame: the id of the frame of the generator that entered it, and that frame's code; None if it was
            no generator. A frame that was kept would keep the generator from ending when it is dropped.
    """

    __slots__ = ("code", "frame", "open", "task", "thread")

    def __init__(self, frame: FrameType | None = None) -> None:
        self.open = True
        self.task = task_here()
        self.thread = threading.get_ident()
        self.frame: int | None = None if frame is None else id(frame)
        self.code: CodeType | None = None if frame is None else frame.f_code

    def is_over_beside(self, other: Scope) -> bool:
        """Whether it was a generator's that was closed elsewhere, and entered where the other was."""
        return (
            self.frame is not None
            and not self.open
            and self.task is other.task
            and self.thread == other.thread
        )


@dataclass(slots=True, eq=False)  # a frozen one takes 2 us to make, for each `with`
class Link:
    """One `with` in the chain of those around us. Never changed: contexts and threads share it.

    Attributes:
        owner: what was entered.
        scope: its entering.
        outer: the link around this one.
        user: who pays from here inwards; None leaves that as it is.
        run: the charge of the run that begins here, if one does.
        engine: whose run it is.
        tags: labels that begin here.
        labels: likewise, with their names; with a user they are the user's.
        hook: a hook runs from here inwards.
        aside: a generator's, which was waiting for its next step when what is further inside was entered.
        lent: a running generator's, put here for what is directly inside, because this context lacked it.
        border: what is outside of this was handed to a `thread` when it started, or to a `job`.
        lost: why this says no more who pays.
        lands: what is refused inside is raised here; see `providers.carrying`.
    """

    owner: object
    scope: Scope
    outer: Link | None
    user: str | None = None
    run: Charge | None = None
    engine: object | None = None
    tags: tuple[str, ...] = ()
    hook: bool = False
    aside: bool = False
    lent: bool = False
    border: Literal["thread", "job"] | None = None
    lost: Lost | None = None
    lands: bool = False
    labels: tuple[tuple[str, str], ...] = ()


class Passing:
    """What a guard lets pass: it costs nothing, or the user has allowed it. No engine books it.

    Attributes:
        closed: whether it has been answered, so that what runs from now on is not inside it.
    """

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended; as that of a call."""
        return self.closed


@dataclass(slots=True, eq=False)
class Frame:
    """One guarded call that is under way, for the calls made inside it.

    Attributes:
        call: the call, or what a guard lets pass.
        outer: the frame around this one.
        place: what has to be on the stack for calls to be inside. For the block of a generator that is the
            generator: between two steps its caller runs with this current, and is not inside. None for the
            block of any other function.
    """

    call: GuardedCall | Passing
    outer: Frame | None
    place: Place | None = None


class _Current(ContextVarsRegistry):  # type: ignore[misc]  # contextvars-extras has no usable hints
    _registry_allocate_on_setattr = False

    link: Link | None = None
    frame: Frame | None = None


current = _Current()


class _Job(threading.local):
    """What was current when the job that runs in this thread was submitted; None outside of jobs.

    Many jobs run in a context of their own (`asyncio.to_thread`), which does not say where it was copied.
    """

    seen: tuple[Link, ...] | None = None


job = _Job()

# The links that generators have entered and not left, by the ids of their frames.
of_generators: dict[int, tuple[Link, ...]] = {}

# What was entered by jobs that do nothing else, and is not left: frameworks do this to enter what is not
# async. The job's context is dropped at once, and who asked for it makes calls without a user.
stranded: dict[Scope, weakref.ref[Any]] = {}

followed: list[bool] = []
"""Whether threads and tasks follow; begun when something first becomes current."""

carriers: set[CodeType] = set()
"""The code of functions that make carried surroundings current: the stack beyond them is another's."""


def follow_threads() -> None:
    """Let threads, jobs and tasks carry what is current, from now on."""
    from budgetguard.engine.threads import follow

    follow()
    followed.append(True)


def enter_link(
    owner: object,
    frame: FrameType | None = None,
    *,
    user: str | None = None,
    run: Charge | None = None,
    engine: object = None,
    tags: tuple[str, ...] = (),
    hook: bool = False,
    lands: bool = False,
    lost: Lost | None = None,
    labels: tuple[tuple[str, str], ...] = (),
) -> None:
    """Add a link for `owner`; without a user it leaves the user as it is.

    Args:
        owner: what is entered.
        frame: of the function in which the `with` stands; None if nothing else runs before it is left.
        user: see `Link`, for this and for the others.
        run: see `Link`.
        engine: see `Link`.
        tags: see `Link`.
        hook: see `Link`.
        lands: see `Link`.
        lost: see `Link`.
        labels: see `Link`.
    """
    if not followed:
        follow_threads()
    outer = current.link
    if of_generators:
        outer = _seen_from(on_stack(), outer)
    generator = frame if frame is not None and is_generator(frame) else None
    scope = Scope(generator)
    while outer is not None and outer.scope.is_over_beside(scope):
        outer = outer.outer
    link = Link(owner, scope, outer, user, run, engine, tags, hook, lands=lands, lost=lost, labels=labels)
    current.link = link
    if generator is not None:
        of_generators[id(generator)] = (link, *of_generators.get(id(generator), ()))
    elif (user or run) and frame is not None and _is_whole_job(frame, scope):
        stranded[scope] = weakref.ref(owner, lambda _: stranded.pop(scope, None))


def leave_link(owner: object, frame: FrameType | None = None) -> None:
    """Take out the innermost link of `owner`, wherever in the chain it now is.

    Args:
        owner: what is left.
        frame: of the function in which the `with` stands; only asked for while generators are open.
    """
    link = current.link
    if not of_generators and link is not None and link.owner is owner:  # nearly always
        link.scope.open = False
        outer = link.outer
        current.link = outer if outer is None or not outer.lent else _not_lent(outer)
        return
    scope = _scope_of(owner, frame)
    if scope is None:  # entered in another context
        scope = next((one for one, ref in tuple(stranded.items()) if ref() is owner), None)
        if scope is None:
            return
    scope.open = False
    stranded.pop(scope, None)
    if scope.frame is not None:
        left = tuple(one for one in of_generators.get(scope.frame, ()) if one.scope is not scope)
        if left:
            of_generators[scope.frame] = left
        else:
            of_generators.pop(scope.frame, None)
    current.link = _not_lent(_without(current.link, scope))


def _not_lent(link: Link | None) -> Link | None:
    while link is not None and link.lent:
        link = link.outer
    return link


def _scope_of(owner: object, frame: FrameType | None) -> Scope | None:
    """Return the innermost entering of an owner; others that go on in other generators are not meant."""
    running = on_stack() if of_generators else ()
    inside = {link.scope for link in running}
    chain = listed(current.link)
    by_frame = [link for link in running if frame is not None and link.scope.frame == id(frame)]
    reachable = [one for one in chain if one.scope.frame is None or one.scope in inside]
    entered_by_generators = [one for links in tuple(of_generators.values()) for one in links]
    for links in (by_frame, reachable, running, chain, entered_by_generators):
        for one in links:
            if one.owner is owner:
                return one.scope
    return None


def _seen_from(running: tuple[Link, ...], chain: Link | None) -> Link | None:
    """Return a chain as what is entered now is inside it.

    Of the generators' links, those are around it whose generators run, also where this context lacks them;
    others are set aside.
    """
    inside = {link.scope for link in running}
    found = listed(chain)
    kept: list[Link] = []
    within_border = False
    for link in found:
        within_border = within_border or link.border is not None
        if within_border or link.scope.frame is None or link.scope in inside:
            kept.append(link)
        elif all(one.scope is not link.scope for one in kept):
            kept.append(link if link.aside else replace(link, aside=True))
    lent = [replace(link, lent=True) for link in missing(running, chain)]
    return chain_of([*lent, *kept], chain)


def _without(link: Link | None, scope: Scope) -> Link | None:
    return chain_of([one for one in listed(link) if one.scope is not scope], link)


def listed(link: Link | None) -> list[Link]:
    """Return the links of a chain, innermost first."""
    found = []
    while link is not None:
        found.append(link)
        link = link.outer
    return found


def chain_of(links: list[Link], like: Link | None) -> Link | None:
    """Return these links as a chain, innermost first; the outer part that is another chain's, as it is."""
    found = listed(like)
    rest: Link | None = None
    while links and found and links[-1] is found[-1]:
        rest = found.pop()
        links = links[:-1]
    for one in reversed(links):
        rest = replace(one, outer=rest)
    return rest


def task_here() -> weakref.ref[Any] | None:
    """Return a reference to the task that runs here, of asyncio or trio; None outside of tasks.

    It is the same object each time for as long as anybody keeps it, and never that of another task.
    """
    task: object = None
    if (loop := asyncio._get_running_loop()) is not None:
        task = asyncio.current_task(loop)
    elif (trio := sys.modules.get("trio")) is not None:
        try:
            task = trio.lowlevel.current_task()
        except (RuntimeError, AttributeError):  # none runs; or trio is just being imported, by another thread
            return None
    return None if task is None else weakref.ref(task)


def used_in(frame: FrameType | None) -> FrameType | None:
    """Return the frame that enters, or leaves: of the function in which the `with` stands.

    Context managers do so on behalf of who uses them, also those that are written as generators.
    """
    while frame is not None:
        code, outer = frame.f_code, frame.f_back
        if code.co_name in _OF_MANAGERS or frame.f_globals.get("__name__") == "contextlib":
            frame = outer
        elif not code.co_flags & GENERATOR or outer is None:
            return frame
        elif code.co_flags & _ENTERS_BY_STEPPING.get(outer.f_globals.get("__name__", ""), 0):
            frame = outer
        else:
            return frame
    return None


def _is_whole_job(frame: FrameType, scope: Scope) -> bool:
    """Whether to enter is all that a job does: nothing stands between it and what calls jobs."""
    return scope.task is None and frame.f_globals.get("__name__") in _RUN_JOBS


def is_generator(frame: FrameType) -> bool:
    flags = frame.f_code.co_flags
    return bool(flags & GENERATOR) and not flags & inspect.CO_ITERABLE_COROUTINE


def on_stack() -> tuple[Link, ...]:
    """Return the links of the generators that we are inside, innermost first."""
    found: list[Link] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in carriers:
        links = of_generators.get(id(frame))
        if links is not None:
            found += [link for link in links if link.scope.code is frame.f_code]
        frame = frame.f_back
    return tuple(found)


def missing(links: tuple[Link, ...], chain: Link | None) -> tuple[Link, ...]:
    """Return those links that a chain does not have."""
    there = {link.scope for link in listed(chain) if not link.aside} if links else set()
    return tuple(link for link in links if link.scope not in there)
