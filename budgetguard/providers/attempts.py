"""Guard single attempts of clients with middleware, which may change a request, or send it more than once.

Middleware of the `anthropic` package runs for each attempt, inside `request`. So a request of such a client
passes `request` with a mark, and what is sent is guarded where each attempt is made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wrapt

from budgetguard.engine.call import GuardedCall
from budgetguard.engine.engine import Engine
from budgetguard.engine.outcomes import UNREADABLE, NotCharged
from budgetguard.providers.json import is_absent
from budgetguard.providers.sdk import ATTEMPT, SYNC
from budgetguard.providers.stainless import Mark, StainlessCall
from budgetguard.providers.streams import follow, is_read, read_before

if TYPE_CHECKING:
    from budgetguard.providers.hooking import RequestGuard


class ByAttempt(Mark):
    """The mark of a request whose attempts are guarded, one by one.

    Args:
        engine: whose books they go into.
        guard: guards them.
        theirs: the caller's own parser.
    """

    def __init__(self, engine: Engine, guard: RequestGuard, theirs: Callable[[Any], Any] | None) -> None:
        super().__init__(theirs)
        self.engine = engine
        self.guard = guard


class AttemptCall(StainlessCall):
    """One attempt of a request, which returns the HTTP response and the options that it was made with."""

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        self.receiving = False
        response = answer[0]
        if not response.is_success:
            self._ending = NotCharged(f"HTTP {response.status_code}")
        elif is_read(response):
            self._ending = read_before(response, self._reader_of(response, encoding="")) or UNREADABLE
        else:
            follow(response, self._reader_of(response), call)
            return answer
        return None


def has_middleware(client: Any) -> bool:
    """Whether a client's requests pass middleware of the program's."""
    return bool(getattr(client, "_middleware", ()))


def by_attempt(options: Any, engine: Engine, guard: RequestGuard) -> Any:
    """Return a copy of a request's options by which each of its attempts is guarded."""
    marked = copy.copy(options)
    theirs: Callable[[Any], Any] | None = options.post_parser
    marked.post_parser = ByAttempt(engine, guard, None if is_absent(theirs) else theirs)
    return marked


def guard_attempts(base: type) -> Callable[[], None]:
    """Guard the attempts that are marked for it, of clients below a class of the generator's.

    Returns what undoes it.
    """
    method = base.__dict__.get(ATTEMPT)
    if method is None:
        return lambda: None  # of clients that have no middleware
    wrapper = wrapt.FunctionWrapper(method, _attempted if base.__name__ == SYNC else _aattempted)
    setattr(base, ATTEMPT, wrapper)

    def undo() -> None:
        if base.__dict__.get(ATTEMPT) is wrapper:
            setattr(base, ATTEMPT, method)

    return undo


def _attempted(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    options = args[0] if args else kwargs["options"]
    mark = getattr(options, "post_parser", None)
    if not isinstance(mark, ByAttempt):
        return wrapped(*args, **kwargs)
    more = {name: value for name, value in kwargs.items() if name != "options"}
    return mark.guard.attempt(mark.engine, client, wrapped, options, more)


async def _aattempted(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    options = args[0] if args else kwargs["options"]
    mark = getattr(options, "post_parser", None)
    if not isinstance(mark, ByAttempt):
        return await wrapped(*args, **kwargs)
    more = {name: value for name, value in kwargs.items() if name != "options"}
    return await mark.guard.aattempt(mark.engine, client, wrapped, options, more)
