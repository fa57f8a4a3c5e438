"""Budgets are made, changed, looked at and deleted from the command line, on a real disk store."""

from __future__ import annotations

import os
import pty
import subprocess
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from budgetguard.guard import Guard

from .helpers import COMMAND, Command, book, clean_environment


def test_create_makes_a_budget_that_programs_find(command: Command, guard: Guard) -> None:
    done = command("create", "alice", "10", "--duration", "monthly")
    assert done.code == 0
    assert done.out.startswith("Created the budget of alice")
    assert guard.balance("alice").limit == 10
    assert guard.balance("alice").duration == "monthly"


def test_create_changes_the_limit_and_keeps_spend_and_window(command: Command, guard: Guard) -> None:
    guard.set_budget(10, user="alice", duration="monthly", timezone="Europe/Berlin", align="calendar")
    before = guard.balance("alice")
    book(guard, "alice", 1_500_000_000)
    done = command("create", "alice", "20")
    assert done.out.startswith("Changed the budget of alice")
    assert "$10.00" in done.out
    assert "$1.50 spent" in done.out
    after = guard.balance("alice")
    assert (after.limit, after.spent) == (20, Decimal("1.5"))
    assert (after.duration, after.timezone, after.resets_at) == ("monthly", "Europe/Berlin", before.resets_at)


def test_create_says_in_json_which_of_both_it_did(command: Command) -> None:
    first = command("create", "alice", "0.1", "--json").object
    again = command("create", "alice", "0.2", "--duration", "7d", "--json").object
    assert (first["action"], first["limit"], first["duration"]) == ("created", "0.10", None)
    assert (again["action"], again["limit"], again["duration"]) == ("changed", "0.20", "7d")


def test_duration_never_takes_a_window_away(command: Command) -> None:
    command("create", "alice", "1", "--duration", "daily")
    assert command("create", "alice", "1", "--duration", "never", "--json").object["resets_at"] is None


def test_calendar_windows_end_at_midnight_of_their_zone(command: Command) -> None:
    made = command(
        *("create", "alice", "10", "--duration", "monthly", "--timezone", "Europe/Berlin"),
        *("--align", "calendar", "--json"),
    ).object
    local = datetime.fromisoformat(made["resets_at"]).astimezone(ZoneInfo("Europe/Berlin"))
    assert (local.day, local.hour, local.minute) == (1, 0, 0)


def test_an_unlimited_budget_counts_and_refuses_nothing(command: Command) -> None:
    made = command("create", "alice", "unlimited", "--json").object
    assert made["limit"] is None
    assert made["available"] is None
    assert "no limit" in command("users").out


def test_every_digit_of_money_survives_json(command: Command) -> None:
    command("create", "alice", "9007199.254740991")
    assert command("show", "alice", "--json").object["limit"] == "9007199.254740991"
    assert "$9,007,199.254740991" in command("show", "alice").out


def test_the_project_has_a_budget_of_its_own(command: Command, guard: Guard) -> None:
    command("create", "alice", "10")
    done = command("create", "--project-budget", "500", "--duration", "monthly")
    assert done.out.startswith("Created the budget of the project")
    assert guard.balance().limit == 500
    shown = command("show", "--project-budget", "--json").object
    assert (shown["user"], shown["account"]) == (None, "project:default")
    assert [one["user"] for one in command("users", "--json").objects] == ["alice"]
    assert "$500.00" in command("users").out
    assert command("delete", "--project-budget", "--yes").code == 0
    assert command("show", "--project-budget").code == 2


def test_projects_share_nothing(command: Command) -> None:
    command("create", "alice", "10", "--project", "one")
    assert command("show", "alice", "--project", "two").code == 2
    assert command("show", "alice", BUDGETGUARD_PROJECT="one").code == 0


def test_store_option_outranks_the_environment(command: Command, tmp_path: Path) -> None:
    command("create", "alice", "10", "--store", f"disk://{tmp_path}/other")
    assert command("show", "alice", "--store", f"disk://{tmp_path}/other").code == 0
    assert command("show", "alice").code == 2


def test_reset_forgets_the_spend_and_says_how_much_it_was(command: Command, guard: Guard) -> None:
    guard.set_budget(10, user="alice")
    book(guard, "alice", 123_456_789)
    done = command("reset", "alice", "--yes", "--json").object
    assert (done["action"], done["spent_before"], done["spent"]) == ("reset", "0.123456789", "0.00")
    assert guard.balance("alice").spent == 0


def test_delete_forgets_the_user_and_keeps_the_records(command: Command, guard: Guard) -> None:
    guard.set_budget(10, user="alice")
    book(guard, "alice", 5_000_000)
    assert command("delete", "alice", "--yes").code == 0
    assert command("show", "alice").code == 2
    assert command("report", "--json").object["total"]["spent"] == "0.005"


