"""Users, holds and spending are listed completely, in order, and readably in any window."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from budgetguard.core.process import system_clock
from budgetguard.guard import Guard

from .helpers import COMMAND, DAY, Command, book, clean_environment

HOUR = 3_600_000
AWKWARD = ["[bold]x[/bold]", "a\x9b31mb", "Ольга", "user with spaces", "x" * 200, ":smile:", "2 / 3"]


def ids(out: str) -> list[str]:
    return [json.loads(line)["user"] for line in out.splitlines()]


def test_users_are_listed_in_order_of_their_ids(command: Command, guard: Guard) -> None:
    for user in ("b", "a", "10", "9", "Z"):
        guard.set_budget(1, user=user)
    assert ids(command("users", "--json").out) == ["10", "9", "Z", "a", "b"]
    table = command("users").out
    assert [line.split()[0] for line in table.splitlines()[2:7]] == ["10", "9", "Z", "a", "b"]


def test_users_shows_what_is_spent_held_and_available(command: Command, guard: Guard) -> None:
    guard.set_budget(10, user="alice", duration="daily")
    book(guard, "alice", 2_250_000_000)
    book(guard, "alice", 500_000_000, end="open")
    (line,) = [line for line in command("users").out.splitlines() if line.startswith("alice")]
    assert re.findall(r"\$[\d.]+", line) == ["$10.00", "$2.25", "$1.00", "$6.75"]
    assert "22%" in line
    (one,) = command("users", "--json").objects
    assert [Decimal(one[key]) for key in ("limit", "spent", "held", "available")] == [
        10,
        Decimal("2.25"),
        1,
        Decimal("6.75"),
    ]
    assert one["open_holds"] == 1


def test_users_can_be_matched_and_limited(command: Command, guard: Guard) -> None:
    for number in range(5):
        guard.set_budget(1, user=f"team-{number}")
    guard.set_budget(1, user="alice")
    assert ids(command("users", "--match", "eam", "--json").out) == [f"team-{n}" for n in range(5)]
    assert ids(command("users", "--match", "*-[12]", "--json").out) == ["team-1", "team-2"]
    assert ids(command("users", "--limit", "2", "--json").out) == ["alice", "team-0"]
    shortened = command("users", "--limit", "2").out
    assert "team-0" in shortened
    assert "team-1" not in shortened
    assert "--limit" in shortened
    assert "--limit" not in command("users", "--limit", "6").out
    assert "team-4" in command("users", "--limit", "0").out
    assert "matches nobody-here" in command("users", "--match", "nobody-here").out


def test_a_store_without_users_says_how_to_make_one(command: Command, guard: Guard) -> None:
    assert list(guard.users()) == []
    done = command("users")
    assert done.code == 0
    assert "budgetguard create" in done.out
    assert command("users", "--json").out == ""


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 100, 160])
def test_no_line_is_wider_than_the_window(command: Command, guard: Guard, columns: int) -> None:
    for user in AWKWARD[:4]:
        guard.set_budget(1000, user=user, duration="monthly")
        book(guard, user, 123_456_789_012, model="a-model-with-a-long-name-2026-11-01")
        book(guard, user, 1_234, end="open")
    for arguments in (["users"], ["holds"], ["report", "--by", "user,model"], ["show", "Ольга"]):
        out = command(*arguments, COLUMNS=str(columns)).out
        # The closing sentence is the terminal's to wrap.
        drawn = [line for line in out.splitlines() if not line.endswith(".")]
        assert len(drawn) >= 4
        assert max(map(len, drawn)) <= columns
        assert "Ольга" in out


def test_ids_are_printed_as_they_are_and_never_steer_the_terminal(command: Command, guard: Guard) -> None:
    for user in AWKWARD:
        guard.set_budget(1, user=user)
    out = command("users", COLUMNS="300").out
    for user in AWKWARD:
        assert user.replace("\x9b", "\\u009b") in out
    assert "\x9b" not in out
    assert ids(command("users", "--json").out) == sorted(AWKWARD, key=lambda user: user.encode())


def test_times_are_shown_in_the_zone_asked_for_and_in_utc_in_json(command: Command, guard: Guard) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    guard.set_budget(1, user="alice", duration="100y", starts_at=start)
    assert "2126-01-01 09:00" in command("users", "--timezone", "Asia/Tokyo").out
    assert "2126-01-01 09:00 Asia/Tokyo" in command("show", "alice", "--timezone", "Asia/Tokyo").out
    assert command("show", "alice", "--json").object["resets_at"] == "2126-01-01T00:00:00+00:00"


def listing_process(guard: Guard) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "users", "--json"],
        env={**clean_environment(), "BUDGETGUARD_STORE": str(guard.settings.store)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_users_are_written_as_they_are_read(guard: Guard) -> None:
    for number in range(3_000):
        guard.set_budget(1, user=f"user-{number:04d}")
    with listing_process(guard) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        # It waits for its reader now, far from the end, and holds no lock.
        guard.delete("user-2999")
        rest = process.stdout.read()
    listed = ids(first + rest)
    assert process.returncode == 0
    assert listed == [f"user-{number:04d}" for number in range(2_999)]


def test_a_reader_that_stops_early_ends_the_listing_quietly(guard: Guard) -> None:
    for number in range(2_000):
        guard.set_budget(1, user=f"user-{number:04d}")
    with listing_process(guard) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert ids(process.stdout.readline()) == ["user-0000"]
        process.stdout.close()
        assert process.stderr.read() == ""


def test_holds_lists_the_calls_under_way(command: Command, guard: Guard) -> None:
    for user in ("alice", "bob"):
        guard.set_budget(1, user=user)
    mine = book(guard, "alice", 1_000_000, end="open", model="gpt-4o")
    book(guard, "bob", 3_000_000, end="open")
    book(guard, "alice", 7_000_000)
    (hold,) = command("holds", "alice", "--json").objects
    assert (hold["id"], hold["user"], hold["model"]) == (mine, "alice", "gpt-4o")
    assert (hold["amount"], hold["on_expiry"]) == ("0.002", "0.001")
    assert datetime.fromisoformat(hold["created_at"]) < datetime.fromisoformat(hold["expires_at"])
    everybody = command("holds").out
    assert "2 calls under way" in everybody
    assert "$0.008" in everybody
    assert len(command("holds", "--json").objects) == 2


def test_holds_that_expired_are_not_under_way(command: Command, guard: Guard) -> None:
    hour_ago = Guard(store=guard.settings.store, project="default", clock=lambda: system_clock() - HOUR)
    hour_ago.set_budget(1, user="alice")
    book(hour_ago, "alice", 4_000_000, end="open")
    hour_ago.close()
    assert "No calls are under way" in command("holds").out
    shown = command("show", "alice", "--json").object
    assert (shown["expiries"], shown["expired"], shown["spent"]) == (1, "0.004", "0.004")
    assert "1 expired" in command("report").out


def test_report_adds_up_by_user_by_default(command: Command, guard: Guard) -> None:
    for user in ("alice", "bob"):
        guard.set_budget(100, user=user)
    book(guard, "alice", 1_000_000_001, tokens=(10, 5))
    book(guard, "bob", 3_000_000_000, tokens=(20, 6))
    book(guard, "bob", 1, tokens=(1, 1))
    book(guard, "bob", 9, end="voided")
    book(guard, "bob", 500_000_000, end="open")
    report = command("report", "--json").object
    assert report["by"] == ["user"]
    assert [(row["user"], row["calls"], row["spent"]) for row in report["rows"]] == [
        ("bob", 2, "3.000000001"),
        ("alice", 1, "1.000000001"),
    ]
    assert report["total"] == {
        "calls": 3,
        "open": 1,
        "voided": 1,
        "expiries": 0,
        "input_tokens": 31,
        "output_tokens": 12,
        "spent": "4.000000002",
        "held": "1.00",
    }
    shown = command("report").out
    assert re.search(r"^total +3 +31 +12 +\$4\.00", shown, re.MULTILINE)
    assert "1 still under way" in shown


def test_report_takes_only_the_span_users_and_models_asked_for(command: Command, guard: Guard) -> None:
    for user in ("alice", "bob"):
        guard.set_budget(100, user=user)
    book(guard, "alice", 1, ago=10 * DAY)
    book(guard, "alice", 20, model="gpt-4o", ago=2 * DAY)
    book(guard, "alice", 300, model="gpt-4o-mini")
    book(guard, "bob", 4_000, model="o3")

    def spent(*arguments: str) -> int:
        return int(Decimal(command("report", "--json", *arguments).object["total"]["spent"]) * 10**9)

    assert spent() == 4_321
    assert spent("--since", "7d") == 4_320
    assert spent("--since", "7d", "--until", "1d") == 20
    assert spent("--until", "7d") == 1
    assert spent("--user", "alice") == 321
    assert spent("--user", "alice", "--user", "bob") == 4_321
    assert spent("--user", "ali") == 0
    assert spent("--model", "gpt-4o") == 20
    assert spent("--model", "gpt-4o*") == 321
    assert spent("--model", "gpt-4o", "--model", "o3") == 4_020
    assert "No calls" in command("report", "--user", "nobody").out


def test_report_dates_are_those_of_the_zone(command: Command, guard: Guard) -> None:
    guard.set_budget(1, user="alice")
    made = guard.engine.now()
    book(guard, "alice", 5)
    for name in ("Asia/Tokyo", "America/New_York"):
        day = datetime.fromtimestamp(made / 1000, ZoneInfo(name)).date().isoformat()
        report = command("report", "--by", "day", "--timezone", name, "--json").object
        assert [row["day"] for row in report["rows"]] == [day]
        assert report["timezone"] == name
        within = command("report", "--since", day, "--timezone", name, "--json").object
        assert within["total"]["calls"] == 1
        assert datetime.fromisoformat(within["since"]) == datetime.fromisoformat(day).replace(
            tzinfo=ZoneInfo(name)
        )
        assert command("report", "--until", day, "--timezone", name, "--json").object["total"]["calls"] == 0


def test_report_makes_a_key_of_several_dimensions(command: Command, guard: Guard) -> None:
    guard.set_budget(1, user="alice")
    book(guard, "alice", 5, model="a", ago=DAY)
    book(guard, "alice", 6, model="a")
    book(guard, "alice", 7, model="b")
    separate = command("report", "--by", "day", "--by", "model", "--json").object
    together = command("report", "--by", "day,model", "--json").object
    assert separate == together
    assert [(row["model"], row["spent"][-1]) for row in separate["rows"]] == [
        ("a", "5"),
        ("b", "7"),
        ("a", "6"),
    ]
    assert separate["rows"][0]["day"] < separate["rows"][1]["day"]


def test_report_adds_up_by_endpoint_and_by_tag(command: Command, guard: Guard) -> None:
    guard.set_budget(100, user="alice")
    book(guard, "alice", 1, endpoint="embeddings")
    book(guard, "alice", 20, tags=("checkout",))
    book(guard, "alice", 300, tags=("checkout", "tenant 7"))
    by_endpoint = command("report", "--by", "endpoint", "--json").object
    assert [(row["endpoint"], row["spent"]) for row in by_endpoint["rows"]] == [
        ("chat", "0.00000032"),
        ("embeddings", "0.000000001"),
    ]
    by_tag = command("report", "--by", "tag", "--json").object
    assert [(row["tag"], row["calls"], row["spent"]) for row in by_tag["rows"]] == [
        ("checkout", 2, "0.00000032"),
        ("tenant 7", 1, "0.0000003"),
        (None, 1, "0.000000001"),
    ]
    assert by_tag["total"]["calls"] == 3, "a call of two tags is still one call"
    assert "(no tag)" in command("report", "--by", "tag").out
    only = command("report", "--by", "endpoint", "--tag", "tenant 7", "--tag", "nobody", "--json").object
    assert only["total"]["calls"] == 1


def test_report_writes_csv_that_a_spreadsheet_reads_back(command: Command, guard: Guard) -> None:
    guard.set_budget(100, user='a "quoted", user')
    book(guard, 'a "quoted", user', 1_500_000_000, tokens=(7, 3))
    shown = command("report", "--by", "user,model", "--csv").out
    assert list(csv.DictReader(io.StringIO(shown))) == [
        {
            "user": 'a "quoted", user',
            "model": "gpt-4o-mini",
            "calls": "1",
            "open": "0",
            "voided": "0",
            "expiries": "0",
            "input_tokens": "7",
            "output_tokens": "3",
            "spent": "1.50",
            "held": "0.00",
        }
    ]
    assert command("report", "--user", "nobody", "--csv").out.count("\n") == 1


def test_report_draws_bars_as_long_as_what_was_spent(command: Command, guard: Guard) -> None:
    for user, cost in (("alice", 4_000_000), ("bob", 1_000_000), ("carol", 0)):
        guard.set_budget(100, user=user)
        book(guard, user, cost)
    lines = command("report", "--plot", COLUMNS="80").out.splitlines()
    bars = {line.split()[0]: line.count("█") for line in lines[:3]}
    assert bars["alice"] == pytest.approx(4 * bars["bob"], abs=4)
    assert bars["bob"] > 0
    assert bars["carol"] == 0
    assert all(len(line) <= 80 for line in lines[:3])


def test_a_report_is_written_one_way(command: Command) -> None:
    done = command("report", "--csv", "--json")
    assert done.code != 0
    assert "choose one" in done.err


def test_litellm_users_are_imported_once(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "user_cost.json"
    path.write_text(
        json.dumps({"carol": {"total_budget": 10, "current_cost": 0.25, "model_cost": {"gpt-4o": 0.25}}})
    )
    done = command("import-litellm", str(path), "--json").object
    assert (done["created"], done["existing"], done["spent"]) == (["carol"], [], "0.25")
    assert "0 users imported" in command("import-litellm", str(path)).out
    assert command("import-litellm", str(path), "--json").object["existing"] == ["carol"]
    assert command("show", "carol", "--json").object["spent"] == "0.25"
    report = command("report", "--by", "day", "--json").object
    assert [(row["day"], row["calls"], row["spent"]) for row in report["rows"]] == [(None, 0, "0.25")]
    assert "(imported)" in command("report", "--by", "day").out
    path.write_text("{")
    assert command("import-litellm", str(path)).code == 2


def test_no_name_in_a_report_is_a_formula_to_a_spreadsheet(command: Command, guard: Guard) -> None:
    names = ["=1+1", "+SUM(A1)", "-2+3", "@cmd", "\t=x", "\r=x", "-1.5", "+44", "a=b"]
    users = [name for name in names if name.isprintable()]
    for user in users:
        guard.set_budget(100, user=user)
        book(guard, user, 1_500_000_000, tokens=(7, 3))
    shown = {
        row["user"] for row in csv.DictReader(io.StringIO(command("report", "--by", "user", "--csv").out))
    }
    assert shown == {"'=1+1", "'+SUM(A1)", "'-2+3", "'@cmd", "-1.5", "+44", "a=b"}
