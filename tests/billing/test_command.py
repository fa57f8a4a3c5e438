"""`budgetguard reconcile`: as a person and as CI call it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from budgetguard import Guard
from budgetguard.billing.result import REASONS
from budgetguard.core.money import Nanos
from budgetguard.testing.clock import FakeClock
from tests.cli.helpers import Command, clean_environment, run, run_here
from tests.sdks.server import Answer

from .conftest import TODAY, at, day
from .server import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    BillingServer,
    claude_cost,
    claude_usage,
    openai_cost,
    openai_usage,
)

Call = Callable[..., Nanos]
MINI = "gpt-4o-mini-2024-07-18"
KEYS = {"OPENAI_ADMIN_KEY": OPENAI_KEY, "ANTHROPIC_ADMIN_KEY": ANTHROPIC_KEY}


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    import os

    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    return lambda *arguments, **environ: run_here(
        "reconcile", *arguments, **{"BUDGETGUARD_STORE": f"disk://{folder}", **environ}
    )


@pytest.fixture
def fetch(bills: BillingServer) -> list[str]:
    return ["--openai", "--anthropic", "--openai-url", bills.url, "--anthropic-url", bills.url]


@pytest.fixture
def spent(guard: Guard, clock: FakeClock, call: Call, bills: BillingServer) -> None:
    """Two days: one agrees, on the other a third of the requests was never booked."""
    for ago, requests in ((4, 2), (3, 3)):
        clock.set(at(ago))
        for _ in range(2):
            call("gpt-4o-mini", input_tokens=1_000_000, output_tokens=0)
        n = requests * 1_000_000
        bills.costs[day(ago)] = [openai_cost(f"{n * 150 / 10**9:.9f}", f"{MINI}, input", n)]
        bills.usage.setdefault("completions", {})[day(ago)] = [openai_usage(MINI, requests)]
    call("claude-haiku-4-5", input_tokens=1_000_000, output_tokens=0)
    bills.report[day(3)] = [claude_cost("100", "claude-haiku-4-5-20251001", "uncached_input_tokens")]
    bills.tokens[day(3)] = [claude_usage("claude-haiku-4-5-20251001", uncached_input_tokens=1_000_000)]
    guard.close()


def test_the_table_says_what_differs_and_why(spent: None, command: Command, fetch: list[str]) -> None:
    done = command(*fetch, **KEYS)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["Day", "Model", "Billed", "Booked", "Difference", "%", "Why"]
    assert lines[2:5] == [
        [day(4).isoformat(), "gpt-4o-mini", "$0.30", "$0.30", "$0.00", "0.0"],
        [day(3).isoformat(), "gpt-4o-mini", "$0.45", "$0.30", "$0.15", "33.3", "unbooked"],
        [day(3).isoformat(), "claude-haiku-4-5", "$1.00", "$1.00", "$0.00", "0.0"],
    ]
    assert ["total", "$1.75", "$1.60", "$0.15", "8.6", "unbooked"] in lines
    assert f"from {day(7)} to {day(1)} (UTC)" in done.out
    assert f"unbooked, $0.15: {REASONS['unbooked']}." in done.out
    assert "unexplained" not in done.out
    assert OPENAI_KEY not in done.out + done.err


def test_a_narrow_window_gets_a_list(spent: None, command: Command, fetch: list[str]) -> None:
    done = command(*fetch, "--by", "model", COLUMNS="50", **KEYS)
    lines = [line.strip() for line in done.out.splitlines()]
    at = lines.index("gpt-4o-mini")
    assert " ".join(lines[at + 1 : at + 3]) == (
        "billed $0.75, booked $0.60, difference $0.15, % 20.0, why unbooked"
    )


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--threshold", "9%"], 0, "The difference is within the threshold of 9%."),
        (["--threshold", "8.5%"], 1, "The difference, $0.15, exceeds the threshold of 8.5%."),
        (["--threshold", "0.15"], 0, "within the threshold of $0.15."),
        (["--threshold", "$0.14"], 1, "exceeds the threshold of $0.14."),
        (["--threshold", "9%", "--each"], 1, f"in 1 row: {day(3)} gpt-4o-mini $0.15."),
        (["--threshold", "0", "--unexplained"], 0, "What is unexplained is within the threshold of $0.00."),
        (["--threshold", "0", "--each", "--unexplained"], 0, "in every row."),
    ],
)
def test_the_exit_code_says_whether_the_threshold_is_exceeded(
    spent: None, command: Command, fetch: list[str], options: list[str], code: int, told: str
) -> None:
    done = command(*fetch, *options, **KEYS)
    assert (done.code, done.err) == (code, "")
    assert told in done.out.splitlines()[-1]


def test_a_process_exits_with_the_code_too(spent: None, folder: Path, fetch: list[str]) -> None:
    arguments = ("reconcile", *fetch, "--store", f"disk://{folder}", "--threshold", "1%", "--json")
    done = run(*arguments, **KEYS)
    assert (done.code, done.err) == (1, "")
    assert done.object["exceeded"] is True
    assert done.object["threshold"] == "1%"
    assert done.object["total"]["reasons"] == {"unbooked": "0.15"}


def test_json_is_one_object(spent: None, command: Command, fetch: list[str]) -> None:
    found = command(*fetch, "--json", "--by", "provider", "--days", "4", **KEYS).object
    assert (found["project"], found["since"], found["until"]) == ("default", str(day(4)), str(TODAY))
    assert [(row["provider"], row["difference"], row["requests"]) for row in found["rows"]] == [
        ("openai", "0.15", 5),
        ("anthropic", "0.00", None),
    ]
    assert (found["threshold"], found["exceeded"], found["by"]) == (None, False, ["provider"])


def test_csv_has_a_column_for_each_reason(spent: None, command: Command, fetch: list[str]) -> None:
    done = command(*fetch, "--csv", "--threshold", "1%", **KEYS)
    assert done.code == 1
    assert "exceeds the threshold" in done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert len(rows) == 3
    assert rows[1]["difference"] == rows[1]["reason_unbooked"] == "0.15"
    assert (rows[1]["reason_expired"], rows[1]["expired"]) == ("", "0")
    assert {f"reason_{name}".replace(" ", "_") for name in REASONS} < rows[0].keys()


def test_a_file_is_compared_by_its_own_days(spent: None, command: Command, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text(f"date,model,usd\n{day(4)},gpt-4o-mini,0.30\n")
    done = command("--file", str(path), "--json")
    assert done.code == 0, done.err
    assert (done.object["since"], done.object["until"]) == (str(day(4)), str(day(3)))
    assert done.object["total"]["difference"] == "0.00"
    assert done.object["sources"] == [str(path)]


def test_all_projects_of_the_store_count_where_the_bill_is_of_them_all(
    spent: None, folder: Path, clock: FakeClock, command: Command, tmp_path: Path
) -> None:
    other = Guard(store=f"disk://{folder}", project="other", clock=clock)
    other.set_budget(None, user="u")
    with other.call(user="u", model="gpt-4o-mini", input_tokens=2_000_000, max_output_tokens=0) as made:
        made.settle(input_tokens=1_000_000, output_tokens=0)
    other.close()
    path = tmp_path / "bill.csv"
    path.write_text(f"date,model,usd\n{day(3)},gpt-4o-mini,0.45\n")
    assert command("--file", str(path), "--json").object["total"]["difference"] == "0.15"
    all_of_them = command("--file", str(path), "--json", "--all-projects").object
    assert (all_of_them["total"]["difference"], all_of_them["project"]) == ("0.00", None)
    assert command("--file", str(path), "--json", "--project", "other").object["total"]["booked"] == "0.15"


def test_projects_and_workspaces_are_asked_for(
    spent: None, command: Command, fetch: list[str], bills: BillingServer
) -> None:
    done = command(*fetch, "--openai-project", "proj_a", "--anthropic-workspace", "default", "--json", **KEYS)
    assert done.object["sources"] == ["Anthropic (default)", "OpenAI (proj_a)"]
    assert "project_ids=proj_a" in bills.requests[0].query


def test_nothing_billed_and_nothing_booked_is_said(guard: Guard, command: Command, fetch: list[str]) -> None:
    done = command(*fetch, "--threshold", "0%", **KEYS)
    assert done.code == 0
    assert "Nothing was billed and nothing booked" in done.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "which bill? Add --openai"),
        (["--file", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--openai", "--by", "user"], "rows are by provider, day, model or several of them, not by 'user'"),
        (["--openai", "--threshold", "little"], "a part such as 2% or USD such as 5.00, not 'little'"),
        (["--openai", "--each"], "add --threshold"),
        (["--openai", "--csv", "--json"], "choose one"),
        (["--openai", "--days", "0"], "from 1, not 0"),
        (["--openai", "--days", "99999999"], "before all calendars"),
        (["--openai", "--days", "3", "--since", "7d"], "choose one"),
        (["--openai", "--since", "2026-11-02T10:00"], "bills are by UTC days"),
        (["--openai", "--since", "soon"], "--since must be"),
        (["--openai", "--since", "2026-11-02", "--until", "2026-11-02"], "is not before"),
        (["--openai", "--since", "2999-01-01"], "no day from 2999-01-01"),
        (["--openai", "--anthropic-workspace", "default"], "add --anthropic"),
        (["--openai"], "put it into OPENAI_ADMIN_KEY"),
        (["--openai", "--openai-url", "http://example.com"], "unencrypted"),
    ],
)
def test_bad_input_is_refused_by_name(
    guard: Guard, command: Command, options: list[str], told: str, request: pytest.FixtureRequest
) -> None:
    keys = {"OPENAI_ADMIN_KEY": OPENAI_KEY} if "http://example.com" in options else {}
    done = command(*options, **keys)
    assert done.code == 2, done.out
    assert told in done.err


def test_a_refused_key_is_bad_input_and_a_server_that_fails_is_not(
    guard: Guard, command: Command, bills: BillingServer
) -> None:
    done = command("--openai", "--openai-url", bills.url, "--json", OPENAI_ADMIN_KEY="sk-admin-another")
    assert (done.code, done.error["error"]) == (2, "ConfigurationError")
    assert "sk-admin-another" not in done.err
    bills.before = [Answer({}, status=400)]
    done = command("--openai", "--openai-url", bills.url, "--json", "--days", "1", **KEYS)
    assert (done.code, done.error["error"]) == (1, "BillError")
