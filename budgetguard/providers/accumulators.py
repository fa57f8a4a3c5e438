"""Add up what a streamed answer says of its own cost, chunk by chunk, and count the text that it shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from budgetguard.core.usage import Reported
from budgetguard.providers.answers import reported
from budgetguard.providers.json import field, items, parsed
from budgetguard.tokens.text import SLICE, count_text, encoding_for

Slot: TypeAlias = tuple[object, ...]

_COUNT_FROM: Final = 200
# Where an answer's text has more bytes than this to each token that it reports, it is counted.
_MOST_BYTES_A_TOKEN: Final = 8
_FREE_BYTES: Final = 128
# Other models' tokens are not ours: a report is not believed that is far below what we count.
_MOST_TIMES: Final = 2
_FREE_TOKENS: Final = 16
_KINDS: Final = ("content", "refusal", "reasoning_content", "reasoning")
_PLAIN: Final = frozenset({"role", *_KINDS})


class StreamTally:
    """Add up what a streamed chat completion (or legacy completion) has said so far.

    Usage may come at any time and more than once: it is merged, and text is counted until the end. Text is
    kept only until it is counted.

    Args:
        model: the model that was asked for; decides how text becomes tokens.

    Attributes:
        failed: it said that it failed.
    """

    def __init__(self, model: str = "") -> None:
        self._encoding = encoding_for(model)
        self._pieces: dict[Slot, list[str]] = {}
        self._characters = self._looked_at = self._looked = 0
        self._counted = 0
        self._seen = (0, 0), 0
        self._bytes = 0
        # Text came after the last usage, which then does not count it.
        self._went_on = False
        self._said = Reported(usage=None)
        self._names: tuple[object, ...] = ()
        self._begun: set[object] = set()
        self._finished: set[object] = set()
        self.failed = False
        self._told_last = False

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""
        return self._checked(self._said) if _tells(self._said) else None

    @property
    def model(self) -> str | None:
        """The model that answers, as it says, or None as long as it has not."""
        return self._said.model

    @property
    def ended(self) -> bool:
        """Whether every choice has said why it ended, so that nothing but usage is to come."""
        return bool(self._finished) and self._finished >= self._begun

    @property
    def told(self) -> bool:
        """Whether what it reported is of the whole answer: it came with the end, or after."""
        return self._told_last and self.ended

    @property
    def nears_end(self) -> bool:
        """Whether the end may be near enough to wait for it, once nobody reads any more."""
        return self.ended

    def feed(self, chunk: object) -> None:
        """Take one chunk: an SDK object or a mapping."""
        for choice in items(field(chunk, "choices")):
            index = field(choice, "index")
            said = field(choice, "delta")
            if type(said) is dict and said.keys() <= _PLAIN:  # as nearly all are
                for kind in said:
                    if kind != "role":
                        self._keep((index, kind), said[kind])
                self._keep((index, "text"), field(choice, "text"))
            else:
                for slot, text in _texts_of_choice(choice, "delta"):
                    self._keep(slot, text)
            index = index if isinstance(index, int) else 0
            self._begun.add(index)
            if field(choice, "finish_reason") is not None:
                self._finished.add(index)
        self.failed = self.failed or field(chunk, "error") is not None
        if field(chunk, "usage") is None and field(chunk, "x_groq") is None:
            self._take_names(chunk)
        else:
            self._merge(reported(chunk))

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

    def _take_names(self, chunk: object) -> None:
        # The same with nearly every chunk.
        names = field(chunk, "model"), field(chunk, "service_tier"), field(chunk, "id")
        if names != self._names:
            self._names = names
            self._merge(reported(chunk))

    def _merge(self, said: Reported) -> None:
        self._said = self._said.merged(said)
        if said.usage is not None:
            self._went_on = False
            self._told_last = self.ended

    def _checked(self, said: Reported) -> Reported:
        """Return a report with the tokens that were seen, where it may fall short of them."""
        if not _may_fall_short(said, self._bytes, went_on=self._went_on):
            return said
        return replace(said, seen=_believed(said, self.seen_tokens(), went_on=self._went_on))

    def _keep(self, slot: Slot, text: object) -> None:
        if isinstance(text, str) and text:
            self._pieces.setdefault(slot, []).append(text)
            self._characters += len(text)
            self._bytes += _size(text)
            self._went_on = True
            if self._characters >= SLICE:
                self._count_pieces()

    def _count_pieces(self) -> None:
        self._counted += self._uncounted()
        self._pieces = {}
        self._characters = self._looked_at = self._looked = 0

    def _uncounted(self) -> int:
        return sum(count_text("".join(pieces), self._encoding) for pieces in list(self._pieces.values()))


def with_seen(said: Reported, answer: object, model: str) -> Reported:
    """Return what a whole answer reports with the tokens of its text, where its usage falls short of them.

    Args:
        said: what it reports.
        answer: an SDK object, a mapping, or the JSON text of one.
        model: decides how text becomes tokens.
    """
    if said.pending:
        return said
    return with_texts(said, (text for _slot, text in _texts_of(parsed(answer))), model)


def with_texts(said: Reported, pieces: Iterable[object], model: str) -> Reported:
    """Return what an answer reports with the tokens of its texts, where its usage falls short of them."""
    texts = [text for text in pieces if isinstance(text, str) and text]
    if not _may_fall_short(said, sum(map(_size, texts)), went_on=False):
        return said
    encoding = encoding_for(model)
    seen = sum(count_text(text, encoding) for text in texts)
    return replace(said, seen=_believed(said, seen, went_on=False))


def is_only_an_error(answer: object) -> bool:
    """Whether an answer, or the JSON text of one, is an error and nothing else, whatever its status says."""
    if isinstance(answer, bytes | bytearray) and answer.lstrip()[:1] not in (b"{", b"["):
        return False  # such as a recording
    answer = parsed(answer)
    if isinstance(answer, list) and len(answer) == 1:
        (answer,) = answer
    if not field(answer, "error") and field(answer, "object") != "error":
        return False
    # A response and a job that failed say so in their status, and may have cost something.
    return not any(field(answer, name) for name in _OF_ANSWERS) and not _counts_any(field(answer, "usage"))


_OF_ANSWERS: Final = ("choices", "output", "data", "status", "text")


def _counts_any(usage: object) -> bool:
    found = reported({"usage": usage})
    return bool(found.billed or found.total or (found.usage and any(found.usage.units.values())))


def is_api_error(answer: object) -> bool:
    """Whether an answer of any function is the error of an API, with what an API's error says."""
    error = field(answer, "error")
    is_told = field(error, "message") is not None or field(error, "code") is not None
    return isinstance(answer, Mapping) and is_told and is_only_an_error(answer)


