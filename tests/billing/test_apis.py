"""Both cost APIs over a socket: pages, what is asked for, errors with their remedies, and no key shown."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import pytest

from budgetguard import ConfigurationError
from budgetguard.billing import Bill, anthropic_bill, openai_bill
from budgetguard.billing.bill import CODE, WEB_SEARCH
from budgetguard.errors import BillError
from tests.sdks.server import Answer

from .conftest import day
from .server import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    BillingServer,
    claude_cost,
    claude_usage,
    openai_cost,
    openai_usage,
    seconds,
)

USD = 1_000_000_000
FIRST, LAST = day(40), day(0)


def openai(bills: BillingServer, since: Any = FIRST, until: Any = LAST, **more: Any) -> Bill:
    return openai_bill(since, until, base_url=bills.url, wait=lambda _: None, **{"key": OPENAI_KEY, **more})


def claude(bills: BillingServer, since: Any = FIRST, until: Any = LAST, **more: Any) -> Bill:
    return anthropic_bill(
        since, until, base_url=bills.url, wait=lambda _: None, **{"key": ANTHROPIC_KEY, **more}
    )


def test_openais_costs_are_read_to_the_nano_from_text_and_numbers(bills: BillingServer) -> None:
    model = "gpt-4o-mini-2024-07-18"
    bills.costs[day(3)] = [
        openai_cost("0E-6176", f"{model}, cached input", 0.0),
        openai_cost("0.000004500000000000000000000000000000000", f"{model}, input", 30.0),
        openai_cost(1.5e-2, f"{model}, output", 57),
        openai_cost("0.25", "gpt-realtime-2.1 audio, output", 1_000, quantity_unit="tokens"),
        openai_cost(2, "gpt-image-1 text, cached input", 2, quantity_unit="1000_tokens"),
        openai_cost("0.5", "gpt-5, batch input_tokens", 10),
        openai_cost("0.125", "ft:gpt-4o-mini-2024-07-18:my-org::7p4lURel, cached input", 4),
        openai_cost("0.0625", "o3", None),
        openai_cost("0.75", "web search tool calls", 30),
        openai_cost("0.07", "Images, large", 30),
        openai_cost("0.03", "Code interpreter sessions", 1),
        openai_cost("-5", "Credit"),
        openai_cost(None, "nothing"),
        openai_cost("0.01", None),
    ]
    found = openai(bills)
    assert [
        (line.amount, line.model, line.item, line.unit, line.quantity, line.tier) for line in found.lines
    ] == [
        (0, model, "", "cache_read_tokens", 0, None),
        (4_500, model, "", "input_tokens", 30, None),
        (15_000_000, model, "", "output_tokens", 57, None),
        (USD // 4, "gpt-realtime-2.1", "", "output_audio_tokens", 1_000, None),
        (2 * USD, "gpt-image-1", "", "cache_read_tokens", 2_000, None),
        (USD // 2, "gpt-5", "", "input_tokens", 10, "batch"),
        (USD // 8, "ft:gpt-4o-mini-2024-07-18:my-org::7p4lURel", "", "cache_read_tokens", 4, None),
        (USD // 16, "o3", "", None, None, None),
        (3 * USD // 4, None, WEB_SEARCH, None, None, None),
        (70_000_000, None, "Images, large", None, None, None),
        (30_000_000, None, CODE, None, None, None),
        (-5 * USD, None, "Credit", None, None, None),
        (10_000_000, None, "", None, None, None),
    ]
    assert {line.day for line in found.lines} == {day(3)}
    assert (found.provider, found.since, found.until, found.source) == ("openai", FIRST, LAST, "OpenAI")


def test_every_page_is_fetched_of_costs_and_of_every_usage(bills: BillingServer) -> None:
    bills.page_size = 9
    for ago in range(1, 41):
        bills.costs[day(ago)] = [openai_cost("1", "gpt-5, output", 100)]
        for name in ("completions", "embeddings"):
            bills.usage.setdefault(name, {})[day(ago)] = [openai_usage("gpt-5", 2), openai_usage("gpt-5", 1)]
    found = openai(bills)
    assert sum(line.amount for line in found.lines) == 40 * USD
    assert len({line.day for line in found.lines}) == 40
    assert found.requests == {(day(ago), "gpt-5"): 6 for ago in range(1, 41)}
    # Five pages of costs and of each of six usages.
    assert len(bills.requests) == 35
    asked = parse_qs(bills.requests[0].query)
    assert asked["group_by"] == ["line_item"]
    assert (asked["start_time"], asked["end_time"]) == ([str(seconds(FIRST))], [str(seconds(LAST))])
    assert (asked["limit"], "page" in asked) == (["40"], False)
    usage = [parse_qs(one.query) for one in bills.requests if "completions" in one.path]
    assert {one["limit"][0] for one in usage} == {"31"}
    assert all(one["group_by"] == ["model"] for one in usage)
    assert [one.get("page") for one in usage] == [None, ["page_9"], ["page_18"], ["page_27"], ["page_36"]]


def test_openais_projects_are_asked_for(bills: BillingServer) -> None:
    found = openai(bills, projects=["proj_a", "proj_b", "proj_a"])
    for one in bills.requests:
        assert parse_qs(one.query)["project_ids"] == ["proj_a", "proj_b"]
    assert found.source == "OpenAI (proj_a, proj_b)"


def test_anthropics_cents_are_read_and_given_their_tokens(bills: BillingServer) -> None:
    model = "claude-haiku-4-5-20251001"
    bills.report[day(2)] = [
        claude_cost("123.45", model, "uncached_input_tokens"),
        claude_cost("0.00001", model, "cache_read_input_tokens"),
        claude_cost("2", model, "cache_creation.ephemeral_1h_input_tokens"),
        claude_cost("3", model, "cache_creation.ephemeral_5m_input_tokens"),
        claude_cost("4", model, "output_tokens", tier="batch"),
        claude_cost("5", None, None, cost_type="web_search", description="Web Search Usage"),
        claude_cost("6", None, None, cost_type="code_execution", description="Code Execution Usage"),
    ]
    bills.tokens[day(2)] = [
        claude_usage(model, uncached_input_tokens=70, cache_read_input_tokens=5, written_1h=6, written_5m=7),
        claude_usage(model, uncached_input_tokens=30),
        claude_usage(model, tier="batch", output_tokens=9),
    ]
    found = claude(bills)
    assert {(line.unit or line.item): (line.amount, line.quantity, line.tier) for line in found.lines} == {
        "input_tokens": (1_234_500_000, 100, None),
        "cache_read_tokens": (100, 5, None),
        "cache_write_1h_tokens": (20_000_000, 6, None),
        "cache_write_5m_tokens": (30_000_000, 7, None),
        "output_tokens": (40_000_000, 9, "batch"),
        WEB_SEARCH: (50_000_000, None, None),
        CODE: (60_000_000, None, None),
    }
    assert found.notes == ()
    # Two pages of each report, since 31 days are the most on one.
    assert len(bills.requests) == 4
    costs, usage = (parse_qs(bills.requests[at].query) for at in (0, 2))
    assert costs["group_by[]"] == ["workspace_id", "description"]
    assert usage["group_by[]"] == ["workspace_id", "model", "service_tier", "context_window"]
    assert costs["starting_at"] == [f"{FIRST}T00:00:00Z"]


def test_only_the_workspaces_that_are_named_count(bills: BillingServer) -> None:
    model = "claude-haiku-4-5-20251001"
    for name, cents, n in ((None, "100", 1), ("wrkspc_a", "200", 2), ("wrkspc_b", "400", 4)):
        bills.report.setdefault(day(2), []).append(
            claude_cost(cents, model, "output_tokens", workspace_id=name)
        )
        bills.tokens.setdefault(day(2), []).append(claude_usage(model, output_tokens=n, workspace_id=name))
    sums = {}
    for chosen in ((), ("default",), ("wrkspc_a", "wrkspc_b")):
        found = claude(bills, workspaces=chosen)
        sums[chosen] = [(line.amount, line.quantity) for line in found.lines]
    assert sums == {
        (): [(7 * USD, 7)],
        ("default",): [(USD, 1)],
        ("wrkspc_a", "wrkspc_b"): [(6 * USD, 6)],
    }


def test_the_priority_tier_is_told_since_no_report_has_its_costs(bills: BillingServer) -> None:
    bills.tokens[day(2)] = [claude_usage("claude-haiku-4-5-20251001", tier="priority", output_tokens=5)]
    assert "Priority Tier" in claude(bills).notes[0]


# Errors


@pytest.mark.parametrize(("fetch", "name"), [(openai, "OpenAI"), (claude, "Anthropic")])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_remedy_and_is_not_shown(
    bills: BillingServer, fetch: Any, name: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    key = OPENAI_KEY if name == "OpenAI" else ANTHROPIC_KEY
    bills.before = [Answer({"error": {"message": f"no scope for {key}"}}, status=status)]
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigurationError) as caught:
        fetch(bills)
    text = str(caught.value)
    assert len(bills.requests) == 1
    assert f"({status})" in text
    assert "admin key" in text
    assert ("OPENAI_ADMIN_KEY" if name == "OpenAI" else "ANTHROPIC_ADMIN_KEY") in text
    assert "It says: no scope for (the key)" in text
    for shown in (text, repr(caught.value.__cause__), caplog.text):
        assert key not in shown


@pytest.mark.parametrize("fetch", [openai, claude])
@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_what_may_pass_is_tried_again(bills: BillingServer, fetch: Any, status: int) -> None:
    waited: list[float] = []
    bills.before = [
        Answer({}, status=status, headers={"retry-after": "7"}),
        Answer({}, status=status),
        Answer({}, cut=0),
        Answer({}, status=status, headers={"retry-after": "86400"}),
    ]
    module = openai_bill if fetch is openai else anthropic_bill
    key = OPENAI_KEY if fetch is openai else ANTHROPIC_KEY
    found = module(day(2), day(1), key=key, base_url=bills.url, wait=waited.append)
    assert found.lines == ()
    assert waited == [7, 2, 1, 60]


@pytest.mark.parametrize(("status", "told"), [(429, "no more requests for now"), (503, "fails (503")])
def test_what_does_not_pass_is_told_after_some_tries(bills: BillingServer, status: int, told: str) -> None:
    bills.before = [Answer({"error": {"message": "overloaded"}}, status=status) for _ in range(20)]
    with pytest.raises(BillError, match="after 5 tries") as caught:
        openai(bills)
    assert told in str(caught.value)
    assert "overloaded" in str(caught.value)
    assert len(bills.requests) == 5


def test_what_is_asked_for_wrongly_is_not_asked_for_again(bills: BillingServer) -> None:
    bills.before = [Answer({"error": {"message": "start_time is too old"}}, status=400)]
    with pytest.raises(BillError, match=r"400.*start_time is too old"):
        openai(bills)
    assert len(bills.requests) == 1


def test_a_server_that_is_not_there_is_told() -> None:
    waited: list[float] = []
    with pytest.raises(BillError, match=r"could not be reached at http://127.0.0.1:1/organization/costs"):
        openai_bill(day(2), day(1), key=OPENAI_KEY, base_url="http://127.0.0.1:1", wait=waited.append)
    assert waited == [1, 2, 4, 8]


def test_a_redirect_is_not_followed_since_the_key_would_be(bills: BillingServer) -> None:
    with BillingServer() as elsewhere:
        bills.before = [Answer({}, status=302, headers={"location": f"{elsewhere.url}/organization/costs"})]
        with pytest.raises(BillError, match="answers 302"):
            openai(bills)
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", {"data": {}}, {"object": "list"}, {"data": [], "has_more": True}, b"{" * 100_000],
)
def test_what_is_no_report_is_told(bills: BillingServer, body: Any) -> None:
    bills.before = [Answer(body)]
    with pytest.raises(BillError, match=r"no page of a report|not where"):
        openai(bills)


def test_a_cursor_that_comes_twice_ends_in_an_error(bills: BillingServer) -> None:
    bills.before = [Answer({"data": [], "has_more": True, "next_page": "same"}) for _ in range(9)]
    with pytest.raises(BillError, match="next_page is 'same'"):
        openai(bills)
    assert len(bills.requests) == 2


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (openai_cost("1.5 dollars"), "no number"),
        (openai_cost("NaN"), "no amount of USD"),
        (openai_cost("1e30"), "no amount of USD"),
        ({**openai_cost("1"), "amount": {"value": "1", "currency": "eur"}}, "in EUR"),
        ({**openai_cost("1"), "amount": 3}, "an amount that is none"),
        ("text", "a bucket that is none"),
    ],
)
def test_a_bad_amount_of_openais_is_named(bills: BillingServer, result: Any, told: str) -> None:
    bills.costs[day(3)] = [result]
    with pytest.raises(BillError, match=told):
        openai(bills)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (claude_cost("much", "claude-x", None), "no number"),
        ({**claude_cost("1", "claude-x", None), "currency": "GBP"}, "in GBP"),
        ({"model": "claude-x"}, "no number"),
    ],
)
def test_a_bad_amount_of_anthropics_is_named(bills: BillingServer, result: Any, told: str) -> None:
    bills.report[day(3)] = [result]
    with pytest.raises(BillError, match=told):
        claude(bills)


@pytest.mark.parametrize(
    ("module", "key", "told"),
    [
        (openai_bill, "sk-proj-1234", "no admin key, which begins with sk-admin-"),
        (anthropic_bill, "sk-ant-api03-1234", "no admin key, which begins with sk-ant-admin"),
        (openai_bill, "", "put it into OPENAI_ADMIN_KEY"),
        (anthropic_bill, None, "put it into ANTHROPIC_ADMIN_KEY"),
        (openai_bill, "sk-admin-a\nb", "characters that no key has"),
    ],
)
def test_a_key_that_is_none_is_refused_before_it_is_sent(
    bills: BillingServer, module: Any, key: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_ADMIN_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=told) as caught:
        module(day(2), day(1), key=key, base_url=bills.url)
    assert not key or key not in str(caught.value)
    assert bills.requests == []


@pytest.mark.parametrize(
    ("url", "told"), [("http://example.com/v1", "unencrypted"), ("ftp://x", "https://"), ("api", "https://")]
)
def test_no_key_is_sent_unencrypted(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        openai_bill(day(2), day(1), key=OPENAI_KEY, base_url=url)


def test_no_repr_shows_the_key() -> None:
    from budgetguard.billing.admin import AdminAPI

    api = AdminAPI("X", "https://x", "K", "https://x", {"authorization": OPENAI_KEY})
    assert OPENAI_KEY not in repr(api)
    assert json.dumps(str(api))


def test_what_is_sent_is_a_valid_query(bills: BillingServer) -> None:
    openai(bills, since=LAST - timedelta(days=1))
    assert ("bucket_width", "1d") in parse_qsl(bills.requests[0].query, strict_parsing=True)
