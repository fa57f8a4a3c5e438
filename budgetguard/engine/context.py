"""Who pays, and for what: the current user and tags, the runs around us, the call that we are inside.

What is current lives in context variables, as a chain of links, one for each `with` around us. A `with`
takes out its own link when it is left, so leaving in another context than one entered in (as async
fixtures and frameworks do) cannot undo somebody else's.

Python copies context variables further than a `with` reaches, and not as far as it should. So a link that
is found is judged before it counts:

- A thread or a task inherits what was current where it was started, for as long as that `with` is open.
  After that it may be serving anybody: a worker that was started by the first request that needed one
  must not charge the next request to it. What it inherited is *lost* then, and its calls are refused.
- A job (`submit`, the methods of a thread pool, `asyncio.to_thread`) belongs to who submitted it, to its end.
- A `with` inside a generator counts for what runs inside that generator: it is found by the generator's
  frame on the stack, since a generator shares its caller's context, or is stepped in a new one each time.
  A task that is started meanwhile gets a context that says whose it is (`threads._task_context`).
- What a job enters that does nothing else is *stranded*: its context is dropped, and whoever asked for it
  goes on without a user. Nobody can see who that is, so calls without a user are refused until it is left.

Nearly always none of this is so: every link was entered by the task that looks, in no generator. Then the
chain counts as it is (`judged`); all else is judged link by link (`_judge`).
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from budgetguard.engine.links import (
    Frame,
    Link,
    Lost,
    Passing,
    Place,
    chain_of,
    current,
    enter_link,
    follow_threads,
    followed,
    is_generator,
    job,
    leave_link,
    missing,
    of_generators,
    on_stack,
    stranded,
    task_here,
)

if TYPE_CHECKING:
    from budgetguard.core.holds import Charge
    from budgetguard.engine.call import GuardedCall


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call here.

    Attributes:
        user: the current user, or None.
        runs: the charges of the runs around us, innermost first, each once.
        lost: why nobody can say who pays, so that the call must be refused; None if that is not so.
        tags: of every `budget_tags` around us, outermost first, each once.
        labels: of every `budget_labels` around us, and the user's; of each name the innermost.
        by_hook: whether a hook runs around us, or has started what runs here.
    """

    user: str | None
    runs: tuple[Charge, ...]
    lost: Lost | None
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    by_hook: bool


def current_user() -> str | None:
    """Return the user set by the innermost `budget_user` around us, or None."""
    for link, lost in judged():
        if link.user is not None:
            return None if lost else link.user
    return None


def current_tags() -> tuple[str, ...]:
    """Return the tags of every `budget_tags` around us, outermost first, each once."""
    return current_caller(None).tags


def current_caller(engine: object) -> Caller:
    """Return who makes an engine's call here."""
    user: str | None = None
    runs: dict[str, Charge] = {}
    unknown: Lost | None = None
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    for link, lost in judged():
        if lost:
            # A user, or a run, that was set further inside says enough.
            here = link.run is not None and link.engine is engine and not runs
            if user is None and (link.user is not None or here):
                unknown = unknown or lost
            continue
        if link.labels and (link.user is None or user is None):  # an outer user's are not the inner one's
            labels = {**dict(link.labels), **labels}
        if link.user is not None and user is None and unknown is None:
            user = link.user
        if link.run is not None and link.engine is engine:
            runs.setdefault(link.run.account, link.run)
        if link.tags:
            tags = link.tags + tags
    if user is None and not runs and unknown is None and stranded:
        unknown = "stranded"
    unique = tuple(dict.fromkeys(tags)) if tags else tags
    by_hook = current.link is not None and inside_hook()
    return Caller(user, tuple(runs.values()), unknown, unique, labels, by_hook)


def current_labels() -> dict[str, str]:
    """Return the labels of every `budget_labels` around us, and the user's; of each name the innermost."""
    return dict(current_caller(None).labels)


def calls_around(engine: object, beside: Place | None = None) -> tuple[GuardedCall, ...]:
    """Return the calls of one engine that we are inside, innermost first.

    Args:
        engine: whose.
        beside: where a function has begun several calls that are not inside each other: a batch.
    """
    if current.frame is None:  # nearly always
        return ()
    return tuple(
        call
        for frame in _frames_around()
        if not isinstance(call := frame.call, Passing)
        and call.engine is engine
        and (beside is None or frame.place != beside)
    )


def is_inside_call() -> bool:
    """Whether a guarded call that is under way runs around us, or a request that a guard lets pass."""
    if current.frame is None:  # nearly always
        return False
    return any(not frame.call.is_over for frame in _frames_around())


@contextmanager
def passing() -> Iterator[None]:
    """Mark what is called inside as seen by a guard, which lets it pass without a hold."""
    let_pass = Passing()
    frame = enter_frame(let_pass)
    try:
        yield
    finally:
        let_pass.closed = True
        leave_frame(frame)


def innermost_call() -> GuardedCall | None:
    """Return the innermost call that we are inside, whichever engine's, or None; also in what is let pass."""
    if current.frame is None:
        return None
    call = next((frame.call for frame in _frames_around()), None)
    return None if isinstance(call, Passing) else call


def _frames_around() -> Iterator[Frame]:
    """Yield the frames that we are inside, innermost first."""
    frame = current.frame
    while frame is not None:
        if not frame.call.closed and (frame.place is None or _is_on_stack(*frame.place)):
            yield frame
        frame = frame.outer


