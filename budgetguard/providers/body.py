"""Read an answer's bytes as they pass: server-sent events, or a body in one piece."""

from __future__ import annotations

import json
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

from budgetguard.core.usage import Reported
from budgetguard.engine.provider_call import Abandoned, Answered, NotCharged, Outcome, Unknown
from budgetguard.providers.base import Tally

ReadBody: TypeAlias = Callable[[bytes], Reported | NotCharged]

# Two line ends in a row; the first is atomic, so that the two halves of one `\r\n` are not taken for two.
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?:\r\n|\n|\r)")
# What may be the first half of a `\r\n`; lines that end in `\r` alone end so twice.
_HALF_END: Final = re.compile(rb"\n\r\Z")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_LONGEST_END: Final = 4
# Inside a JSON string the quotes would be escaped, so this is always a key.
_NO_USAGE: Final = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*[,}])')
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}


class Head(bytes):
    """The beginning of a body.

    Attributes:
        size: how many bytes the whole body has.
    """

    size: int

    def __new__(cls, data: bytes, size: int) -> Head:
        made = super().__new__(cls, data)
        made.size = size
        return made


class BodyReader(ABC):
    """A reader of one answer's bytes, which are handed on.

    Attributes:
        over: the answer says itself that it is over, although its connection may still be open.
        broken: it has told an error, at which the SDK stops reading; older ones do not close what they read.
    """

    over: bool = False
    broken: bool = False

    @property
    def awaits_usage(self) -> bool:
        """Whether the end was announced, and nothing but what it cost is still to come."""
        return False

    @property
    def nears_end(self) -> bool:
        """Whether the end, and what it cost, may come soon."""
        return False

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """Take bytes as they were sent, and return what to hand on."""

    def seen_beyond(self, tokens: int) -> int | None:
        """Return the output tokens seen so far if they are known to be more than so many, else None."""
        return None

    @abstractmethod
    def end(self) -> bytes:
        """End the body, and return what is left to hand on."""

    @abstractmethod
    def outcome(self, error: BaseException | None) -> Outcome:
        """Return the call's outcome if its body is read no further, because of `error` if there was one."""


class EventReader(BodyReader):
    """A reader of server-sent events.

    Args:
        tally: adds up what the events say.
        hide_usage: take out of the stream what it has only because we asked for the usage.
        encoding: the response's `content-encoding`, or what undoes it.
        read: whole body -> what it reports, for a body that turns out to be no stream of events.
    """

    def __init__(
        self,
        tally: Tally,
        *,
        hide_usage: bool,
        encoding: str | Coding = "",
        read: ReadBody | None = None,
    ) -> None:
        self._tally = tally
        self._hide = hide_usage
        self._read = read
        self._is_stream = read is None
        self._no_stream = b""
        self._coding = _coding(encoding)
        self._pending = b""
        self._scanned = 0

    def feed(self, data: bytes) -> bytes:
        if self._coding is None:
            return self._events(data)
        plain = self._events(self._coding.decode(data))
        return self._coding.encode(plain) if self._hide else data

    def end(self) -> bytes:
        self.over = True
        rest, self._pending = self._pending, b""
        kept = self._event(rest)
        if not self._hide:
            return b""  # it was handed on as it came
        return kept if self._coding is None else self._coding.encode(kept) + self._coding.finish()

    def seen_beyond(self, tokens: int) -> int | None:
        # Tallies of sound and pictures have none: what they see is not priced as text.
        seen_beyond: Callable[[int], int | None] | None = getattr(self._tally, "seen_beyond", None)
        return None if seen_beyond is None else seen_beyond(tokens)

    @property
    def awaits_usage(self) -> bool:
        ended = self.broken or self._tally_says("ended")
        return not self.over and ended and not self._tally_says("told")

    @property
    def nears_end(self) -> bool:
        return not self.over and self._tally_says("nears_end") and not self._tally_says("told")

    def outcome(self, error: BaseException | None) -> Outcome:
        if self.over and not self._is_stream and self._read is not None:
            return _outcome(self._read(self._no_stream))
        tally, part = self._tally, getattr(self._tally, "part", None)
        said = tally.reported
        if said is not None and (said.pending or self._tally_says("told", default=True)):
            return Answered(said)
        seen, failed = tally.seen_tokens(), self._tally_says("failed")
        if failed and said is None and not seen:
            return NotCharged("the answer was an error")
        if self.over and not failed:
            # Whole: where it reports no usage, the projection stands in, unless more was seen.
            return Answered(said or Reported(usage=None, seen=seen, seen_as=part))
        return Abandoned(seen, part=part, reported=said, model=getattr(tally, "model", None))

    def _tally_says(self, name: str, *, default: bool = False) -> bool:
        return bool(getattr(self._tally, name, default))

    def _events(self, data: bytes) -> bytes:
        pending = self._pending + data
        kept: list[bytes] = []
        start, look = 0, self._scanned
        while (found := _EVENT_END.search(pending, look)) is not None:
            if found.end() == len(pending) and _HALF_END.search(found[0]):
                break  # its other half comes with the next read
            kept.append(self._event(pending[start : found.end()]))
            start = look = found.end()
        self._pending = pending[start:]
        # An end may lie across this read and the next.
        self._scanned = max(0, len(self._pending) - _LONGEST_END + 1)
        return b"".join(kept) if self._hide else data

    def _event(self, event: bytes) -> bytes:
        lines = [line[5:] for line in _LINE_END.split(event) if line.startswith(b"data:")]
        data = b"\n".join(line.removeprefix(b" ") for line in lines)
        if lines:
            self._is_stream = True
        elif not self._is_stream:
            self._no_stream += event
        if data.startswith(b"[DONE]"):
            self.over = True
            return event
        try:
            chunk = json.loads(data) if data else None
        except ValueError:
            return event  # whoever iterates is told by the SDK what is wrong with it
        if isinstance(chunk, list) and len(chunk) == 1:
            (chunk,) = chunk  # as some servers write their errors
        if not isinstance(chunk, dict):
            return event
        self._tally.feed(chunk)
        self.broken = self.broken or bool(chunk.get("error"))
        if not self._hide or "usage" not in chunk:
            return event
        if chunk["usage"] is None:
            return _NO_USAGE.sub(b"", event, count=1)
        return event if chunk.get("choices") or chunk.get("error") else b""


