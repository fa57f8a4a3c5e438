"""Read an answer's bytes as they pass: server-sent events, added up, or a body in one piece."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import ClassVar, Final, TypeAlias

from budgetguard.core.usage import Reported
from budgetguard.engine.outcomes import Abandoned, Answered, NotCharged, Outcome, Unknown
from budgetguard.providers.answers import believed, byte_length, may_fall_short, warn_once
from budgetguard.providers.coding import Coding, coding_named
from budgetguard.tokens.text import SLICE, count_text, encoding_for

ReadBody: TypeAlias = Callable[[bytes], Reported | NotCharged]

# Characters that have to come before text is counted again.
_COUNT_FROM: Final = 200
# Two line ends in a row; the first is atomic, so that the two halves of one `\r\n` are not taken for two.
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?:\r\n|\n|\r)")
# What may be the first half of a `\r\n`; lines that end in `\r` alone end so twice.
_HALF_END: Final = re.compile(rb"\n\r\Z")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_LONGEST_END: Final = 4
# Inside a JSON string the quotes would be escaped, so this is always a key.
_NO_USAGE: Final = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*[,}])')


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


class UsageAccumulator(ABC):
    """What a stream's events have said so far of its cost.

    Attributes:
        part: the unit of what is seen, where it is no text.
        no_usage: what is logged where a whole stream reports nothing, of endpoints that always do.
        model: the model that answers, as it says, or None as long as it has not.
        failed: it said that it failed.
        ended: nothing but usage is to come.
        nears_end: the end may be near enough to wait for it, once nobody reads any more.
        told: what it reported is of the whole answer.
        unbilled: why nothing of it is billed, if so.
    """

    part: ClassVar[str | None] = None
    no_usage: ClassVar[str | None] = None
    failed: bool = False

    @property
    @abstractmethod
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""

    @abstractmethod
    def feed(self, chunk: object) -> None:
        """Take one event: an SDK object or a mapping."""

    @abstractmethod
    def seen_tokens(self) -> int:
        """Count the output tokens seen so far."""

    def seen_beyond(self, tokens: int) -> int | None:
        """Return `seen_tokens` if it is more than so many, else None; None of what is not priced as text."""
        return None

    @property
    def model(self) -> str | None:
        return None

    @property
    def ended(self) -> bool:
        return False

    @property
    def nears_end(self) -> bool:
        return self.ended

    @property
    def told(self) -> bool:
        return True

    @property
    def unbilled(self) -> str | None:
        return None


class TextAccumulator(UsageAccumulator):
    """What a stream of text has said so far.

    Usage may come at any time and more than once: it is merged, and text is counted until the end. Text is
    kept only until it is counted.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        self._encoding = encoding_for(model)
        self._pieces: dict[Hashable, list[str]] = {}
        self._characters = self._looked_at = self._looked = 0
        self._counted = 0
        self._seen = (0, 0), 0
        self._bytes = 0
        # Text came after the last usage, which then does not count it.
        self._went_on = False
        self._said = Reported(usage=None)
        self._begun: set[object] = set()
        self._finished: set[object] = set()
        self._told_last = False

    @property
    def reported(self) -> Reported | None:
        return self._checked(self._said) if _tells(self._said) else None

    @property
    def model(self) -> str | None:
        return self._said.model

    @property
    def ended(self) -> bool:
        # Every choice has said why it ended.
        return bool(self._finished) and self._finished >= self._begun

    @property
    def told(self) -> bool:
        # It came with the end, or after.
        return self._told_last and self.ended

    def seen_tokens(self) -> int:
        """Count the output tokens seen so far: text, refusals and tool calls of every choice."""
        # Changes nothing that feeding does: a stream that is thrown away may end in two threads at once.
        now = self._counted, self._characters
        at, seen = self._seen
        if at != now:
            seen = self._counted + self._uncounted()
            self._seen = now, seen
        return seen

    def seen_beyond(self, tokens: int) -> int | None:
        """Return `seen_tokens` if it is more than so many, else None; counts only where it may be."""
        # A token is hardly ever shorter than a character. The text is kept: in parts it would count as more.
        since = self._characters - self._looked_at
        if since < _COUNT_FROM or self._counted + self._looked + since <= tokens:
            return None
        self._looked_at = self._characters
        self._looked = self._uncounted()
        seen = self._counted + self._looked
        return seen if seen > tokens else None

    def _merge(self, said: Reported) -> None:
        self._said = self._said.merged(said)
        if said.usage is not None:
            self._went_on = False
            self._told_last = self.ended

    def _checked(self, said: Reported) -> Reported:
        """Return a report with the tokens that were seen, where it may fall short of them."""
        if not may_fall_short(said, self._bytes, went_on=self._went_on):
            return said
        return replace(said, seen=believed(said, self.seen_tokens(), went_on=self._went_on))

    def _keep(self, slot: Hashable, text: object) -> None:
        if isinstance(text, str) and text:
            self._pieces.setdefault(slot, []).append(text)
            self._characters += len(text)
            self._bytes += len(text) if text.isascii() else byte_length(text)
            self._went_on = True
            if self._characters >= SLICE:
                self._count_pieces()

    def _count_pieces(self) -> None:
        self._counted += self._uncounted()
        self._pieces = {}
        self._characters = self._looked_at = self._looked = 0

    def _uncounted(self) -> int:
        return sum(count_text("".join(pieces), self._encoding) for pieces in list(self._pieces.values()))