def _is_on_stack(ident: int | None, code: CodeType) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not (frame.f_code is code and ident in (None, id(frame))):
        frame = frame.f_back
    return frame is not None


def enter_frame(call: GuardedCall | Passing, place: Place | None = None) -> Frame:
    """Begin a guarded call: calls made from here on are inside it.

    Args:
        call: the call, or what a guard lets pass.
        place: see `Frame`.
    """
    if not followed:
        follow_threads()
    outer = current.frame
    while outer is not None and outer.call.closed:  # it ended in another context, which could not take it out
        outer = outer.outer
    frame = Frame(call, outer, place)
    current.frame = frame
    return frame


def place_of_block(block: FrameType | None) -> Place | None:
    """Return the place of a block whose `with` stands in a function with this frame; see `Frame`."""
    return (id(block), block.f_code) if block is not None and is_generator(block) else None


def leave_frame(frame: Frame) -> None:
    """Go on outside of a guarded call; in another context than it began in, there is nothing to take out."""
    if current.frame is frame:
        current.frame = frame.outer


def frames_to_carry() -> Frame | None:
    """Return the frames that we are inside as they count elsewhere, where another stack is."""
    frame = current.frame
    while frame is not None and frame.place is None and not frame.call.closed:
        frame = frame.outer
    if frame is None:  # nearly always
        return current.frame
    carried: Frame | None = None
    for one in reversed(tuple(_frames_around())):
        carried = Frame(one.call, carried)
    return carried


def judged() -> Iterable[tuple[Link, Lost | None]]:
    """Return the links around us, innermost first, each with why it is lost, if it is; borders as well."""
    first = link = current.link
    if of_generators:
        return _judge(first)
    found: list[tuple[Link, None]] = []
    if link is None:
        return found
    # Nearly always no task runs.
    is_async = asyncio._get_running_loop() is not None or "trio" in sys.modules
    task, thread = task_here() if is_async else None, threading.get_ident()
    while link is not None:
        scope = link.scope
        is_here = scope.task is task and scope.thread == thread and scope.frame is None
        if not is_here or link.border is not None or link.lost is not None:
            return _judge(first)
        found.append((link, None))
        link = link.outer
    return found  # nearly always


def _judge(link: Link | None) -> Iterator[tuple[Link, Lost | None]]:
    """Yield what `judged` returns, of a chain that may be from elsewhere."""
    running: tuple[Link, ...] = ()
    if of_generators:
        running = on_stack()
        for one in missing(running, link):
            yield one, one.lost
    if link is None:
        return
    task, thread = task_here(), threading.get_ident()
    inside = {one.scope for one in running} if running else ()
    seen = job.seen if task is None else None
    handed = False  # to this thread, when it started
    held: bool | None = None  # whether the job that we are in, or were started in, still runs
    aside = _has_aside(link)
    while link is not None:
        scope = link.scope
        here = scope.task is task and scope.thread == thread
        lost = link.lost
        elsewhere = held is None and not here and scope not in inside
        if (
            seen is not None
            and elsewhere
            and (scope.frame is not None or scope in (one.scope for one in seen))
        ):
            # This context was copied for a job (`asyncio.to_thread`): it was judged when that was submitted.
            for one in seen:
                yield one, one.lost
            return
        if link.border == "thread":
            handed = True
        elif link.border == "job":
            if held is None:
                held = scope.open or (not handed and (here or task is None))
        elif held is not None:
            lost = lost or (None if held else "ended")
        elif handed:
            lost = lost or (None if scope.open else "ended")
        elif here:
            if scope.frame is not None and (link.aside or scope not in inside):
                link = link.outer  # the generator waits for its next step, and we are its caller
                continue
        elif scope in inside:
            pass
        elif scope.frame is not None or aside:
            # The context was copied: by the generator, or by its caller between two steps, nobody can tell.
            lost = lost or "generator"
        elif not scope.open:
            lost = lost or "ended"
        yield link, lost
        link = link.outer


def _has_aside(link: Link | None) -> bool:
    """Whether a chain has a link that was set aside, in what was not handed to a thread or a job."""
    while link is not None and link.border is None:
        if link.aside:
            return True
        link = link.outer
    return False


def inside_hook() -> bool:
    """Whether a hook runs around us, or has started what runs here."""
    link = current.link
    while link is not None and not link.hook:
        link = link.outer
    return link is not None


@contextmanager
def as_hook() -> Iterator[None]:
    """Mark what is called inside as a hook's."""
    owner = object()
    enter_link(owner, hook=True)
    try:
        yield
    finally:
        leave_link(owner)


@contextmanager
def as_landing() -> Iterator[None]:
    """Mark that what is refused inside is raised here, also what threads refuse that are started inside."""
    owner = object()
    enter_link(owner, lands=True)
    try:
        yield
    finally:
        leave_link(owner)


def lands() -> bool:
    """Whether a refusal here is raised further out; see `as_landing`."""
    link = current.link
    while link is not None and not (link.lands and link.scope.open):
        link = link.outer
    return link is not None


def as_judged() -> Link | None:
    """Return the chain as it counts here: with what is lost marked, without what does not concern us."""
    found = tuple(judged())
    link = current.link
    for one, lost in found:
        if link is None or one is not link or lost is not link.lost:
            break
        link = link.outer
    else:
        if link is None:
            return current.link
    return chain_of([replace(one, lost=lost) for one, lost in found], None)
