"""Who pays, and for what: the current user and tags, the runs around us, the call that we are inside.

What is current lives in context variables, so tasks and `asyncio.to_thread` inherit it, and
`threads.py` hands it to plain threads. Each `with` adds a link to a chain and takes that same link
out again, so leaving in another context than one entered in (as async fixtures and frameworks do)
cannot undo somebody else's.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import wrapt
from contextvars_extras import ContextVarsRegistry

from budgetguard.accounts import check_id
from budgetguard.errors import ConfigurationError
from budgetguard.threads import carry_into_threads

if TYPE_CHECKING:
    from budgetguard.calls import Call
    from budgetguard.holds import Charge

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """Hold one `with` in the chain of those around us.

    Attributes:
        owner: what was entered.
        user: who pays from here inwards; None leaves that as it is.
        run: the charge of the run that begins here, if one does.
        keeper: whose run it is.
        tags: labels that begin here.
        outer: the link around this one.
    """

    owner: object
    user: str | None
    run: Charge | None
    keeper: object | None
    tags: tuple[str, ...]
    outer: Link | None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Hold one guarded call that is under way, for the calls made inside it."""

    call: Call
    outer: Frame | None


class _Current(ContextVarsRegistry):  # type: ignore[misc]  # contextvars-extras has no usable hints
    _registry_allocate_on_setattr = False

    link: Link | None = None
    frame: Frame | None = None


_current = _Current()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Hold what is current at one moment, to be made current elsewhere."""

    link: Link | None
    frame: Frame | None


def current_user() -> str | None:
    """Return the user set by the innermost `budget_user` around us, or None."""
    link = _current.link
    while link is not None and link.user is None:
        link = link.outer
    return None if link is None else link.user


def current_tags() -> tuple[str, ...]:
    """Return the tags of every `budget_tags` around us, outermost first, each once."""
    found: list[tuple[str, ...]] = []
    link = _current.link
    while link is not None:
        if link.tags:
            found.append(link.tags)
        link = link.outer
    return tuple(dict.fromkeys(tag for tags in reversed(found) for tag in tags)) if found else ()


def current_runs(keeper: object) -> tuple[Charge, ...]:
    """Return the charges of a bookkeeper's runs around us, innermost first, each once."""
    runs: dict[str, Charge] = {}
    link = _current.link
    while link is not None:
        if link.run is not None and link.keeper is keeper:
            runs.setdefault(link.run.account, link.run)
        link = link.outer
    return tuple(runs.values())


def calls_around(keeper: object) -> tuple[Call, ...]:
    """Return the calls of one bookkeeper that we are inside, innermost first."""
    calls = []
    frame = _current.frame
    while frame is not None:
        if frame.call.keeper is keeper:
            calls.append(frame.call)
        frame = frame.outer
    return tuple(calls)


def enter_frame(call: Call) -> Frame:
    """Begin a guarded call: calls made from here on are inside it."""
    carry_into_threads(surroundings, within)
    frame = Frame(call, _current.frame)
    _current.frame = frame
    return frame


def leave_frame(frame: Frame) -> None:
    """End a guarded call; in another context than it began in, there is nothing to end."""
    if _current.frame is frame:
        _current.frame = frame.outer


def enter_link(
    owner: object,
    *,
    user: str | None = None,
    run: Charge | None = None,
    keeper: object = None,
    tags: tuple[str, ...] = (),
) -> None:
    """Add a link for `owner`; without a user it leaves the user as it is."""
    carry_into_threads(surroundings, within)
    _current.link = Link(owner, user, run, keeper, tags, _current.link)


def leave_link(owner: object) -> None:
    """Take out the innermost link of `owner`, wherever in the chain it now is."""
    _current.link = _without(_current.link, owner)


def _without(link: Link | None, owner: object) -> Link | None:
    above: list[Link] = []
    here = link
    while here is not None and here.owner is not owner:
        above.append(here)
        here = here.outer
    if here is None:
        return link
    rest = here.outer
    for one in reversed(above):
        rest = replace(one, outer=rest)
    return rest


def surroundings() -> Surroundings | None:
    """Return what is current, or None if nothing is."""
    link, frame = _current.link, _current.frame
    return None if link is None and frame is None else Surroundings(link, frame)


def within(carried: Surroundings | None, call: Callable[[], Any]) -> Any:
    """Call something with `carried` current (nothing, if None), and put back what was."""
    before = _current.link, _current.frame
    _current.link, _current.frame = (None, None) if carried is None else (carried.link, carried.frame)
    try:
        return call()
    finally:
        _current.link, _current.frame = before


class Surrounding:
    """Be a `with`, an `async with` and a decorator, all of which mean the same.

    Subclasses say what entering and leaving does; one object may be entered many times, also at once.
    """

    def _enter(self) -> None:
        raise NotImplementedError

    def _leave(self) -> None:
        leave_link(self)

    def _again(self) -> Surrounding:
        """Return what one call of a decorated function enters."""
        return self

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __call__(self, function: F) -> F:
        if not callable(function) and not isinstance(function, classmethod | staticmethod):
            raise ConfigurationError(f"{type(self).__name__} decorates functions, and {function!r} is none")
        return cast(F, wrapt.FunctionWrapper(function, self._around))

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
                with self:
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
            with self:
                generator.close()

    async def _astep(self, generator: Any) -> AsyncIterator[Any]:
        sent: Any = None
        thrown: BaseException | None = None
        try:
            while True:
                with self:
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
            with self:
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

    def _enter(self) -> None:
        enter_link(self, user=self.user)


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

    def _enter(self) -> None:
        enter_link(self, tags=self.tags)
