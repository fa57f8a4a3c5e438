"""Follow an answer that is still running, byte by byte, and finish its call exactly once.

The SDK's own objects stay as they are. What is replaced is the byte stream below them: a tee hands every
byte on and lets a `BodyReader` read it, whoever iterates: `Stream`, `iter_lines`, `read`, or nobody.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import cache, partial
from typing import Any, Final, Protocol

from budgetguard.core.process import inside
from budgetguard.engine.background import background
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.flow import Work, finished
from budgetguard.engine.outcomes import Outcome
from budgetguard.errors import BudgetExceededError
from budgetguard.providers.answer_shapes import ItemAccumulator
from budgetguard.providers.answers import http_response
from budgetguard.providers.body import BodyReader, EventReader
from budgetguard.providers.coding import Coding, Undone, knows_coding
from budgetguard.providers.reading_on import AsyncReader, SyncReader


class Finisher(Protocol):
    """What is told how an answer ended: a call, or whoever asks for the answer of an earlier one."""

    @property
    def blocking(self) -> bool:
        """Whether `finish` waits for I/O."""

    def finish(self, outcome: Outcome) -> None:
        """Book how it ended; never raises."""

    def finish_when_dropped(self, thing: object, outcome: Callable[[], Outcome]) -> Callable[[], bool]:
        """Have this finished in the background if a thing becomes garbage before; see `GuardedCall`."""


def follow(response: Any, body: BodyReader, call: Finisher) -> None:
    """Put a tee under a response whose body is still to come; it finishes the call.

    Args:
        response: httpx's or httpx2's, sync or async.
        body: reads it.
        call: finished once: when the body is over, breaks off, is closed, or is forgotten.
    """
    bases = tuple(base for base in type(response.stream).__mro__ if base.__name__ in _TEES)
    if not bases:
        raise TypeError(f"budgetguard cannot follow a response over {type(response.stream).__name__}")
    response.stream = _tee_of(bases)(response, body, call)


def attach_stream(answer: Any, call: GuardedCall) -> Any | None:
    """Follow a chat's or a response's stream of an SDK's client that nobody guards, and return it as it is.

    None if it is no such stream, if it is over already, or if calls inside paid for it.
    """
    response = http_response(answer)
    if response is None or is_read(response) or call.delegated or not is_event_stream(response):
        return None
    encoding = coding_of(response, changes=False)
    body = EventReader(ItemAccumulator(call.request.model), hide_usage=False, encoding=encoding)
    follow(response, body, call)
    return answer


def stream_outcome(answer: object, model: str) -> Outcome | None:
    """Return the outcome of a call whose stream, of an unguarded client, was read before, or None."""
    response = http_response(answer)
    if response is None or not is_read(response) or not is_event_stream(response):
        return None
    return read_before(response, EventReader(ItemAccumulator(model), hide_usage=False))


def coding_of(response: Any, *, changes: bool) -> str | Coding:
    """Return the content encoding of a response, or what undoes it where it could not be done again.

    Args:
        response: httpx's or httpx2's; its body is still to come.
        changes: what passes is changed on its way, so that it is to be handed on without such an encoding.
    """
    encoding: str = response.headers.get("content-encoding", "")
    if knows_coding(encoding):
        return encoding
    plain, coded = (type(response)(200, headers=headers) for headers in ({}, {"content-encoding": encoding}))
    if changes:
        response._decoder = plain._get_content_decoder()
        del response.headers["content-encoding"]
    return Undone(coded._get_content_decoder())


def is_read(response: Any) -> bool:
    """Whether nothing more comes of a response: what it iterates over, if anything, it has already."""
    return bool(response.is_closed) or hasattr(response, "_content")


def is_event_stream(response: Any) -> bool:
    """Whether a response says that it is a stream of events."""
    kind: str = response.headers.get("content-type", "")
    return kind.strip().lower().startswith("text/event-stream")


def read_before(response: Any, body: BodyReader) -> Outcome | None:
    """Return the outcome of a call whose body was read before its caller could; None if it is not kept.

    An event hook has, or a transport that answers from memory. The SDK iterates over what was kept, so what
    the body takes out is taken out there. What was kept is decoded already.
    """
    content = getattr(response, "_content", None)
    if not isinstance(content, bytes):
        return None
    kept = body.feed(content) + body.end()
    if kept != content:
        response._content = kept
    return body.outcome(None)


class _Tee:
    """A byte stream that is handed on and finishes a call."""

    def __init__(self, response: Any, body: BodyReader, call: Finisher) -> None:
        self._source = response.stream
        # Not the response, which has this: whoever is forgotten is to go at once.
        self._network = response.extensions.get("network_stream")
        self._body = body
        self._call = call
        # Taken by whoever finishes first; what is to be done if that is nobody must not keep the tee alive.
        self._take = call.finish_when_dropped(self, partial(body.outcome, None))

    def _extension(self) -> Callable[[], None] | None:
        call = self._call
        if not isinstance(call, GuardedCall) or call.output_held is None:
            return None
        seen = self._body.seen_beyond(call.output_held)
        return None if seen is None else partial(call.extend, seen)

    def __getattr__(self, name: str) -> Any:
        # Such as `elapsed`, which a response reads from its stream.
        return getattr(object.__getattribute__(self, "_source"), name)


class _SyncTee(_Tee):
    _reader: SyncReader | None = None

    def __iter__(self) -> Iterator[bytes]:
        body = self._body
        source = iter(self._source)
        self._reader = reader = SyncReader(source, self._source, self._network)
        try:
            for data in source:
                kept = body.feed(data)
                if (extend := self._extension()) is not None:
                    extend()
                if body.awaits_usage:
                    # Whoever leaves at the end that is announced here leaves before the usage.
                    kept += reader.read_on(body.feed, lambda: body.awaits_usage)
                if kept:
                    if body.over or body.broken:
                        self._finish(None)
                    yield kept
                if reader.error is not None:
                    raise reader.error
        except GeneratorExit:
            raise  # close() follows
        except BaseException as error:
            if isinstance(error, BudgetExceededError):
                self._source.close()
            self._finish(error)
            raise
        kept = body.end()
        self._finish(None)
        if kept:
            yield kept

    def close(self) -> None:
        body, reader = self._body, self._reader
        try:
            if reader is not None and body.nears_end and _may_wait():
                reader.read_on(body.feed, lambda: body.nears_end)
        finally:
            try:
                self._source.close()
            finally:
                self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        if not self._take():
            return
        # The garbage collector closes forgotten streams, and does that anywhere.
        if inside.books:
            background.put(partial(_finish, self._body, self._call, error))
        else:
            _finish(self._body, self._call, error)


class _AsyncTee(_Tee):
    _areader: AsyncReader | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._body
        source = self._source.__aiter__()
        self._areader = reader = AsyncReader(source)
        try:
            async for data in reader:
                kept = body.feed(data)
                if (extend := self._extension()) is not None:
                    await finished(Work(extend, self._call.blocking))
                if body.awaits_usage:
                    kept += await reader.read_on(body.feed, lambda: body.awaits_usage)
                if kept:
                    if body.over or body.broken:
                        await self._afinish(None)
                    yield kept
        except GeneratorExit:
            raise  # aclose() follows
        except BaseException as error:
            if isinstance(error, BudgetExceededError):
                await self._source.aclose()
            await self._afinish(error)
            raise
        finally:
            await reader.stop()
            if isinstance(source, AsyncGenerator):
                await source.aclose()
        kept = body.end()
        await self._afinish(None)
        if kept:
            yield kept

    async def aclose(self) -> None:
        body, reader = self._body, self._areader
        try:
            if reader is not None:
                if body.nears_end and _may_wait():
                    await reader.read_on(body.feed, lambda: body.nears_end)
                await reader.stop()
        finally:
            try:
                await self._source.aclose()
            finally:
                await self._afinish(None)

    async def _afinish(self, error: BaseException | None) -> None:
        if not self._take():
            return
        finish = partial(_finish, self._body, self._call, error)
        try:
            await finished(Work(finish, self._call.blocking))
        except GeneratorExit:  # the task is being thrown away, and may not wait for anything
            background.put(finish)
            raise


_TEES: Final[dict[str, type[_Tee]]] = {"SyncByteStream": _SyncTee, "AsyncByteStream": _AsyncTee}


@cache
def _tee_of(bases: tuple[type, ...]) -> type[_Tee]:
    # Bytes in memory are a stream for both kinds of clients, so theirs is both.
    tees = tuple(_TEES[base.__name__] for base in bases)
    return type(tees[0].__name__, (*tees, *bases), {})


def _finish(body: BodyReader, call: Finisher, error: BaseException | None) -> None:
    call.finish(body.outcome(error))


def _may_wait() -> bool:
    """Whether whoever closes a stream may wait for its last bytes.

    Not while a generator is thrown away, since the garbage collector does that too, anywhere; nor while a
    program is cancelled or interrupted.
    """
    error = sys.exception()
    return error is None or isinstance(error, Exception)