class WholeReader(BodyReader):
    """A reader of an answer in one piece, whose usage is known when all of it was read.

    Args:
        read: whole body -> what it reports.
        encoding: the response's `content-encoding`, or what undoes it.
        most: bytes of the body that are kept for `read`, which gets a `Head` of a longer one; None is all.
    """

    def __init__(self, read: ReadBody, *, encoding: str | Coding = "", most: int | None = None) -> None:
        self._read = read
        self._coding = _coding(encoding)
        self._parts: list[bytes] = []
        self._most = most
        self._kept = self._size = 0

    def feed(self, data: bytes) -> bytes:
        plain = data if self._coding is None else self._coding.decode(data)
        self._size += len(plain)
        kept = plain if self._most is None else plain[: max(0, self._most - self._kept)]
        if kept:
            self._kept += len(kept)
            self._parts.append(kept)
        return data

    def end(self) -> bytes:
        self.over = True
        return b""

    def outcome(self, error: BaseException | None) -> Outcome:
        parts, self._parts = self._parts, []
        if self.over:
            return _outcome(self._read(Head(b"".join(parts), self._size)))
        if error is not None:
            return Unknown(f"the answer broke off: {type(error).__name__}")
        # Read to the end or not, the provider was done with it.
        return Answered(Reported(usage=None))


def _outcome(said: Reported | NotCharged) -> Outcome:
    return said if isinstance(said, NotCharged) else Answered(said)


class Coding(Protocol):
    """Undo a content encoding, and do it again for what is handed on."""

    def decode(self, data: bytes) -> bytes:
        """Return bytes as they were before."""

    def encode(self, plain: bytes) -> bytes:
        """Return bytes as they are to be handed on."""

    def finish(self) -> bytes:
        """Return what ends them."""


class Undone:
    """Undo a content encoding for good.

    Args:
        decoder: httpx's or httpx2's, for any encoding that it knows.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def decode(self, data: bytes) -> bytes:
        plain = self._decoder.decode(data)
        return plain if isinstance(plain, bytes) else b"".join(plain)

    def encode(self, plain: bytes) -> bytes:
        return plain

    def finish(self) -> bytes:
        return b""


def knows_coding(encoding: str) -> bool:
    """Whether an encoding, by its name, can be undone and done again."""
    return encoding.strip().lower() in ("", "identity", *_WINDOW_BITS)


def _coding(encoding: str | Coding) -> Coding | None:
    return _Coding.named(encoding) if isinstance(encoding, str) else encoding


class _Coding:
    """Undo a content encoding, and do it again for what is handed on."""

    def __init__(self, window_bits: int) -> None:
        self._begun = False
        self._set(window_bits)

    def _set(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._decoder = zlib.decompressobj(window_bits)
        self._encoder = zlib.compressobj(wbits=window_bits)

    @classmethod
    def named(cls, encoding: str) -> _Coding | None:
        bits = _WINDOW_BITS.get(encoding.strip().lower())
        return None if bits is None else cls(bits)

    def decode(self, data: bytes) -> bytes:
        try:
            plain = self._decoder.decompress(data)
        except zlib.error:
            if self._begun or self._window_bits != zlib.MAX_WBITS:
                raise
            # Some servers send `deflate` without the zlib header that the standard asks for.
            self._set(-zlib.MAX_WBITS)
            plain = self._decoder.decompress(data)
        self._begun = True
        return plain

    def encode(self, plain: bytes) -> bytes:
        # Flushed, so that an event which is here is not held back until the next one.
        return self._encoder.compress(plain) + self._encoder.flush(zlib.Z_SYNC_FLUSH) if plain else b""

    def finish(self) -> bytes:
        return self._encoder.flush()
