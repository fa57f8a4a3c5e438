"""What the integrations share: whose guard, whose prices, and how an answer is booked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import budgetguard
from budgetguard.core.accounts import check_id
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.pricing.matching import provider_named
from budgetguard.providers.call_block import BudgetedCall
from budgetguard.providers.functions import CAPS
from budgetguard.providers.json import count

logger = logging.getLogger("budgetguard")

# What of a request costs, beside its input, by the names that OpenAI and others give it.
_COSTS: Final = frozenset(
    {
        "audio",
        "best_of",
        "function_call",
        "functions",
        "max_tool_calls",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "previous_response_id",
        "reasoning",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "thinking",
        "tool_choice",
        "tools",
        "web_search_options",
    }
)
_MORE_CAPS: Final = (*CAPS, "max_tokens_to_sample", "num_predict", "max_new_tokens")


class Target:
    """Whose guard an integration's calls go through, and what is said of all of them.

    Args:
        guard: None for the default guard, as it is at each call.
        user: who pays; None for the current user.
        tags: labels of the calls.

    Attributes:
        tags: as above, each checked.

    Raises:
        ConfigurationError: one of them cannot be right.
    """

    def __init__(self, guard: Guard | None, user: str | None, tags: str | Sequence[str]) -> None:
        if guard is not None and not isinstance(guard, Guard):
            raise ConfigurationError(
                f"guard must be a budgetguard.Guard, or None for the default one, not {type(guard).__name__}"
            )
        self._guard = guard
        self._user = None if user is None else check_id(user, name="user")
        labels = (tags,) if isinstance(tags, str) else tuple(tags)
        self.tags = tuple(check_id(tag, name="each tag") for tag in labels)

    @property
    def guard(self) -> Guard:
        """The guard of a call that is made now."""
        return budgetguard.default_guard() if self._guard is None else self._guard

    def call(self, **options: Any) -> BudgetedCall:
        """Return the block for one call; see `Guard.call`."""
        return self.guard.call(user=self._user, tags=self.tags, **options)


def costs(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a request's parameters that decide what it costs, beside its input and its cap."""
    return {name: value for name, value in parameters.items() if name in _COSTS and value is not None}


def cap_of(parameters: Mapping[str, Any]) -> int | None:
    """Return the cap on the output that a request's parameters set, by any name; None if they set none."""
    caps = (count(parameters.get(name)) for name in _MORE_CAPS)
    return next((cap for cap in caps if cap), None)


def listed_provider(name: object, others: Mapping[str, str]) -> str | None:
    """Return the price list's id of a provider by a framework's name for it; None if it has none.

    Args:
        name: the framework's.
        others: names of the framework that are the price list's under another name.
    """
    from genai_prices.data_snapshot import get_snapshot

    if not isinstance(name, str) or not name:
        return None
    found = provider_named(others.get(name, name))
    return found if any(one.id == found for one in get_snapshot().providers) else None


def book(call: BudgetedCall, answer: object, texts: Iterable[object] = ()) -> None:
    """Settle a call by its answer; where that tells no usage, by its text. Never raises.

    Args:
        call: the call.
        answer: the answer, or None if it is known to tell no usage.
        texts: what it says, where that cannot be read from the answer itself.
    """
    try:
        if answer is not None:
            try:
                call.settle(answer)
                return
            except ConfigurationError:
                logger.debug("budgetguard: an answer tells no usage; its text is counted")
        for piece in texts or (answer,):
            call.feed(piece)
        call.settle()
    except Exception:
        logger.exception("budgetguard: an answer could not be read; its projection is booked")


def whole_stream(call: BudgetedCall) -> None:
    """Settle a call by the stream that it was fed with, which is over. Never raises."""
    try:
        call.settle()
    except Exception:
        logger.exception("budgetguard: a stream could not be read; its projection is booked")
