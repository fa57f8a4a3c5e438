"""Read what an OpenAI-shaped answer says of its own cost."""

from __future__ import annotations

from typing import Any, Final

from budgetguard.adapters.fields import count, field, parsed, text
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
    and fields that nobody knows yet are passed over. A total that is absent is `unsaid`, and so is an input
    of 0 tokens: nobody asks without a prompt.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    answer = parsed(answer)
    usage = _usage(field(answer, "usage"))
    return Reported(
        usage=usage,
        model=text(field(answer, "model")),
        tier=text(field(answer, "service_tier")),
        request_id=text(field(answer, "id")),
        unsaid=frozenset() if usage is None else _unsaid(answer, usage),
    )


def _unsaid(answer: object, usage: Usage) -> frozenset[str]:
    told = field(answer, "usage")
    unsaid = set() if usage.input_tokens else {"input_tokens"}
    names = ("completion_tokens", "output_tokens", "total_tokens")
    # Embeddings have no output.
    if not usage.output_tokens and _first_count(told, *names) is None and field(answer, "data") is None:
        unsaid.add("output_tokens")
    return frozenset(unsaid)


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


def _first(value: object, *names: str) -> Any:
    return next((found for name in names if (found := field(value, name)) is not None), None)


def _first_count(value: object, *names: str) -> int | None:
    return next((found for name in names if (found := count(field(value, name))) is not None), None)
