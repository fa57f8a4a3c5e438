"""Follow an answer that is still running, byte by byte, and finish its call exactly once.

The SDK's own objects stay as they are. What is replaced is the byte stream below them: a tee hands every
byte on and lets a `Watch` read along, whoever iterates: `Stream`, `iter_lines`, `read`, or nobody.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import cache, partial
from types import FrameType
from typing import Any, Final, Protocol

from budgetguard.adapters.shapes import ItemTally
from budgetguard.adapters.watches import EventWatch, Watch
from budgetguard.background import background
from budgetguard.calls import Call
from budgetguard.errors import BudgetExceededError
from budgetguard.flow import Work, finished
from budgetguard.request import Ending

# Code that may hold a lock which finishing a call needs.
_BOOKS: Final = (
    "budgetguard.bookkeeping",
    "budgetguard.calls",
    "budgetguard.events",
    "budgetguard.pricing.book",
    "budgetguard.stores",
    "budgetguard.counting.tokens",
)


class Finisher(Protocol):
    """What is told how an answer ended: a call, or whoever asks for the answer of an earlier one."""

    @property
    def blocking(self) -> bool:
        """Whether `finish` waits for I/O."""

    def finish(self, ending: Ending) -> None:
        """Book how it ended; never raises."""

    def finish_when_dropped(self, thing: object, ending: Callable[[], Ending]) -> Callable[[], bool]:
        """Have this finished in the background if a thing becomes garbage before; see `Call`."""


def follow(response: Any, watch: Watch, call: Finisher) -> None:
    """Put a tee under a response whose body is still to come; it finishes the call.

    Args:
        response: httpx's or httpx2's, sync or async.
        watch: reads along.
        call: finished once: when the body is over, breaks off, is closed, or is forgotten.
    """
    for base in type(response.stream).__mro__:
        if base.__name__ in _TEES:
            response.stream = _tee_of(base)(response.stream, watch, call)
            return
    raise TypeError(f"budgetguard cannot follow a response over {type(response.stream).__name__}")


def attach_stream(answer: Any, call: Call) -> Any | None:
    """Follow a chat's or a response's stream of an SDK's client that nobody guards, and return it as it is.

    None if it is no such stream, if it is over already, or if calls inside paid for it.
    """
    response = http_response(answer)
    if response is None or response.is_closed or call.delegated:
        return None
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        return None
    watch = EventWatch(
        ItemTally(call.request.model, call.projection.abandoned),
        hide_usage=False,
        projected_output=call.projection.output_tokens,
        encoding=response.headers.get("content-encoding", ""),
    )
    follow(response, watch, call)
    return answer


def http_response(answer: object) -> Any | None:
    """Return the httpx response behind what a client returned, or None."""
    for name in ("", "http_response", "response"):
        found = getattr(answer, name, None) if name else answer
        if hasattr(found, "is_stream_consumed") and hasattr(found, "stream"):
            return found
    return None


class _Tee:
    """Hand on a byte stream, and finish a call with it."""

    def __init__(self, source: Any, watch: Watch, call: Finisher) -> None:
        self._source = source
        self._watch = watch
        self._call = call
        # Taken by whoever finishes first; what is to be done if that is nobody must not keep the tee alive.
        self._take = call.finish_when_dropped(self, partial(watch.ending, None))

    def _extension(self) -> Callable[[], None] | None:
        call = self._call
        if not isinstance(call, Call) or call.output_held is None:
            return None
        seen = self._watch.seen_beyond(call.output_held)
        return None if seen is None else partial(call.extend, seen)

    def __getattr__(self, name: str) -> Any:
        # Such as `elapsed`, which a response reads from its stream.
        return getattr(object.__getattribute__(self, "_source"), name)


class _SyncTee(_Tee):
    def __iter__(self) -> Iterator[bytes]:
        watch = self._watch
        try:
            for data in self._source:
                kept = watch.feed(data)
                if (extend := self._extension()) is not None:
                    extend()
                if kept:
                    if watch.over:
                        self._finish(None)
                    yield kept
        except GeneratorExit:
            raise  # close() follows
        except BaseException as error:
            if isinstance(error, BudgetExceededError):
                self._source.close()
            self._finish(error)
            raise
        kept = watch.end()
        self._finish(None)
        if kept:
            yield kept

    def close(self) -> None:
        try:
            self._source.close()
        finally:
            self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        if not self._take():
            return
        if _keeping_books():
            background.put(partial(_finish, self._watch, self._call, error))
        else:
            _finish(self._watch, self._call, error)


class _AsyncTee(_Tee):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        watch = self._watch
        source = self._source.__aiter__()
        try:
            async for data in source:
                kept = watch.feed(data)
                if (extend := self._extension()) is not None:
                    await finished(Work(extend, self._call.blocking))
                if kept:
                    if watch.over:
                        await self._finish(None)
                    yield kept
        except GeneratorExit:
            raise  # aclose() follows
        except BaseException as error:
            if isinstance(error, BudgetExceededError):
                await self._source.aclose()
            await self._finish(error)
            raise
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()
        kept = watch.end()
        await self._finish(None)
        if kept:
            yield kept

    async def aclose(self) -> None:
        try:
            await self._source.aclose()
        finally:
            await self._finish(None)

    async def _finish(self, error: BaseException | None) -> None:
        if not self._take():
            return
        finish = partial(_finish, self._watch, self._call, error)
        try:
            await finished(Work(finish, self._call.blocking))
        except GeneratorExit:  # the task is being thrown away, and may not wait for anything
            background.put(finish)
            raise


_TEES: Final[dict[str, type[_Tee]]] = {"SyncByteStream": _SyncTee, "AsyncByteStream": _AsyncTee}


@cache
def _tee_of(base: type) -> type[_Tee]:
    tee = _TEES[base.__name__]
    return type(tee.__name__, (tee, base), {})


def _finish(watch: Watch, call: Finisher, error: BaseException | None) -> None:
    call.finish(watch.ending(error))


def _keeping_books() -> bool:
    """Whether this thread is in the middle of our own books.

    The garbage collector closes abandoned streams, and it runs anywhere: inside a store's lock too,
    where waiting for that lock would be forever.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith(_BOOKS):
            return True
        frame = frame.f_back
    return False
