"""What users put around calls: `budget_user`, `budget_tags`, and runs with a budget of their own."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from budgetguard.core.accounts import RUN, Balance, Budget, account_name, check_id
from budgetguard.core.holds import Charge
from budgetguard.core.labels import check_labels
from budgetguard.core.money import to_nanos, to_usd
from budgetguard.engine.decorated import Decorated
from budgetguard.engine.links import enter_link, leave_link, of_generators, used_in
from budgetguard.errors import ConfigurationError

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

F = TypeVar("F", bound=Callable[..., Any])


class Surrounding:
    """A `with`, an `async with` and a decorator, all of which mean the same.

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
        leave_link(self, used_in(sys._getframe(1)) if of_generators else None)

    async def __aenter__(self) -> Self:
        self._enter(used_in(sys._getframe(1)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave_link(self, used_in(sys._getframe(1)) if of_generators else None)

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
        labels: what else is known of this user, such as `team="red"`; see `budget_labels`. Inside another
            `budget_user` they do not hold.

    Raises:
        ConfigurationError: not text, empty, too long, or with control characters; no label.
    """

    def __init__(self, user: str, **labels: str) -> None:
        self.user = check_id(user, name="user")
        self.labels = _checked(labels)

    def __repr__(self) -> str:
        return f"budget_user({', '.join((repr(self.user), *_written(self.labels)))})"

    def _enter(self, frame: FrameType | None) -> None:
        enter_link(self, frame, user=self.user, labels=self.labels)


class budget_labels(Surrounding):
    """Label the guarded calls inside: by customer, feature, team, whatever budgets and reports are by.

    Use it as `with budget_labels(customer="acme"):`, as `async with`, or as a decorator. Inside another one
    both count, and of the same label the innermost. Budgets may be for labels (`set_budget(5,
    customer="acme")`), and are charged; labels are kept with the records of calls.

    Args:
        labels: name and value, such as `customer="acme"`. Names are of a-z, 0-9 and _; values 1 to 256
            printable characters.

    Raises:
        ConfigurationError: no label, a bad name or value, or one that every call has of itself.
    """

    def __init__(self, **labels: str) -> None:
        if not labels:
            raise ConfigurationError('budget_labels needs a label, such as budget_labels(customer="acme")')
        self.labels = _checked(labels)

    def __repr__(self) -> str:
        return f"budget_labels({', '.join(_written(self.labels))})"

    def _enter(self, frame: FrameType | None) -> None:
        enter_link(self, frame, labels=self.labels)


def _checked(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(check_labels(labels).items())


def _written(labels: tuple[tuple[str, str], ...]) -> Iterator[str]:
    return (f"{name}={value!r}" for name, value in labels)


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


class Run(Surrounding):
    """Cap what the calls inside spend together, in threads and tasks started inside as well.

    Use it as `with budgetguard.budget(0.50) as run:`, as `async with`, or as a decorator, where each call
    of the function is a run of its own. Runs nest: a call inside two is charged to both.

    Args:
        engine: whose books.
        limit: USD.
        account: of a run that has begun elsewhere; by default it is a new one.

    Raises:
        ConfigurationError: a bad limit.
    """

    def __init__(self, engine: Engine, limit: int | float | Decimal, *, account: str | None = None) -> None:
        self._engine = engine
        self._limit = to_nanos(limit, name="budget")
        self.account = account_name(RUN, os.urandom(8).hex()) if account is None else account
        # The account is made by the first hold on it, so that entering does no I/O.
        self._charge = Charge(self.account, budget=Budget(self._limit), ephemeral=True)

    def __repr__(self) -> str:
        return f"<run {self.account} of {self.limit} USD>"

    @property
    def limit(self) -> Decimal:
        """The run's limit, USD."""
        return to_usd(self._limit)

    @property
    def spent(self) -> Decimal:
        """What the run's calls have cost, USD."""
        balance = self._balance()
        return Decimal(0) if balance is None else balance.spent

    @property
    def held(self) -> Decimal:
        """What the run's calls under way have set aside, USD."""
        balance = self._balance()
        return Decimal(0) if balance is None else balance.held

    @property
    def available(self) -> Decimal:
        """limit - spent - held, USD."""
        balance = self._balance()
        return self.limit if balance is None else self.limit - balance.spent - balance.held

    def _balance(self) -> Balance | None:
        return self._engine.store.read(self.account)

    def _enter(self, frame: FrameType | None) -> None:
        enter_link(self, frame, run=self._charge, engine=self._engine)

    def _again(self) -> Run:
        return Run(self._engine, self.limit)
