"""Whatever a realtime server or its client says, nothing stays held, and nothing is booked twice."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgetguard.core.accounts import Budget
from budgetguard.core.money import NANOS_PER_USD
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetGuardError
from budgetguard.providers.openai.realtime.calls import Tariff
from budgetguard.providers.openai.realtime.session import RealtimeSession
from tests.adapters.books import USER, keeper_on

MODEL = "gpt-realtime"
TARIFF = Tariff("https://api.openai.com/v1/")
# Everything that a session reads of events, in values that no server should send and some that it does.
ODD: Any = [None, True, 5, -5, 1e99, "x", "item_1", [], [5], {}, {"id": "resp_1"}, {"id": 5}]
ODD += [{"id": "resp_1", "status": "cancelled"}, {"id": "resp_1", "usage": {"input_tokens": "9"}}]
ODD += [{"id": "resp_1", "usage": {"input_tokens": 9, "output_tokens": None, "of_tomorrow": {}}}]
ODD += [{"model": 5, "tools": 5, "audio": 5}, {"audio": {"input": {"turn_detection": {}}}}]
ODD += [{"audio": {"input": {"transcription": {"model": "whisper-1"}}}}, {"content": [5, None, {"type": 5}]}]
FIELDS = ["session", "item", "item_id", "response", "response_id", "delta", "error", "usage", "event_id"]
FIELDS += ["audio", "audio_start_ms", "audio_end_ms"]
SAID = [
    "session.created",
    "session.updated",
    "transcription_session.updated",
    "conversation.item.added",
    "conversation.item.deleted",
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.cleared",
    "input_audio_buffer.committed",
    "response.created",
    "response.done",
    "error",
    "conversation.item.input_audio_transcription.completed",
    "response.output_audio.delta",
    "conversation.item.input_audio_transcription.failed",
    "response.output_text.delta",
    "of.tomorrow",
]
ASKED = [
    "response.create",
    "session.update",
    "transcription_session.update",
    "conversation.item.create",
    "input_audio_buffer.append",
    "of.tomorrow",
]


def events(kinds: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    odd = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(ODD))
    return st.builds(lambda kind, more: {**more, "type": kind}, st.sampled_from(kinds), odd)


def say(session: RealtimeSession, event: dict[str, Any]) -> None:
    job, _ = session.incoming(event)
    if job is not None:
        job()


def ask(session: RealtimeSession, event: dict[str, Any], sent: bool = True) -> None:
    outgoing = session.outgoing(event)
    if outgoing is not None:
        outgoing.reserve()
        if not sent:
            outgoing.failed()


@pytest.mark.full
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("said"), events(SAID)),
            st.tuples(st.sampled_from(["asked", "not sent"]), events(ASKED)),
        ),
        max_size=12,
    )
)
def test_no_events_are_too_strange(tmp_path: Path, passed: list[tuple[str, dict[str, Any]]]) -> None:
    engine = keeper_on("memory", tmp_path)
    engine.store.set_budget(f"user:{USER}", Budget(limit=NANOS_PER_USD))
    with budget_user(USER):
        session = RealtimeSession(engine, MODEL, TARIFF)
        for way, event in passed:
            with contextlib.suppress(BudgetGuardError):  # refused aloud, and so not sent
                say(session, event) if way == "said" else ask(session, event, sent=way == "asked")
        session.over()
    balance = engine.store.read(f"user:{USER}")
    assert balance is not None
    assert balance.held_nanos == 0


@pytest.mark.parametrize("response", [{"id": "resp_1"}, {}], ids=["named", "nameless"])
def test_a_response_that_is_told_to_begin_twice_is_one(tmp_path: Path, response: dict[str, str]) -> None:
    engine = keeper_on("memory", tmp_path)
    engine.store.set_budget(f"user:{USER}", Budget(limit=NANOS_PER_USD))
    usage = {"input_tokens": 10, "output_tokens": 5}
    with budget_user(USER):
        session = RealtimeSession(engine, MODEL, TARIFF)
        ask(session, {"type": "response.create"})
        for _ in range(3):
            say(session, {"type": "response.created", "response": response})
        say(session, {"type": "response.done", "response": {**response, "usage": usage}})
        session.over()
    assert [record.state for record in engine.store.calls()] == ["settled"]


def test_sound_that_is_told_to_be_committed_twice_has_one_transcript(tmp_path: Path) -> None:
    engine = keeper_on("memory", tmp_path)
    engine.store.set_budget(f"user:{USER}", Budget(limit=NANOS_PER_USD))
    listening = {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}}
    with budget_user(USER):
        session = RealtimeSession(engine, MODEL, TARIFF)
        say(session, {"type": "session.created", "session": {"audio": listening}})
        for _ in range(2):
            ask(session, {"type": "input_audio_buffer.append", "audio": "AAAA" * 8_000})
            say(session, {"type": "input_audio_buffer.committed", "item_id": "item_1"})
        session.over()
    balance = engine.store.read(f"user:{USER}")
    assert balance is not None
    assert balance.held_nanos == 0
