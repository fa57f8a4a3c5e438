"""The OpenTelemetry hook, with the real SDK's readers: metrics of calls, and marks on the current span."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import Context
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from budgetguard import BudgetExceededError, ConfigurationError, Guard, budget_user
from budgetguard.events import Expired
from budgetguard.integrations import opentelemetry as ours
from budgetguard.integrations.opentelemetry import instrument
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import drain, record
from tests.provider.server import OpenAIServer, Reply

MODEL = "gpt-4o-mini"
SECRET = "a prompt that nobody may read"
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": MODEL,
}


class Telemetry:
    """Readers of what is told."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = tracers.get_tracer("test")

    def points(self, name: str) -> list[Any]:
        """Return a metric's points."""
        data = self._reader.get_metrics_data()
        found = [] if data is None else data.resource_metrics
        return [
            point
            for resource in found
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def one(self, name: str, **attributes: Any) -> Any:
        """Return the only point of a metric, or of those with these attributes."""
        points = self.points(name)
        (point,) = [one for one in points if attributes.items() <= dict(one.attributes).items()]
        return point

    def units(self) -> dict[str, str]:
        data = self._reader.get_metrics_data()
        assert data is not None
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        assert {scope.scope.name for scope in scopes} == {"budgetguard"}
        return {metric.name: metric.unit for scope in scopes for metric in scope.metrics}


@pytest.fixture
def told() -> Iterator[Telemetry]:
    found = Telemetry()
    yield found
    found.meters.shutdown()


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer(Reply("one two", prompt_tokens=1_000, completion_tokens=100)) as server:
        yield server


@pytest.fixture
def guard() -> Iterator[Guard]:
    made = Guard(store="memory://", project="p", spool=None)
    made.set_budget(1, user="alice")
    made.set_budget(0, user="broke")
    yield made
    made.close()


@pytest.fixture
def client(guard: Guard, provider: OpenAIServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as made:
        yield guard.wrap(made)


def ask(client: Any, **more: Any) -> Any:
    messages = [{"role": "user", "content": SECRET}]
    return client.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=200, **more)


# $0.15 and $0.60 a million tokens.
COST = 1_000 * 0.15e-6 + 100 * 0.6e-6


def test_a_call_is_told_as_metrics_by_the_conventions(told: Telemetry, guard: Guard, client: OpenAI) -> None:
    instrument(guard, meter_provider=told.meters)
    seen = record(guard)
    with budget_user("alice"):
        ask(client)
        list(ask(client, stream=True))
    for kind, count in (("input", 1_000), ("output", 100)):
        point = told.one("gen_ai.client.token.usage", **{"gen_ai.token.type": kind})
        assert dict(point.attributes) == {**CHAT, "gen_ai.token.type": kind}
        assert (point.sum, point.count) == (2 * count, 2)
        assert point.explicit_bounds == tuple(4**power for power in range(14))
    spend = told.one("budgetguard.spend")
    assert dict(spend.attributes) == {**CHAT, "budgetguard.outcome": "answered"}
    assert spend.value == pytest.approx(2 * COST)
    projected = told.one("budgetguard.projected")
    assert dict(projected.attributes) == CHAT
    assert projected.count == 2
    assert projected.sum == pytest.approx(float(2 * seen[0].cost))  # type: ignore[attr-defined]
    held = told.one("budgetguard.held")
    assert dict(held.attributes) == CHAT
    assert held.value == pytest.approx(0)
    assert told.units() == {
        "budgetguard.spend": "{USD}",
        "budgetguard.held": "{USD}",
        "budgetguard.projected": "{USD}",
        "gen_ai.client.token.usage": "{token}",
    }
    assert not told.points("budgetguard.refused")


def test_a_refusal_is_counted_by_the_kind_of_account(told: Telemetry, guard: Guard, client: OpenAI) -> None:
    instrument(guard, meter_provider=told.meters)
    with budget_user("broke"), pytest.raises(BudgetExceededError):
        ask(client)
    refused = told.one("budgetguard.refused")
    assert refused.value == 1
    assert dict(refused.attributes) == {**CHAT, "budgetguard.account.kind": "user"}
    assert told.one("budgetguard.projected").count == 1
    assert not told.points("budgetguard.spend")
    assert not told.points("budgetguard.held")


def test_what_is_held_is_seen_while_a_call_is_under_way(told: Telemetry, guard: Guard) -> None:
    gate = threading.Event()
    instrument(guard, meter_provider=told.meters)
    with OpenAIServer([Reply(gate=gate), Reply(status=400)]) as provider:
        with OpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as made, budget_user("alice"):
            client = guard.wrap(made)
            thread = threading.Thread(target=ask, args=(client,))
            thread.start()
            assert provider.wait_count(1)
            assert told.one("budgetguard.held").value == float(guard.balance("alice").held) > 0
            gate.set()
            thread.join()
            assert told.one("budgetguard.held").value == pytest.approx(0)
            with pytest.raises(Exception, match="400"):
                ask(client)
        assert told.one("budgetguard.held").value == pytest.approx(0)


def test_users_are_told_only_where_that_is_asked_for(told: Telemetry, guard: Guard, client: OpenAI) -> None:
    end = instrument(guard, meter_provider=told.meters)
    with budget_user("alice"), told.tracer.start_as_current_span("work"):
        ask(client)
    end()
    with budget_user("alice"):
        ask(client)  # nobody is told
    everything = str(told.points("budgetguard.spend")) + str(told.exporter.get_finished_spans()[0].to_json())
    assert "alice" not in everything
    assert told.one("budgetguard.spend").value == pytest.approx(COST)
    instrument(guard, meter_provider=told.meters, user=True)
    for user in ("alice", "broke"):
        with budget_user(user), told.tracer.start_as_current_span("work"):
            try:
                ask(client)
            except BudgetExceededError:
                continue
    assert told.one("budgetguard.spend", **{"user.id": "alice"}).value == pytest.approx(COST)
    (event,) = told.exporter.get_finished_spans()[-1].events[:1]
    assert event.attributes is not None
    assert event.attributes["budgetguard.account"] == "user:broke"
    assert SECRET not in everything + told.exporter.get_finished_spans()[-1].to_json()


def test_the_current_span_is_marked_with_sums_and_an_event_for_each_call(
    told: Telemetry, guard: Guard, client: OpenAI
) -> None:
    instrument(guard, meter_provider=told.meters)
    with budget_user("alice"), told.tracer.start_as_current_span("two calls"):
        ask(client)
        ask(client)
    with (
        budget_user("broke"),
        told.tracer.start_as_current_span("refused"),
        pytest.raises(BudgetExceededError),
    ):
        ask(client)
    two, refused = told.exporter.get_finished_spans()
    assert two.attributes == {"budgetguard.cost": pytest.approx(2 * COST), "budgetguard.calls": 2}
    assert [event.name for event in two.events] == ["budgetguard.settled"] * 2
    marks = dict(two.events[0].attributes or {})
    assert len(str(marks.pop("budgetguard.hold.id"))) == 32
    assert marks == {
        **CHAT,
        "budgetguard.cost": pytest.approx(COST),
        "budgetguard.outcome": "answered",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
    }
    assert refused.attributes == {"budgetguard.refused": True}
    marks = dict(refused.events[0].attributes or {})
    assert marks["budgetguard.account.kind"] == "user"
    assert marks["budgetguard.available"] == 0
    assert "budgetguard.account" not in marks


@pytest.mark.parametrize("store", ["memory://", "disk://"])
def test_async_calls_mark_the_span_that_is_current_in_their_task(
    told: Telemetry, provider: OpenAIServer, store: str, tmp_path: Any
) -> None:
    """Also where a store that waits for I/O is asked in another thread."""
    guard = Guard(store=store if store == "memory://" else f"{store}{tmp_path}", project="p", spool=None)
    guard.set_budget(1, user="alice")
    instrument(guard, meter_provider=told.meters)

    async def work(client: AsyncOpenAI, name: str, calls: int) -> None:
        with told.tracer.start_as_current_span(name):
            for _ in range(calls):
                await ask(client)

    async def main() -> None:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as made:
            client = guard.wrap(made)
            with budget_user("alice"):
                await asyncio.gather(work(client, "one", 1), work(client, "three", 3))

    asyncio.run(main())
    spans = told.exporter.get_finished_spans()
    counts = {span.name: (span.attributes or {})["budgetguard.calls"] for span in spans}
    assert counts == {"one": 1, "three": 3}
    guard.close()


def test_no_span_is_marked_and_no_token_counted_where_that_is_said(
    told: Telemetry, guard: Guard, client: OpenAI
) -> None:
    instrument(guard, meter_provider=told.meters, token_usage=False, spans=False)
    with budget_user("alice"), told.tracer.start_as_current_span("work"):
        ask(client)
        assert trace.get_current_span().is_recording()
    (span,) = told.exporter.get_finished_spans()
    assert not span.attributes
    assert not span.events
    assert not told.points("gen_ai.client.token.usage")
    assert told.one("budgetguard.spend").value == pytest.approx(COST)


def entered(guard: Guard) -> Any:
    """Begin a call that is not around the next one."""
    call = guard.call(model=MODEL, input_tokens=10, max_output_tokens=10, user="alice")
    Context().run(call.__enter__)
    return call


def test_what_expires_is_told_and_held_no_more(told: Telemetry) -> None:
    clock = FakeClock()
    guard = Guard(store="memory://", project="p", spool=None, clock=clock, hold_ttl="1m")
    guard.set_budget(1, user="alice")
    instrument(guard, meter_provider=told.meters)
    call = entered(guard)
    held = told.one("budgetguard.held").value
    clock.advance(61)
    with guard.call(model=MODEL, input_tokens=10, max_output_tokens=10, user="alice") as other:
        other.void()
    assert told.one("budgetguard.expired").value == pytest.approx(held)
    assert told.one("budgetguard.held").value == pytest.approx(0)
    call.settle((10, 1))
    call.__exit__(None, None, None)
    guard.close()


def test_calls_of_other_processes_and_other_operations_have_names(told: Telemetry, guard: Guard) -> None:
    """An expiry is found by whoever comes by; a cost may be booked without a hold."""
    instrument(guard, meter_provider=told.meters)
    guard.engine.hooks.emit(
        Expired(
            at=datetime.now(UTC),
            project="p",
            user="alice",
            model="claude-sonnet-4-5",
            hold_id="f" * 32,
            accounts=("user:alice",),
            held=Decimal("0.5"),
            booked=Decimal("0.25"),
        )
    )
    expired = told.one("budgetguard.expired")
    assert expired.value == 0.25
    assert expired.attributes["gen_ai.request.model"] == "claude-sonnet-4-5"
    guard.register_price("m", input=1, output=1)
    for endpoint, name in (("embeddings", "embeddings"), ("responses", "chat"), ("speech", "speech")):
        with guard.call(
            model="m", input_tokens=1, max_output_tokens=0, endpoint=endpoint, user="alice"
        ) as call:
            call.settle((1, 0))
        assert told.one("budgetguard.spend", **{"gen_ai.operation.name": name}).value


def test_calls_that_are_never_heard_of_again_are_forgotten(
    told: Telemetry, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "_MOST_KNOWN", 16)
    instrument(guard, meter_provider=told.meters)
    calls = [guard.call(model=MODEL, input_tokens=10, max_output_tokens=10, user="alice") for _ in range(40)]
    for call in calls:
        call.__enter__()
    each = float(calls[0].projection.cost)
    assert told.one("budgetguard.held").value <= 17 * each
    for call in calls:
        call.void()
        call.__exit__(None, None, None)
    drain()
    assert told.one("budgetguard.held").value == pytest.approx(0)


def test_a_guard_is_instrumented_once_and_bad_options_are_refused(told: Telemetry, guard: Guard) -> None:
    end = instrument(guard, meter_provider=told.meters)
    with pytest.raises(ConfigurationError, match="instrumented already"):
        instrument(guard, meter_provider=told.meters)
    end()
    with pytest.raises(ConfigurationError, match="user must be True or False, not 'alice'"):
        instrument(guard, user="alice")  # type: ignore[arg-type]
    instrument(guard, meter_provider=told.meters)()
