"""Read what an OpenAI-shaped answer says of its own cost: whole answers, and streams chunk by chunk."""

from __future__ import annotations

from typing import Any, Final

from budgetguard.adapters.fields import count, field, items, parsed, text
from budgetguard.counting.tokens import SLICE, count_text, encoding_for
from budgetguard.usage import Reported, Usage

# (part in the answer, genai-prices unit). Predicted tokens are not here: accepted and rejected ones are
# already inside the output total. Text parts are not here either: they are what is left of the total.
_INPUT_PARTS: Final = (
    ("cached_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("audio_tokens", "input_audio_tokens"),
    ("image_tokens", "input_image_tokens"),
)
_OUTPUT_PARTS: Final = (
    ("reasoning_tokens", "output_reasoning_tokens"),
    ("audio_tokens", "output_audio_tokens"),
)


def reported(answer: object) -> Reported:
    """Read an answer's usage, model, service tier and id.

    Chat, completions and embeddings count `prompt_tokens` and `completion_tokens`, responses count
    `input_tokens` and `output_tokens`; both are read. What is missing, null or no number counts as absent,
    and fields that nobody knows yet are passed over.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    answer = parsed(answer)
    return Reported(
        usage=_usage(field(answer, "usage")),
        model=text(field(answer, "model")),
        tier=text(field(answer, "service_tier")),
        request_id=text(field(answer, "id")),
    )


def _usage(usage: object) -> Usage | None:
    if usage is None:
        return None
    total_in = _first_count(usage, "prompt_tokens", "input_tokens")
    total_out = _first_count(usage, "completion_tokens", "output_tokens")
    if total_in is None and total_out is None:
        return None
    total = count(field(usage, "total_tokens"))
    if total_out is None and total is not None and total_in is not None:
        total_out = max(0, total - total_in)
    if total_in is None and total is not None and total_out is not None:
        total_in = max(0, total - total_out)
    units = {"input_tokens": total_in or 0, "output_tokens": total_out or 0}
    details_in = _first(usage, "prompt_tokens_details", "input_tokens_details")
    details_out = _first(usage, "completion_tokens_details", "output_tokens_details")
    for details, parts in ((details_in, _INPUT_PARTS), (details_out, _OUTPUT_PARTS)):
        if details is not None:
            for name, unit in parts:
                units[unit] = count(field(details, name)) or 0
    if (cached := field(details_in, "cached_tokens_details")) is not None:
        units["cache_audio_read_tokens"] = count(field(cached, "audio_tokens")) or 0
    return Usage.of(**units)


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


def _first(value: object, *names: str) -> Any:
    return next((found for name in names if (found := field(value, name)) is not None), None)


def _first_count(value: object, *names: str) -> int | None:
    return next((found for name in names if (found := count(field(value, name))) is not None), None)
