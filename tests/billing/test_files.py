"""Saved bills: pages of both APIs, the exports of both consoles, and a CSV of our own."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from budgetguard import ConfigurationError
from budgetguard.billing import Bill
from budgetguard.billing.bill import CODE, WEB_SEARCH
from budgetguard.billing.files import one_bill_each, read_bills
from budgetguard.billing.names import ModelNames
from budgetguard.errors import BillError

from .records import PRICES
from .server import claude_cost, claude_usage, openai_cost, openai_usage, saved, seconds

USD = 1_000_000_000
FIRST, SECOND = date(2026, 11, 2), date(2026, 11, 3)
HAIKU = "claude-haiku-4-5-20251001"


def read(tmp_path: Path, text: str | bytes, name: str = "bill") -> list[Bill]:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_bills(path, ModelNames(PRICES.list.snapshot()))


def openai_page(*results: Any, day: date = FIRST, **more: Any) -> dict[str, Any]:
    bucket = {"object": "bucket", "start_time": seconds(day), "end_time": 0, "results": list(results)}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None, **more}


def claude_page(*results: Any, day: date = FIRST, **more: Any) -> dict[str, Any]:
    bucket = {"starting_at": f"{day}T00:00:00Z", "ending_at": f"{day}T00:00:00Z", "results": list(results)}
    return {"data": [bucket], "has_more": False, "next_page": None, **more}


@pytest.mark.parametrize("form", ["one after another", "a list"])
def test_saved_pages_of_both_apis_are_read(tmp_path: Path, form: str) -> None:
    pages = [
        openai_page(openai_cost("1.25", "gpt-5, output", 10), has_more=True, next_page="page_1"),
        openai_page(openai_cost(0.1, "gpt-5, input", 5), day=SECOND),
        openai_page(openai_usage("gpt-5", 4)),
        openai_page(),
        claude_page(claude_cost("150", HAIKU, "output_tokens")),
        claude_page(claude_usage(HAIKU, output_tokens=77)),
        claude_page(),
    ]
    text = saved(*pages) if form == "one after another" else json.dumps(pages, indent=2)
    claude, openai = read(tmp_path, text)
    assert (claude.provider, openai.provider) == ("anthropic", "openai")
    assert [(line.day, line.amount, line.quantity) for line in openai.lines] == [
        (FIRST, 1_250_000_000, 10),
        (SECOND, 100_000_000, 5),
    ]
    assert (openai.since, openai.until) == (FIRST, date(2026, 11, 4))
    assert openai.requests == {(FIRST, "gpt-5"): 4}
    assert [(line.amount, line.quantity) for line in claude.lines] == [(1_500_000_000, 77)]


def test_a_bill_of_which_pages_are_missing_is_refused(tmp_path: Path) -> None:
    page = openai_page(openai_cost("1", "gpt-5, output", 10), has_more=True, next_page="page_1")
    with pytest.raises(ConfigurationError, match=r"only the first pages.*append them"):
        read(tmp_path, saved(page))


def test_openais_export_is_read(tmp_path: Path) -> None:
    text = (
        "\ufeffstart_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,quantity_unit,"
        "line_item,project_id\r\n"
        f"{seconds(FIRST)},0,2026-11-02T00:00:00,x,,,,,,\r\n"
        f"{seconds(FIRST)},0,2026-11-02T00:00:00,x,0.50000000000000000000000000,usd,1000,tokens,"
        '"gpt-5-nano, input",p\r\n'
        ',,2026-11-03T00:00:00+00:00,x,0.25,usd,,,"web search tool calls",p\r\n'
    )
    (found,) = read(tmp_path, text)
    assert [(line.day, line.amount, line.model, line.item, line.quantity) for line in found.lines] == [
        (FIRST, USD // 2, "gpt-5-nano", "", 1_000),
        (SECOND, USD // 4, None, WEB_SEARCH, None),
    ]


def test_openais_export_that_names_no_items_is_a_bill_by_day(tmp_path: Path) -> None:
    text = f"start_time,amount_value,amount_currency\n{seconds(FIRST)},1.5,usd\n"
    (found,) = read(tmp_path, text)
    assert [line.is_whole for line in found.lines] == [True]


def test_anthropics_export_is_read_with_its_cents(tmp_path: Path) -> None:
    head = (
        "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,"
        "cost_type,inference_geo,speed\n"
    )
    text = head + (
        "2026-11-02,Claude Haiku 4.5,Default,key,message,≤ 200k,input_no_cache,0.05,0.05,token,global,\n"
        "2026-11-02,Claude Haiku 4.5,Default,key,batch,≤ 200k,output,0.021,0.02,token,global,\n"
        "2026-11-03,,Default,key,,,,0.30,0.30,web_search,,\n"
        "2026-11-03,,Default,key,,,,0.05,0.05,code_execution,,\n"
    )
    (found,) = read(tmp_path, text)
    assert [(one.amount, one.model, one.item, one.unit, one.tier, one.slack) for one in found.lines] == [
        (50_000_000, "Claude Haiku 4.5", "", "input_tokens", None, 5_000_000),
        (21_000_000, "Claude Haiku 4.5", "", "output_tokens", "batch", 0),
        (300_000_000, None, WEB_SEARCH, None, None, 5_000_000),
        (50_000_000, None, CODE, None, None, 5_000_000),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_our_own_csv_needs_three_columns(tmp_path: Path, delimiter: str) -> None:
    text = "Date,Model,USD\n2026-11-02,gpt-5,1.5\n\n2026-11-02,claude-haiku-4-5,$0.25\n2026-11-03,gpt-5,-1\n"
    claude, openai = read(tmp_path, text.replace(",", delimiter))
    assert [(line.day, line.model, line.amount) for line in openai.lines] == [
        (FIRST, "gpt-5", 1_500_000_000),
        (SECOND, "gpt-5", -USD),
    ]
    assert [line.amount for line in claude.lines] == [USD // 4]


def test_our_own_csv_may_name_providers_and_items(tmp_path: Path) -> None:
    text = (
        "date,provider,model,item,usd\n2026-11-02,openai,,web search,3\n2026-11-02,openai,,credit,-1\n"
        "2026-11-02,azure,gpt-5,,7\n"
    )
    azure, openai = read(tmp_path, text)
    assert (azure.provider, azure.lines[0].model) == ("azure", "gpt-5")
    assert [line.item for line in openai.lines] == [WEB_SEARCH, "credit"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "columns that no bill has: none"),
        ("a,b\n1,2\n", "columns that no bill has: a, b"),
        ("date,model,usd\n", "no line with an amount"),
        ("date,model,usd\n2026-11-02,gpt-5\n", "line 2: 2 cells under 3 columns"),
        ("date,model,usd\n2026-11-02,gpt-5,much\n", "line 2: 'much' is no number of USD"),
        ("date,model,usd\n2026-11-02,gpt-5,inf\n", "line 2: 'inf' is no number of USD"),
        ("date,model,usd\n02.11.2026,gpt-5,1\n", "line 2: '02.11.2026' is no day"),
        ("date,model,usd\n2026-11-02,,1\n", "line 2: whose amount is it"),
        ('date,model,usd\n2026-11-02,"gpt-5,1\n', "line 2"),
        ("usage_date_utc,model,cost_usd\nAugust,x,1\n", "line 2: 'August' is no day"),
        ("start_time,amount_value,amount_currency\nsoon,1,usd\n", "line 2: 'soon' is no day"),
        ("{", "is no JSON"),
        ("{}", "no page of a report"),
        ("[1]", "no page of a report"),
        ('{"data": []}', "no page with a result"),
        ('{"data": [{"results": []}]}', "no days of a report"),
        (saved(openai_page(openai_usage("gpt-5", 1))), "counts usage of openai and has no costs"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
    ],
)
def test_a_file_that_is_no_bill_is_refused_by_name(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        read(tmp_path, text, "bill.csv")
    assert "bill.csv" in str(caught.value)


def test_a_currency_that_is_not_usd_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BillError, match="in EUR"):
        read(tmp_path, f"start_time,amount_value,amount_currency\n{seconds(FIRST)},1,eur\n")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.csv cannot be read: No such file"):
        read_bills(tmp_path / "nowhere.csv", ModelNames(PRICES.list.snapshot()))


def test_files_of_days_that_follow_are_one_bill_and_a_day_counts_once(tmp_path: Path) -> None:
    first = read(tmp_path, "date,model,usd\n2026-11-02,gpt-5,1\n", "a.csv")
    second = read(tmp_path, "date,model,usd\n2026-11-03,gpt-5,2\n", "b.csv")
    (both,) = one_bill_each([*second, *first])
    assert [line.amount for line in both.lines] == [USD, 2 * USD]
    assert (both.since, both.until) == (FIRST, date(2026, 11, 4))
    with pytest.raises(ConfigurationError, match="both have openai's bill of 2026-11-02"):
        one_bill_each([*first, *first])