@pytest.mark.parametrize("verb", ["reset", "delete"])
def test_what_cannot_be_undone_is_refused_where_nobody_can_answer(
    command: Command, guard: Guard, verb: str
) -> None:
    guard.set_budget(10, user="alice")
    book(guard, "alice", 5)
    done = command(verb, "alice")
    assert done.code == 2
    assert "--yes" in done.err
    assert guard.balance("alice").spent_nanos == 5


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, ["alice"]), (b"y\n", 0, [])])
def test_delete_asks_at_a_terminal(guard: Guard, answer: bytes, code: int, left: list[str]) -> None:
    guard.set_budget(10, user="alice")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "delete", "alice"],
        env={**clean_environment(), "BUDGETGUARD_STORE": str(guard.settings.store)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.write(ours, answer)
    out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code, err
    assert b"Delete the budget of alice" in err
    assert b"?" not in out, "the question goes to stderr, so that stdout is the result alone"
    assert list(guard.users()) == left


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "alice", "ten"), "'ten'"),
        (("create", "alice", "--", "-5"), "negative"),
        (("create", "alice", "nan"), "finite"),
        (("create", "alice", "1e30"), "at most"),
        (("create", "alice"), "create USER LIMIT"),
        (("create",), "create USER LIMIT"),
        (("create", "alice", "10", "--project-budget"), "--project-budget LIMIT"),
        (("create", "alice", "10", "20"), "20"),
        (("create", "", "10"), "empty"),
        (("create", "a\nb", "10"), "control"),
        (("create", "alice", "10", "--duration", "fortnight"), "'fortnight'"),
        (("create", "alice", "10", "--timezone", "Berlin"), "Europe/Berlin"),
        (("create", "alice", "10", "--align", "moon"), "'moon'"),
        (("create", "alice", "10", "--store", "budgets"), "disk://budgets"),
        (("create", "alice", "10", "--store", "mongo://x"), "mongo://x"),
        (("create", "alice", "10", "--store", "memory://"), "memory://"),
        (("create", "alice", "10", "--project", ""), "project"),
        (("show", "nobody"), "'nobody'"),
        (("show",), "show USER"),
        (("show", "alice", "--project-budget"), "show USER"),
        (("show", "--project-budget"), "--project-budget 500"),
        (("reset", "nobody", "--yes"), "'nobody'"),
        (("delete", "nobody", "--yes"), "'nobody'"),
        (("reset",), "reset USER"),
        (("delete",), "delete USER"),
        (("holds", "nobody"), "'nobody'"),
        (("users", "--limit", "-1"), "--limit"),
        (("users", "--limit", "many"), "--limit"),
        (("users", "--timezone", "Mars"), "Mars"),
        (("report", "--since", "yesterday-ish"), "--since"),
        (("report", "--until", "2026-13-01"), "--until"),
        (("report", "--since", "0d"), "--since"),
        (("report", "--by", "colour"), "'colour'"),
        (("report", "--since", "1d", "--until", "2d"), "not before"),
        (("import-litellm", "/no/such/file.json"), "/no/such/file.json"),
        (("import-litellm",), "PATH"),
        (("colour",), "colour"),
        (("users", "--colour"), "--colour"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command, guard: Guard, arguments: tuple[str, ...], told: str
) -> None:
    guard.set_budget(3, user="somebody")
    before = [one.to_dict() for one in guard.balances()]
    done = command(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("Error: ")
    assert told in done.err
    first, *rest = arguments or ("",)
    in_json = command(first, "--json", *rest)
    assert in_json.code == 2
    assert in_json.out == ""
    assert set(in_json.error) >= {"error", "message"}
    assert told in in_json.error["message"]
    assert [one.to_dict() for one in guard.balances()] == before


@pytest.mark.parametrize(
    "arguments",
    [("users",), ("show", "a"), ("holds",), ("report",), ("delete", "a", "--yes"), ("reset", "a", "-y")],
)
def test_a_mistyped_folder_is_told_and_not_made(
    command: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = command(*arguments, "--store", f"disk://{tmp_path}/bugdets")
    assert done.code == 2
    assert f"{tmp_path}/bugdets" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_opened_is_one_line_and_exit_code_1(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = command("create", "alice", "10", "--store", f"disk://{tmp_path}/file/budgets")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    in_json = command("create", "alice", "10", "--json", "--store", f"disk://{tmp_path}/file/budgets")
    assert in_json.error["error"] == "StoreError"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cache.db").write_text("this is no database, and long enough to be looked at" * 40)
    done = command("users", "--store", f"disk://{tmp_path}/broken")
    assert done.code == 1
    assert "cache.db" in done.err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_without_write_permission_is_told(command: Command, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    done = command("create", "alice", "10", "--store", f"disk://{tmp_path}/locked/budgets")
    assert done.code == 1
    assert "write access" in done.err


def test_a_bad_variable_is_told_by_its_name(command: Command) -> None:
    done = command("users", BUDGETGUARD_THRESHOLDS="half")
    assert done.code == 2
    assert "BUDGETGUARD_THRESHOLDS" in done.err
