"""Add up what a streamed answer says of its own cost, chunk by chunk."""

from __future__ import annotations

from typing import Final

from budgetguard.adapters.answers import reported
from budgetguard.adapters.fields import field, items
from budgetguard.counting.tokens import SLICE, count_text, encoding_for
from budgetguard.usage import Reported, Usage

_COUNT_FROM: Final = 200


class StreamTally:
    """Add up what a streamed chat completion (or legacy completion) has said so far.

    Text is kept only until it is counted, and dropped as soon as the provider's own count is there.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        self._encoding = encoding_for(model)
        self._pieces: dict[tuple[object, ...], list[str]] = {}
        self._characters = self._looked_at = self._looked = 0
        self._counted = 0
        self._usage: Usage | None = None
        self._model: str | None = None
        self._tier: str | None = None
        self._id: str | None = None

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""
        if self._usage is None:
            return None
        return Reported(self._usage, self._model, self._tier, self._id)

    def feed(self, chunk: object) -> None:
        """Take one chunk: an SDK object or a mapping."""
        said = reported(chunk)
        self._model = said.model or self._model
        self._tier = said.tier or self._tier
        self._id = said.request_id or self._id
        if said.usage is not None:
            # Some servers send the running total in every chunk: the last one counts.
            self._usage = said.usage
            self._pieces.clear()
        if self._usage is None:
            for choice in items(field(chunk, "choices")):
                self._take(choice)

    def seen_tokens(self) -> int:
        """Count the output tokens seen so far: text, refusals and tool calls of every choice."""
        self._count_pieces()
        return self._counted

    def seen_beyond(self, tokens: int) -> int | None:
        """Return `seen_tokens` if it is more than so many, else None; counts only where it may be."""
        # A token is hardly ever shorter than a character. The text is kept: in parts it would count as more.
        since = self._characters - self._looked_at
        if self.reported is not None or since < _COUNT_FROM or self._counted + self._looked + since <= tokens:
            return None
        self._looked_at = self._characters
        self._looked = sum(count_text("".join(pieces), self._encoding) for pieces in self._pieces.values())
        seen = self._counted + self._looked
        return seen if seen > tokens else None

    def _take(self, choice: object) -> None:
        index = field(choice, "index")
        self._keep((index, "text"), field(choice, "text"))
        delta = field(choice, "delta")
        if delta is None:
            return
        for name in ("content", "refusal", "reasoning_content", "reasoning"):
            self._keep((index, name), field(delta, name))
        self._keep((index, "audio"), field(field(delta, "audio"), "transcript"))
        calls = list(items(field(delta, "tool_calls")))
        if (older := field(delta, "function_call")) is not None:
            calls.append({"index": "function_call", "function": older})
        for call in calls:
            for kind in ("function", "custom"):
                function = field(call, kind)
                for name in ("name", "arguments", "input"):
                    self._keep((index, "call", field(call, "index"), name), field(function, name))

    def _keep(self, slot: tuple[object, ...], text: object) -> None:
        if isinstance(text, str) and text:
            self._pieces.setdefault(slot, []).append(text)
            self._characters += len(text)
            if self._characters >= SLICE:
                self._count_pieces()

    def _count_pieces(self) -> None:
        for pieces in self._pieces.values():
            self._counted += count_text("".join(pieces), self._encoding)
        self._pieces.clear()
        self._characters = self._looked_at = self._looked = 0
