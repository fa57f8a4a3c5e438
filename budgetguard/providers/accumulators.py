"""What a streamed answer has said so far of its own cost, and the text that it shows, counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import ClassVar, Final, TypeAlias

from budgetguard.core.usage import Reported
from budgetguard.tokens.text import SLICE, count_text, encoding_for

Piece: TypeAlias = tuple[Hashable, object]
"""A text with the slot that it continues."""

_COUNT_FROM: Final = 200
# Where an answer's text has more bytes than this to each token that it reports, it is counted.
_MOST_BYTES_A_TOKEN: Final = 8
_FREE_BYTES: Final = 128
# Other models' tokens are not ours: a report is not believed that is far below what we count.
_MOST_TIMES: Final = 2
_FREE_TOKENS: Final = 16


class UsageAccumulator(ABC):
    """What a stream's events have said so far of its cost.

    Attributes:
        part: the unit of what is seen, where it is no text.
        model: the model that answers, as it says, or None as long as it has not.
        failed: it said that it failed.
        ended: nothing but usage is to come.
        nears_end: the end may be near enough to wait for it, once nobody reads any more.
        told: what it reported is of the whole answer.
    """

    part: ClassVar[str | None] = None
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
        if not _may_fall_short(said, self._bytes, went_on=self._went_on):
            return said
        return replace(said, seen=_believed(said, self.seen_tokens(), went_on=self._went_on))

    def _keep(self, slot: Hashable, text: object) -> None:
        if isinstance(text, str) and text:
            self._pieces.setdefault(slot, []).append(text)
            self._characters += len(text)
            self._bytes += len(text) if text.isascii() else _size(text)
            self._went_on = True
            if self._characters >= SLICE:
                self._count_pieces()

    def _count_pieces(self) -> None:
        self._counted += self._uncounted()
        self._pieces = {}
        self._characters = self._looked_at = self._looked = 0

    def _uncounted(self) -> int:
        return sum(count_text("".join(pieces), self._encoding) for pieces in list(self._pieces.values()))


def with_texts(said: Reported, pieces: Iterable[Piece], model: str) -> Reported:
    """Return what an answer reports with the tokens of its texts, where its usage falls short of them."""
    texts: list[str] = []
    size = 0
    for _slot, text in pieces:
        if isinstance(text, str) and text:
            texts.append(text)
            size += len(text) if text.isascii() else _size(text)
    if not _may_fall_short(said, size, went_on=False):
        return said
    encoding = encoding_for(model)
    seen = sum(count_text(text, encoding) for text in texts)
    return replace(said, seen=_believed(said, seen, went_on=False))


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


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
