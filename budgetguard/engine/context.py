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
  A task that is started meanwhile gets a context that says whose it is (`_task_context`).
- What a job enters that does nothing else is *stranded*: its context is dropped, and whoever asked for it
  goes on without a user. Nobody can see who that is, so calls without a user are refused until it is left.

Nearly always none of this is so: every link was entered by the task that looks, in no generator. Then the
chain counts as it is (`_entered_here`); all else is judged link by link (`_judge`).
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeVar, cast

from contextvars_extras import ContextVarsRegistry

from budgetguard.core.accounts import check_id
from budgetguard.engine.decorated import Decorated
from budgetguard.engine.threads import follow
from budgetguard.errors import ConfigurationError

if TYPE_CHECKING:
    from budgetguard.core.holds import Charge
    from budgetguard.engine.call import GuardedCall

F = TypeVar("F", bound=Callable[..., Any])

Lost: TypeAlias = Literal["ended", "generator", "process", "stranded"]
"""Why nobody can say who pays: the block ended, it is a generator's, it is another process's, or it was
entered where it reaches nobody, and perhaps for this call."""

_GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
# What context managers are entered and left by.
_OF_MANAGERS: Final = frozenset({"__enter__", "__aenter__", "__exit__", "__aexit__"})
# Modules that step a generator once to enter what it enters, for whoever asked them to; of which kinds.
_ENTERS_BY_STEPPING: Final = {
    "contextlib": _GENERATOR,
    "_pytest.fixtures": inspect.CO_GENERATOR,
    "pytest_asyncio.plugin": _GENERATOR,
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
    """Hold what is known of one entering: where, and whether it is over. Shared by all copies of its link.

    Attributes:
        open: whether it is still entered.
        task: the task in which it was entered, see `_task`.
        thread: the thread in which it was entered.
        frame: the id of the frame of the generator that entered it, and that frame's code; None if it was
            no generator. A frame that was kept would keep the generator from ending when it is dropped.
    """

    __slots__ = ("code", "frame", "open", "task", "thread")

    def __init__(self, frame: FrameType | None = None) -> None:
        self.open = True
        self.task = _task()
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
    """Hold one `with` in the chain of those around us. Never changed: contexts and threads share it.

    Attributes:
        owner: what was entered.
        scope: its entering.
        outer: the link around this one.
        user: who pays from here inwards; None leaves that as it is.
        run: the charge of the run that begins here, if one does.
        engine: whose run it is.
        tags: labels that begin here.
        hook: a hook runs from here inwards.
        aside: a generator's, which was waiting for its next step when what is further inside was entered.
        lent: a running generator's, put here for what is directly inside, because this context lacked it.
        border: what is outside of this was handed to a `thread` when it started, or to a `job`.
        lost: why this says no more who pays.
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


@dataclass(slots=True, eq=False)
class Frame:
    """One guarded call that is under way, for the calls made inside it.

    Attributes:
        call: the call.
        outer: the frame around this one.
        generator: the id of the generator's frame whose block this is, and that frame's code: between two
            steps its caller runs with this current, and is not inside. None for any other function.
    """

    call: GuardedCall
    outer: Frame | None
    generator: tuple[int, CodeType] | None = None


class _Current(ContextVarsRegistry):  # type: ignore[misc]  # contextvars-extras has no usable hints
    _registry_allocate_on_setattr = False

    link: Link | None = None
    frame: Frame | None = None


_current = _Current()


class _Job(threading.local):
    """Hold what was current when the job was submitted that runs in this thread; None outside of jobs.

    Many jobs run in a context of their own (`asyncio.to_thread`), which does not say where it was copied.
    """

    seen: tuple[Link, ...] | None = None


_job = _Job()

# The links that generators have entered and not left, by the ids of their frames.
_of_generators: dict[int, tuple[Link, ...]] = {}

# What was entered by jobs that do nothing else, and is not left: frameworks do this to enter what is not
# async. The job's context is dropped at once, and who asked for it makes calls without a user.
_stranded: dict[Scope, weakref.ref[Any]] = {}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Hold what is current at one moment, to be made current elsewhere."""

    link: Link | None
    frame: Frame | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call here.

    Attributes:
        user: the current user, or None.
        runs: the charges of the runs around us, innermost first, each once.
        lost: why nobody can say who pays, so that the call must be refused; None if that is not so.
        tags: of every `budget_tags` around us, outermost first, each once.
        by_hook: whether a hook runs around us, or has started what runs here.
    """

    user: str | None
    runs: tuple[Charge, ...]
    lost: Lost | None
    tags: tuple[str, ...]
    by_hook: bool


def current_user() -> str | None:
    """Return the user set by the innermost `budget_user` around us, or None."""
    for link, lost in _judged():
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
    for link, lost in _judged():
        if lost:
            # A user, or a run, that was set further inside says enough.
            here = link.run is not None and link.engine is engine and not runs
            if user is None and (link.user is not None or here):
                unknown = unknown or lost
            continue
        if link.user is not None and user is None and unknown is None:
            user = link.user
        if link.run is not None and link.engine is engine:
            runs.setdefault(link.run.account, link.run)
        if link.tags:
            tags = link.tags + tags
    if user is None and not runs and unknown is None and _stranded:
        unknown = "stranded"
    unique = tuple(dict.fromkeys(tags)) if tags else tags
    by_hook = _current.link is not None and inside_hook()
    return Caller(user, tuple(runs.values()), unknown, unique, by_hook)


def calls_around(engine: object) -> tuple[GuardedCall, ...]:
    """Return the calls of one bookkeeper that we are inside, innermost first."""
    if _current.frame is None:  # nearly always
        return ()
    return tuple(frame.call for frame in _frames_around() if frame.call.engine is engine)


def _frames_around() -> Iterator[Frame]:
    """Yield the frames that we are inside, innermost first."""
    frame = _current.frame
    while frame is not None:
        if not frame.call.closed and (frame.generator is None or _is_on_stack(*frame.generator)):
            yield frame
        frame = frame.outer


def _is_on_stack(ident: int, code: CodeType) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not (id(frame) == ident and frame.f_code is code):
        frame = frame.f_back
    return frame is not None


def enter_frame(call: GuardedCall, block: FrameType | None = None) -> Frame:
    """Begin a guarded call: calls made from here on are inside it.

    Args:
        call: the call.
        block: the frame of the function in which its `with` stands, if it is a block.
    """
    if not _followed:
        _follow()
    generator = (id(block), block.f_code) if block is not None and _is_generator(block) else None
    frame = Frame(call, _current.frame, generator)
    _current.frame = frame
    return frame


def leave_frame(frame: Frame) -> None:
    """Go on outside of a guarded call; in another context than it began in, there is nothing to take out."""
    if _current.frame is frame:
        _current.frame = frame.outer


def _frames_to_carry() -> Frame | None:
    """Return the frames that we are inside as they count elsewhere, where no generator is on the stack."""
    frame = _current.frame
    while frame is not None and frame.generator is None and not frame.call.closed:
        frame = frame.outer
    if frame is None:  # nearly always
        return _current.frame
    carried: Frame | None = None
    for one in reversed(tuple(_frames_around())):
        carried = Frame(one.call, carried)
    return carried


def enter_link(
    owner: object,
    frame: FrameType | None = None,
    *,
    user: str | None = None,
    run: Charge | None = None,
    engine: object = None,
    tags: tuple[str, ...] = (),
    hook: bool = False,
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
    """
    if not _followed:
        _follow()
    outer = _current.link
    if _of_generators:
        outer = _seen_from(_on_stack(), outer)
    generator = frame if frame is not None and _is_generator(frame) else None
    scope = Scope(generator)
    while outer is not None and outer.scope.is_over_beside(scope):
        outer = outer.outer
    link = Link(owner, scope, outer, user, run, engine, tags, hook)
    _current.link = link
    if generator is not None:
        _of_generators[id(generator)] = (link, *_of_generators.get(id(generator), ()))
    elif (user or run) and frame is not None and _is_whole_job(frame, scope):
        _stranded[scope] = weakref.ref(owner, lambda _: _stranded.pop(scope, None))


def leave_link(owner: object, frame: FrameType | None = None) -> None:
    """Take out the innermost link of `owner`, wherever in the chain it now is.

    Args:
        owner: what is left.
        frame: of the function in which the `with` stands; only asked for while generators are open.
    """
    link = _current.link
    if not _of_generators and link is not None and link.owner is owner:  # nearly always
        link.scope.open = False
        outer = link.outer
        _current.link = outer if outer is None or not outer.lent else _not_lent(outer)
        return
    scope = _scope_of(owner, frame)
    if scope is None:  # entered in another context
        scope = next((one for one, ref in tuple(_stranded.items()) if ref() is owner), None)
        if scope is None:
            return
    scope.open = False
    _stranded.pop(scope, None)
    if scope.frame is not None:
        left = tuple(one for one in _of_generators.get(scope.frame, ()) if one.scope is not scope)
        if left:
            _of_generators[scope.frame] = left
        else:
            _of_generators.pop(scope.frame, None)
    _current.link = _not_lent(_without(_current.link, scope))


def _not_lent(link: Link | None) -> Link | None:
    while link is not None and link.lent:
        link = link.outer
    return link


def _scope_of(owner: object, frame: FrameType | None) -> Scope | None:
    """Return the innermost entering of an owner; others that go on in other generators are not meant."""
    running = _on_stack() if _of_generators else ()
    inside = {link.scope for link in running}
    chain = _listed(_current.link)
    by_frame = [link for link in running if frame is not None and link.scope.frame == id(frame)]
    reachable = [one for one in chain if one.scope.frame is None or one.scope in inside]
    entered_by_generators = [one for links in tuple(_of_generators.values()) for one in links]
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
    found = _listed(chain)
    kept: list[Link] = []
    within_border = False
    for link in found:
        within_border = within_border or link.border is not None
        if within_border or link.scope.frame is None or link.scope in inside:
            kept.append(link)
        elif all(one.scope is not link.scope for one in kept):
            kept.append(link if link.aside else replace(link, aside=True))
    lent = [replace(link, lent=True) for link in _missing(running, chain)]
    return _chain([*lent, *kept], chain)


def _without(link: Link | None, scope: Scope) -> Link | None:
    return _chain([one for one in _listed(link) if one.scope is not scope], link)


def _listed(link: Link | None) -> list[Link]:
    """Return the links of a chain, innermost first."""
    found = []
    while link is not None:
        found.append(link)
        link = link.outer
    return found


def _chain(links: list[Link], like: Link | None) -> Link | None:
    """Return these links as a chain, innermost first; the outer part that is another chain's, as it is."""
    found = _listed(like)
    rest: Link | None = None
    while links and found and links[-1] is found[-1]:
        rest = found.pop()
        links = links[:-1]
    for one in reversed(links):
        rest = replace(one, outer=rest)
    return rest


def _task() -> weakref.ref[Any] | None:
    """Return a reference to the task that runs here, of asyncio or trio; None outside of tasks.

    It is the same object each time for as long as anybody keeps it, and never that of another task.
    """
    task: object = None
    if (loop := asyncio._get_running_loop()) is not None:
        task = asyncio.current_task(loop)
    elif (trio := sys.modules.get("trio")) is not None:
        try:
            task = trio.lowlevel.current_task()
        except RuntimeError:
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
        elif not code.co_flags & _GENERATOR or outer is None:
            return frame
        elif code.co_flags & _ENTERS_BY_STEPPING.get(outer.f_globals.get("__name__", ""), 0):
            frame = outer
        else:
            return frame
    return None


def _is_whole_job(frame: FrameType, scope: Scope) -> bool:
    """Whether to enter is all that a job does: nothing stands between it and what calls jobs."""
    return scope.task is None and frame.f_globals.get("__name__") in _RUN_JOBS


def _is_generator(frame: FrameType) -> bool:
    flags = frame.f_code.co_flags
    return bool(flags & _GENERATOR) and not flags & inspect.CO_ITERABLE_COROUTINE


def _on_stack() -> tuple[Link, ...]:
    """Return the links of the generators that we are inside, innermost first."""
    found: list[Link] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _CARRIED_CODE:
        links = _of_generators.get(id(frame))
        if links is not None:
            found += [link for link in links if link.scope.code is frame.f_code]
        frame = frame.f_back
    return tuple(found)


def _missing(links: tuple[Link, ...], chain: Link | None) -> tuple[Link, ...]:
    """Return those links that a chain does not have."""
    there = {link.scope for link in _listed(chain) if not link.aside} if links else set()
    return tuple(link for link in links if link.scope not in there)


def _judged() -> Iterable[tuple[Link, Lost | None]]:
    """Return the links around us, innermost first, each with why it is lost, if it is; borders as well."""
    link = _current.link
    if not _of_generators and (entered_here := _entered_here(link)) is not None:  # nearly always
        return entered_here
    return _judge(link)


def _entered_here(link: Link | None) -> list[tuple[Link, None]] | None:
    """Return a chain of which all was entered by this task and is in no generator; None for any other."""
    found: list[tuple[Link, None]] = []
    if link is None:
        return found
    task, thread = _task(), threading.get_ident()
    while link is not None:
        scope = link.scope
        if scope.task is not task or scope.thread != thread or scope.frame is not None:
            return None
        if link.border is not None or link.lost is not None:
            return None
        found.append((link, None))
        link = link.outer
    return found


def _judge(link: Link | None) -> Iterator[tuple[Link, Lost | None]]:
    """Yield what `_judged` returns, of any chain."""
    running: tuple[Link, ...] = ()
    if _of_generators:
        running = _on_stack()
        for one in _missing(running, link):
            yield one, one.lost
    if link is None:
        return
    task, thread = _task(), threading.get_ident()
    inside = {one.scope for one in running} if running else ()
    job = _job.seen if task is None else None
    handed = False  # to this thread, when it started
    held: bool | None = None  # whether the job that we are in, or were started in, still runs
    aside = _has_aside(link)
    while link is not None:
        scope = link.scope
        here = scope.task is task and scope.thread == thread
        lost = link.lost
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
        elif job is not None and (scope.frame is not None or any(one.scope is scope for one in job)):
            # This context was copied for a job (`asyncio.to_thread`): it was judged when that was submitted.
            for one in job:
                yield one, one.lost
            return
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
    link = _current.link
    while link is not None and not link.hook:
        link = link.outer
    return link is not None


@contextmanager
def as_hook() -> Iterator[None]:
    """Have what is called inside be a hook's."""
    owner = object()
    enter_link(owner, hook=True)
    try:
        yield
    finally:
        leave_link(owner)


def surroundings() -> Surroundings | None:
    """Return what is current, or None if nothing is."""
    link, frame = _current.link, _frames_to_carry()
    if link is not None or _of_generators:
        link = _as_judged()
    return None if link is None and frame is None else Surroundings(link, frame)


def _as_judged() -> Link | None:
    """Return the chain as it counts here: with what is lost marked, without what does not concern us."""
    found = tuple(_judged())
    link = _current.link
    for one, lost in found:
        if link is None or one is not link or lost is not link.lost:
            break
        link = link.outer
    else:
        if link is None:
            return _current.link
    return _chain([replace(one, lost=lost) for one, lost in found], None)


def within(carried: Surroundings | None, call: Callable[[], Any]) -> Any:
    """Call something with `carried` current (nothing, if None), as a job, and put back what was."""
    return _carried(carried, call, "job")


def within_thread(carried: Surroundings | None, call: Callable[[], Any]) -> Any:
    """Do as `within`, for all of a thread, which lives on when the `with` around its start is left."""
    return _carried(carried, call, "thread")


def _carried(carried: Surroundings | None, call: Callable[[], Any], border: Literal["thread", "job"]) -> Any:
    before = _current.link, _current.frame
    outer_job = _job.seen
    scope = Scope()
    link = frame = None
    if carried is not None:
        frame = carried.frame
        link = carried.link and Link(None, scope, carried.link, border=border)
    _current.link, _current.frame = link, frame
    _job.seen = tuple(_listed(link)) if border == "job" else None
    try:
        return call()
    finally:
        scope.open = False
        _job.seen = outer_job
        _current.link, _current.frame = before


_CARRIED_CODE: Final = _carried.__code__


def _follow() -> None:
    follow(surroundings, within, within_thread, _task_context, _forget)
    _followed.append(True)


_followed: list[bool] = []


def _task_context() -> Context | None:
    """Return a context to start a task in; None if the one that is current says whose it is.

    Generators share the context of their callers, or are stepped in new ones. What is copied for a task
    must be what counts here, where it is started.
    """
    frame = _frames_to_carry()
    in_generator = any(link.scope.frame is not None for link in _listed(_current.link))
    if not _of_generators and not in_generator and frame is _current.frame:
        return None
    link = _as_judged()
    context = copy_context()
    context.run(setattr, _current, "link", link and Link(None, Scope(), link, border="thread"))
    context.run(setattr, _current, "frame", frame)
    return context


def _forget() -> None:
    """Mark what is current as lost: this process was forked to work for others than who forked it."""
    _current.link = _chain([replace(one, lost=lost or "process") for one, lost in _judged()], None)
    _of_generators.clear()


class Surrounding:
    """Be a `with`, an `async with` and a decorator, all of which mean the same.

    Subclasses say what entering does; one object may be entered many times, also at once.
    """

    def _enter(self, frame: FrameType | None) -> None:
        """Enter, see `enter_link`."""
        raise NotImplementedError

    def _again(self) -> Surrounding:
        """Return what one call of a decorated function enters."""
        return self

    def __enter__(self) -> Self:
        self._enter(used_in(sys._getframe(1)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave_link(self, used_in(sys._getframe(1)) if _of_generators else None)

    async def __aenter__(self) -> Self:
        self._enter(used_in(sys._getframe(1)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave_link(self, used_in(sys._getframe(1)) if _of_generators else None)

    def __call__(self, function: F) -> F:
        if not callable(function) and not isinstance(function, classmethod | staticmethod):
            raise ConfigurationError(f"{type(self).__name__} decorates functions, and {function!r} is none")
        return cast(F, Decorated(function, self._around))

    @contextmanager
    def _for_a_step(self) -> Iterator[None]:
        # Left before anybody else runs, so that it is no matter that a generator does this.
        self._enter(None)
        try:
            yield
        finally:
            leave_link(self)

    def _around(self, wrapped: Callable[..., Any], _instance: Any, args: Any, kwargs: Any) -> Any:
        entered = self._again()
        if inspect.isgeneratorfunction(wrapped):
            return entered._step(wrapped(*args, **kwargs))
        if inspect.isasyncgenfunction(wrapped):
            return entered._astep(wrapped(*args, **kwargs))
        if inspect.iscoroutinefunction(wrapped):
            return entered._await(wrapped(*args, **kwargs))
        with entered:
            answer = wrapped(*args, **kwargs)
        # A callable object may be any of these without looking like it.
        if inspect.iscoroutine(answer):
            return entered._await(answer)
        if inspect.isgenerator(answer):
            return entered._step(answer)
        return entered._astep(answer) if inspect.isasyncgen(answer) else answer

    async def _await(self, coroutine: Awaitable[Any]) -> Any:
        with self:
            return await coroutine

    def _step(self, generator: Any) -> Generator[Any, Any, Any]:
        # Current only while the generator runs: its caller must not inherit its user between steps.
        sent: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                with self._for_a_step():
                    try:
                        item = generator.send(sent) if thrown is None else generator.throw(thrown)
                    except StopIteration as stop:
                        return stop.value
                sent, thrown = None, None
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - handed to the generator, which decides
                    thrown = error
        finally:
            with self._for_a_step():
                generator.close()

    async def _astep(self, generator: Any) -> AsyncIterator[Any]:
        sent: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                with self._for_a_step():
                    try:
                        item = await (generator.asend(sent) if thrown is None else generator.athrow(thrown))
                    except StopAsyncIteration:
                        return
                sent, thrown = None, None
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - handed to the generator, which decides
                    thrown = error
        finally:
            with self._for_a_step():
                await generator.aclose()


class budget_user(Surrounding):
    """Charge the guarded calls inside to a user.

    Use it as `with budget_user("1234"):`, as `async with`, or as a decorator. Inside another one, the
    innermost counts.

    Args:
        user: the user's id, 1 to 256 printable characters.

    Raises:
        ConfigurationError: not text, empty, too long, or with control characters.
    """

    def __init__(self, user: str) -> None:
        self.user = check_id(user, name="user")

    def __repr__(self) -> str:
        return f"budget_user({self.user!r})"

    def _enter(self, frame: FrameType | None) -> None:
        enter_link(self, frame, user=self.user)


class budget_tags(Surrounding):
    """Label the guarded calls inside, for reports: by feature, tenant, experiment.

    Use it as `with budget_tags("checkout"):`, as `async with`, or as a decorator. Inside another one, both
    count. Tags are kept with the records of calls; they are charged nothing and refuse nothing.

    Args:
        tags: 1 to 256 printable characters each.

    Raises:
        ConfigurationError: no tag, or one that is not text, empty, too long, or with control characters.
    """

    def __init__(self, *tags: str) -> None:
        if not tags:
            raise ConfigurationError('budget_tags needs a tag, such as budget_tags("checkout")')
        self.tags = tuple(check_id(tag, name="each tag") for tag in tags)

    def __repr__(self) -> str:
        return f"budget_tags({', '.join(map(repr, self.tags))})"

    def _enter(self, frame: FrameType | None) -> None:
        enter_link(self, frame, tags=self.tags)