def _tells(said: Reported) -> bool:
    return said.usage is not None or said.total > 0 or said.billed is not None


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
        accumulator: what the events say, added up.
        hide_usage: take out of the stream what it has only because we asked for the usage.
        encoding: the response's `content-encoding`, or what undoes it.
        read: whole body -> what it reports, for a body that turns out to be no stream of events.
        complete: completes what was reported with what no answer counts.
    """

    def __init__(
        self,
        accumulator: UsageAccumulator,
        *,
        hide_usage: bool,
        encoding: str | Coding = "",
        read: ReadBody | None = None,
        complete: Callable[[Reported], Reported] = lambda said: said,
    ) -> None:
        self._accumulator = accumulator
        self._complete = complete
        self._hide = hide_usage
        self._read = read
        self._is_stream = read is None
        self._no_stream = b""
        self._coding = coding_named(encoding) if encoding else None
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
        return self._accumulator.seen_beyond(tokens)

    @property
    def awaits_usage(self) -> bool:
        said = self._accumulator
        return not self.over and (self.broken or said.ended) and not said.told

    @property
    def nears_end(self) -> bool:
        return not self.over and self._accumulator.nears_end and not self._accumulator.told

    def outcome(self, error: BaseException | None) -> Outcome:
        if self.over and not self._is_stream and self._read is not None:
            return _outcome(self._read(self._no_stream))
        return outcome_of_events(self._accumulator, over=self.over, complete=self._complete)

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
        lines = []
        for line in _LINE_END.split(event):
            if line.startswith(b"data:"):
                lines.append(line[5:].removeprefix(b" "))
        data = b"\n".join(lines)
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
        self._accumulator.feed(chunk)
        self.broken = self.broken or bool(chunk.get("error"))
        if not self._hide or "usage" not in chunk:
            return event
        if chunk["usage"] is None:
            return _NO_USAGE.sub(b"", event, count=1)
        return event if chunk.get("choices") or chunk.get("error") else b""


class LineReader(BodyReader):
    """A reader of a stream of JSON, a line for each event.

    Args:
        accumulator: what the events say, added up.
        encoding: the response's `content-encoding`, or what undoes it.
        complete: completes what was reported with what no answer counts.
    """

    def __init__(
        self,
        accumulator: UsageAccumulator,
        *,
        encoding: str | Coding = "",
        complete: Callable[[Reported], Reported] = lambda said: said,
    ) -> None:
        self._accumulator = accumulator
        self._complete = complete
        self._coding = coding_named(encoding) if encoding else None
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        plain = data if self._coding is None else self._coding.decode(data)
        *lines, self._pending = (self._pending + plain).split(b"\n")
        for line in lines:
            self._line(line)
        return data

    def end(self) -> bytes:
        self.over = True
        self._line(self._pending)
        self._pending = b""
        return b""

    def seen_beyond(self, tokens: int) -> int | None:
        return self._accumulator.seen_beyond(tokens)

    @property
    def awaits_usage(self) -> bool:
        said = self._accumulator
        return not self.over and said.ended and not said.told

    def outcome(self, error: BaseException | None) -> Outcome:
        return outcome_of_events(self._accumulator, over=self.over, complete=self._complete)

    def _line(self, line: bytes) -> None:
        try:
            event = json.loads(line) if line.strip() else None
        except ValueError:
            return
        if isinstance(event, dict):
            self._accumulator.feed(event)


class WholeReader(BodyReader):
    """A reader of an answer in one piece, whose usage is known when all of it was read.

    Args:
        read: whole body -> what it reports.
        encoding: the response's `content-encoding`, or what undoes it.
        most: bytes of the body that are kept for `read`, which gets a `Head` of a longer one; None is all.
    """

    def __init__(self, read: ReadBody, *, encoding: str | Coding = "", most: int | None = None) -> None:
        self._read = read
        self._coding = coding_named(encoding) if encoding else None
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


def outcome_of_events(
    events: UsageAccumulator, *, over: bool, complete: Callable[[Reported], Reported] = lambda said: said
) -> Outcome:
    """Return the outcome of a call whose stream is read no further.

    Args:
        events: what it has said, added up.
        over: whether it was read to its end.
        complete: completes what was reported with what no answer counts.
    """
    if events.unbilled is not None:
        return NotCharged(events.unbilled)
    said, part, failed = events.reported, events.part, events.failed
    if said is not None:
        said = complete(said)
        if said.pending or events.told:
            return Answered(said)
    seen = events.seen_tokens()
    if failed and said is None and not seen:
        return NotCharged("the answer was an error")
    if over and not failed:
        if said is None and events.no_usage is not None:
            warn_once(events.no_usage)
        # Whole: where it reports no usage, the projection stands in, unless more was seen.
        return Answered(said or Reported(usage=None, seen=seen, seen_as=part))
    return Abandoned(seen, part=part, reported=said, model=events.model)


def _outcome(said: Reported | NotCharged) -> Outcome:
    return said if isinstance(said, NotCharged) else Answered(said)
