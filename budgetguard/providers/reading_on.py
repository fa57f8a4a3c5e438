"""Read a stream on to its end when that was announced: no longer than a moment, and no more than a little.

What a stream cost comes after its last text, and programs leave at the last text. Most often it has arrived
by then. A read that may block for as long as the client's timeout is not begun: where it cannot be told that
bytes are there, nothing is read.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

# Seconds, for each stream in all.
_PATIENCE: Final = 1.0
_MOST_BYTES: Final = 65_536


class SyncReader:
    """What reads on where the next bytes are there, or come soon.

    Args:
        source: the iterator of a body.
        stream: what it was made of.
        network: the connection that the body comes from, None if from none.

    Attributes:
        error: what broke off the reading; nothing more comes.
    """

    def __init__(self, source: Iterator[bytes], stream: Any, network: Any) -> None:
        self._source = source
        self._stream = stream
        self._network = network
        self._left = _PATIENCE
        self.error: Exception | None = None

    def read_on(self, feed: Callable[[bytes], bytes], wanted: Callable[[], bool]) -> bytes:
        """Feed what comes as long as it is wanted, and return what `feed` returned."""
        kept, read, began = b"", 0, time.monotonic()
        until = began + self._left
        try:
            while wanted() and read < _MOST_BYTES and self._is_ready(until):
                data = next(self._source, None)
                if data is None:
                    break
                read += len(data)
                kept += feed(data)
        except Exception as error:  # noqa: BLE001 - it is raised after what came before it
            self.error = error
        self._left -= time.monotonic() - began
        return kept

    def _is_ready(self, until: float) -> bool:
        connection = self._connection()
        if connection is None:
            return False
        sock = self._network.get_extra_info("socket")
        return sock is not None and (_has_chunk(connection) or _is_readable(sock, until))

    def _connection(self) -> Any:
        """Return what h11 knows of the connection, None if it is another protocol's or nobody's."""
        if self._network is None:
            return None
        inner = self._stream
        for _ in range(_DEEPEST):
            if (found := getattr(inner, "_h11_state", None)) is not None:
                return found
            inner = next((one for name in _INSIDE if (one := getattr(inner, name, None)) is not None), None)
        return None


# How httpx and httpcore wrap the stream of a connection.
_INSIDE: Final = ("_stream", "_httpcore_stream", "_connection")
_DEEPEST: Final = 10


def _has_chunk(connection: Any) -> bool:
    """Whether bytes of the body were received already, and are only to be handed on."""
    received: bytes = connection.trailing_data[0]
    _size, end, data = received.lstrip(b"\r\n").partition(b"\r\n")
    return bool(end and data)


def _is_readable(sock: Any, until: float) -> bool:
    pending: Callable[[], int] | None = getattr(sock, "pending", None)
    if pending is not None and pending():
        return True  # decrypted, and not yet taken
    seconds = max(0.0, until - time.monotonic())
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], seconds)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1_000))


class AsyncReader:
    """Iterate over a body, and read on in a task of its own, which is waited for no longer than a moment.

    On another event loop than asyncio's nothing is read on.

    Args:
        source: the async iterator of a body.
    """

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._ahead: asyncio.Task[bytes | None] | None = None
        self._left = _PATIENCE

    def __aiter__(self) -> AsyncReader:
        return self

    async def __anext__(self) -> bytes:
        if self._ahead is None:
            return await self._source.__anext__()
        await asyncio.wait([self._ahead])
        ahead, self._ahead = self._ahead, None
        data = ahead.result()
        if data is None:
            raise StopAsyncIteration
        return data

    async def read_on(self, feed: Callable[[bytes], bytes], wanted: Callable[[], bool]) -> bytes:
        """Feed what comes as long as it is wanted, and return what `feed` returned."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return b""
        kept, read, began = b"", 0, loop.time()
        until = began + self._left
        while wanted() and read < _MOST_BYTES:
            if self._ahead is None:
                self._ahead = loop.create_task(_next(self._source))
            await asyncio.wait([self._ahead], timeout=max(0.0, until - loop.time()))
            if not self._ahead.done() or self._ahead.cancelled() or self._ahead.exception() is not None:
                break
            data = self._ahead.result()
            if data is None:
                break
            self._ahead = None
            read += len(data)
            kept += feed(data)
        self._left -= loop.time() - began
        return kept

    async def stop(self) -> None:
        """Stop waiting."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        ahead.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not ahead.done():  # what it reads cannot be closed before
            try:
                await asyncio.wait([ahead])
            except asyncio.CancelledError as error:
                cancelled = error
        if not ahead.cancelled():
            ahead.exception()  # retrieved: nobody reads any more
        if cancelled is not None:
            raise cancelled


async def _next(source: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await source.__anext__()
    except StopAsyncIteration:
        return None