def _tells(said: Reported) -> bool:
    return said.usage is not None or said.total > 0 or said.billed is not None


def _may_fall_short(said: Reported, size: int, *, went_on: bool) -> bool:
    written = 0 if said.usage is None else said.usage.output_tokens
    if went_on or not written:
        return size > 0
    return size > _MOST_BYTES_A_TOKEN * written + _FREE_BYTES


def _believed(said: Reported, seen: int, *, went_on: bool) -> int:
    """Return the tokens seen if they count rather than the report, else 0."""
    written = 0 if said.usage is None else said.usage.output_tokens
    least = written if went_on or not written else _MOST_TIMES * written + _FREE_TOKENS
    return seen if seen > least else 0


def _texts_of(answer: object) -> Iterator[tuple[Slot, object]]:
    for choice in items(field(answer, "choices")):
        yield from _texts_of_choice(choice, "message")
    for number, item in enumerate(items(field(answer, "output"))):
        if field(item, "role") not in (None, "assistant"):
            continue  # a compaction keeps what was asked
        for name in ("name", "arguments", "input", "code"):
            yield (number, name), field(item, name)
        for name in ("content", "summary"):
            for part in items(field(item, name)):
                yield (number, name), field(part, "text")
                yield (number, name), field(part, "refusal")


def _texts_of_choice(choice: object, name: str) -> Iterator[tuple[Slot, object]]:
    index = field(choice, "index")
    yield (index, "text"), field(choice, "text")
    said = field(choice, name)
    if said is None:
        return
    for kind in _KINDS:
        yield (index, kind), field(said, kind)
    yield (index, "audio"), field(field(said, "audio"), "transcript")
    calls = list(items(field(said, "tool_calls")))
    if (older := field(said, "function_call")) is not None:
        calls.append({"index": "function_call", "function": older})
    for call in calls:
        for kind in ("function", "custom"):
            function = field(call, kind)
            for part in ("name", "arguments", "input"):
                yield (index, "call", field(call, "index"), part), field(function, part)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
