"""OpenTelemetry: what calls cost, hold and use as metrics, and marks on the current span.

    instrument()  # the default guard, with the global meter provider

Names are those of the GenAI semantic conventions where they have one (`gen_ai.client.token.usage` and the
attributes). They have none for money, so that is under `budgetguard.`, in USD.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import budgetguard
from budgetguard.core.process import keep_newest
from budgetguard.errors import ConfigurationError
from budgetguard.events import CallEvent, Event, Expired, Held, Projected, Refused, Settled

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError(
        "budgetguard.integrations.opentelemetry needs OpenTelemetry: pip install 'budgetguard-ai[otel]'"
    ) from error

if TYPE_CHECKING:
    from budgetguard.guard import Guard

SCOPE: Final = "budgetguard"
"""The name of the instrumentation scope."""

# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
_TOKEN_BUCKETS: Final = tuple(4.0**power for power in range(14))
_USD_BUCKETS: Final = tuple(float(f"{one}e{power}") for power in range(-6, 2) for one in (1, 2, 5))
# What the conventions call genai-prices' providers, and our endpoints; others keep their names.
_PROVIDERS: Final[Mapping[str, str]] = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google": "gcp.gen_ai",
    "mistral": "mistral_ai",
    "x-ai": "x_ai",
}
_OPERATIONS: Final[Mapping[str, str]] = {
    "call": "chat",
    "compact": "chat",
    "completions": "text_completion",
    "function": "chat",
    "messages": "chat",
    "responses": "chat",
}
# Calls under way that are remembered.
_MOST_KNOWN: Final = 65_536


def instrument(
    guard: Guard | None = None,
    *,
    meter_provider: metrics.MeterProvider | None = None,
    user: bool = False,
    token_usage: bool = True,
    spans: bool = True,
) -> Callable[[], None]:
    """Tell OpenTelemetry what a guard's calls cost, hold and use.

    Args:
        guard: whose calls; the default guard's by default.
        meter_provider: of OpenTelemetry; the global one by default.
        user: add the user's id (`user.id`) to metrics: a series for each user.
        token_usage: record `gen_ai.client.token.usage`. Set it to False beside an instrumentation of your
            clients that records it too.
        spans: mark the current span.

    Returns:
        A function that ends it.

    Raises:
        ConfigurationError: the guard is instrumented already, which would count all twice; a bad option.
    """
    for name, value in (("user", user), ("token_usage", token_usage), ("spans", spans)):
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name} must be True or False, not {value!r}")
    guard = budgetguard.default_guard() if guard is None else guard
    if any(isinstance(hook, TelemetryHook) for hook, *_ in guard.engine.hooks.entries):
        raise ConfigurationError(
            f"{guard!r} is instrumented already: end that before, by calling what instrument returned"
        )
    meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
    hook = TelemetryHook(guard, meter, user=user, token_usage=token_usage, spans=spans)
    return guard.on(hook)


@dataclass(slots=True)
class _Seen:
    """What is known of a call under way.

    Attributes:
        provider: genai-prices' id of it.
        projected: USD, until it is recorded.
        held: USD that are set aside, and counted as held by these attributes.
        attributes: of the metric, when it was counted as held.
    """

    provider: str
    projected: Decimal | None = None
    held: Decimal = Decimal(0)
    attributes: Mapping[str, Any] | None = None


class TelemetryHook:
    """A hook for events; see `instrument`, which adds it to a guard.

    Args:
        guard: whose events it gets.
        meter: makes the instruments.
        user: see `instrument`.
        token_usage: see `instrument`.
        spans: see `instrument`.
    """

    def __init__(
        self, guard: Guard, meter: metrics.Meter, *, user: bool, token_usage: bool, spans: bool
    ) -> None:
        self._prices = guard.engine.prices
        self._with_user, self._with_tokens, self._with_spans = user, token_usage, spans
        self._known: dict[str, _Seen] = {}
        self._lock = threading.RLock()  # re-entrant: a signal handler may make calls
        self._spend = meter.create_counter(
            "budgetguard.spend", unit="{USD}", description="What calls have cost."
        )
        self._expired = meter.create_counter(
            "budgetguard.expired",
            unit="{USD}",
            description="What was booked for holds that expired. What is settled later is in spend, too.",
        )
        self._held = meter.create_up_down_counter(
            "budgetguard.held",
            unit="{USD}",
            description="What this process's calls under way have set aside.",
        )
        self._refused = meter.create_counter(
            "budgetguard.refused", unit="{call}", description="Calls that were not made for want of money."
        )
        self._projected = meter.create_histogram(
            "budgetguard.projected",
            unit="{USD}",
            description="What a call was projected to cost at most.",
            explicit_bucket_boundaries_advisory=_USD_BUCKETS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKEN_BUCKETS,
        )

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if isinstance(event, CallEvent):
            self._of_call(event)
        elif isinstance(event, Expired):
            known = self._forget(event.hold_id)
            attributes = self._base(event, known, None) if known is None else known.attributes
            self._expired.add(float(event.booked), attributes or self._base(event, known, None))

    def _of_call(self, event: CallEvent) -> None:
        if isinstance(event, Projected):
            with self._lock:
                self._known[event.hold_id] = _Seen(event.provider, event.cost)
                self._drop_oldest()
            return
        over = not isinstance(event, Held)
        known = self._forget(event.hold_id) if over else self._known.get(event.hold_id)
        attributes = self._base(event, known, event.endpoint)
        if known is not None and known.projected is not None:
            self._projected.record(float(known.projected), attributes)
            known.projected = None
        if isinstance(event, Held):
            self._count_held(event, known, attributes)
        elif isinstance(event, Refused):
            kind = event.account.partition(":")[0]
            self._refused.add(1, {**attributes, "budgetguard.account.kind": kind})
        elif isinstance(event, Settled):
            self._spend.add(float(event.cost), {**attributes, "budgetguard.outcome": event.outcome})
            self._count_tokens(event, attributes)
        if self._with_spans:
            _mark(event, attributes, with_user=self._with_user)

    def _base(self, event: Event, known: _Seen | None, endpoint: str | None) -> dict[str, Any]:
        if known is not None:
            provider = known.provider
        else:  # held by another process
            provider = self._prices.rates_if_known(event.model).provider if event.model else ""
        found = {
            "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
            "gen_ai.request.model": event.model,
        }
        if endpoint is not None:
            found["gen_ai.operation.name"] = _OPERATIONS.get(endpoint, endpoint)
        if self._with_user and event.user is not None:
            found["user.id"] = event.user
        return {name: value for name, value in found.items() if value}

    def _count_held(self, event: Held, known: _Seen | None, attributes: Mapping[str, Any]) -> None:
        if known is not None:
            known.held, known.attributes = event.amount, attributes
            self._held.add(float(event.amount), attributes)

    def _count_tokens(self, event: Settled, attributes: Mapping[str, Any]) -> None:
        if not self._with_tokens or event.usage is None:
            return
        for kind, count in (("input", event.usage.input_tokens), ("output", event.usage.output_tokens)):
            if count:
                self._tokens.record(count, {**attributes, "gen_ai.token.type": kind})

    def _forget(self, hold_id: str) -> _Seen | None:
        with self._lock:
            known = self._known.pop(hold_id, None)
        self._no_more_held(known)
        return known

    def _no_more_held(self, known: _Seen | None) -> None:
        if known is not None and known.held:
            self._held.add(-float(known.held), known.attributes)
            known.held = Decimal(0)

    def _drop_oldest(self) -> None:
        # Calls that another process settles are never heard of again.
        if len(self._known) > _MOST_KNOWN:
            oldest = [self._known[key] for key in list(self._known)[: _MOST_KNOWN // 8]]
            keep_newest(self._known, len(self._known) - len(oldest))
            for known in oldest:
                self._no_more_held(known)


def _mark(event: CallEvent, attributes: Mapping[str, Any], *, with_user: bool) -> None:
    """Mark the current span: with an event for the call, and with sums, for it may make several."""
    span = trace.get_current_span()
    if not span.is_recording() or not isinstance(event, Refused | Settled):
        return
    seen: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    more: dict[str, Any] = {"budgetguard.hold.id": event.hold_id}
    if isinstance(event, Refused):
        more |= {
            "budgetguard.account.kind": event.account.partition(":")[0],
            "budgetguard.projected": float(event.cost),
            "budgetguard.available": float(event.available),
            "budgetguard.unit": event.unit,
        }
        if with_user:
            more["budgetguard.account"] = event.account
        span.set_attribute("budgetguard.refused", True)
        span.add_event("budgetguard.refused", {**attributes, **more})
        return
    more |= {"budgetguard.cost": float(event.cost), "budgetguard.outcome": event.outcome}
    if event.usage is not None:
        more["gen_ai.usage.input_tokens"] = event.usage.input_tokens
        more["gen_ai.usage.output_tokens"] = event.usage.output_tokens
    # A sum of decimals, so that it does not drift.
    cost = Decimal(str(seen.get("budgetguard.cost", 0))) + event.cost
    span.set_attribute("budgetguard.cost", float(cost))
    span.set_attribute("budgetguard.calls", int(seen.get("budgetguard.calls", 0)) + 1)
    span.add_event("budgetguard.settled", {**attributes, **more})
