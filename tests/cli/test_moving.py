"""`copy`, `deliver`, `spool` and `verify`, from the command line."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from budgetguard.core.holds import Charge, Hold, Settlement, new_hold_id
from budgetguard.engine.spool import Spool
from budgetguard.guard import Guard

from .helpers import Command, book, clean_environment, run


@pytest.fixture
def new(tmp_path: Path) -> str:
    return f"disk://{tmp_path}/new"


def spooled(folder: Path, guard: Guard, cost: int) -> None:
    """Leave a settlement in the spool, as a program does whose store is away."""
    now = guard.engine.now()
    hold = Hold(new_hold_id(now), (Charge("user:a"),), 9, 9, 900_000, now, "a", "gpt-4o-mini", "chat")
    guard.store.reserve(hold)
    Spool(folder, guard.store.url, guard.project).put(hold, Settlement(cost))


def test_copy_moves_a_project_and_says_what_to_do_next(
    command: Command, guard: Guard, folder: Path, new: str
) -> None:
    guard.set_budget(10, user="a")
    book(guard, "a", 1_500_000_000)
    old = f"disk://{folder}"
    done = command("copy", "--from", old, "--to", new)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Moved project 'default' to {new}: ")
    assert "The sums agree. Writes were refused for 0." in done.out
    assert "$1.50" in done.out
    assert f"budgetguard deliver --from {old} --to {new} --project default" in done.out
    assert "$1.50" in command("show", "a", "--store", new).out
    refused = command("reset", "a", "--yes")
    assert refused.code == 1
    assert f"has moved from {old} to {new}" in refused.err
    assert "$1.50" in command("show", "a").out  # reads go on
    again = command("copy", "--from", old, "--to", new, "--json")
    assert (again.code, again.object["action"]) == (0, "none")


def test_copy_writes_every_sum_as_json(command: Command, guard: Guard, folder: Path, new: str) -> None:
    guard.set_budget(10, user="a")
    book(guard, "a", 3)
    book(guard, "a", 4, end="open")
    done = command("copy", "--from", f"disk://{folder}", "--to", new, "--json").object
    assert (done["action"], done["from"], done["to"]) == ("moved", f"disk://{folder}", new)
    assert (done["limits"], done["spent"], done["held"]) == ("10.00", "0.000000003", "0.000000008")
    assert (done["accounts"], done["calls"], done["open"], done["cost"]) == (1, 2, 1, "0.000000003")


def test_a_move_that_was_killed_is_undone(command: Command, guard: Guard, folder: Path, new: str) -> None:
    guard.set_budget(10, user="a")
    old = f"disk://{folder}"
    nothing = command("copy", "--from", old, "--undo")
    assert (nothing.code, "nothing to undo" in nothing.err) == (2, True)
    guard.store.freeze(f"moving to {new}")  # type: ignore[attr-defined]  # as a mover leaves it
    refused = command("reset", "a", "--yes")
    assert (refused.code, "`budgetguard copy --undo`" in refused.err) == (1, True)
    assert command("copy", "--from", old, "--undo").out.startswith("Opened project 'default' of ")
    guard.set_budget(11, user="a")
    unnamed = command("copy", "--from", old)
    assert (unnamed.code, "--to URL" in unnamed.err) == (2, True)


def test_copy_refuses_what_would_be_written_over(
    command: Command, guard: Guard, folder: Path, new: str
) -> None:
    guard.set_budget(10, user="a")
    command("create", "b", "5", "--store", new)
    done = command("copy", "--from", f"disk://{folder}", "--to", new, "--json")
    assert done.code == 2
    assert "has a project 'default' already, with account user:b" in done.error["message"]
    gone = command("copy", "--from", f"disk://{folder}", "--to", "memory://")
    assert (gone.code, "memory:// store is gone" in gone.err) == (2, True)


def test_what_waits_for_the_old_store_is_listed_and_delivered_to_the_new_one(
    command: Command, guard: Guard, folder: Path, new: str, tmp_path: Path
) -> None:
    guard.set_budget(10, user="a")
    waits = tmp_path / "spool"
    for cost in (3, 4):
        spooled(waits, guard, cost)
    old, environ = f"disk://{folder}", {"BUDGETGUARD_SPOOL": str(waits)}
    command("copy", "--from", old, "--to", new)
    listed = command("spool", "--json", **environ).object
    assert (listed["store"], listed["project"]) == (old, "default")
    assert (listed["settlements"], listed["cost"]) == (2, "0.000000007")
    assert "default" in command("spool", **environ).out
    sent = command("deliver", "--from", old, "--to", new, "--json", **environ).object
    assert (sent["settlements"], sent["booked"], sent["repeated"]) == (2, "0.000000007", 0)
    assert command("spool", **environ).out == "Nothing waits.\n"
    assert command("deliver", "--from", old, "--to", new, **environ).out.startswith(
        "Nothing waits for project"
    )
    assert command("show", "a", "--json", "--store", new).object["spent"] == "0.000000007"
    assert command("verify", "--store", new).code == 0


def test_verify_exits_with_one_and_a_table_where_a_balance_is_not_its_records(
    command: Command, guard: Guard, folder: Path
) -> None:
    guard.set_budget(10, user="a")
    book(guard, "a", 1_500_000_000)
    agrees = command("verify")
    assert (agrees.code, agrees.err) == (0, "")
    assert "every balance is what the records of 1 call come to" in agrees.out
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as con:
        con.execute("UPDATE accounts SET spent = spent + 250000000")
    differs = command("verify")
    assert (differs.code, differs.err) == (1, "")
    assert "1 account of project 'default'" in differs.out
    assert "1 number not what the records of 1 call come to" in differs.out
    for cell in ("a", "spent", "$1.75", "$1.50", "$0.25"):
        assert cell in differs.out.split()
    found = command("verify", "--json")
    assert found.code == 1
    assert found.object["differences"] == [
        {
            "account": "user:a",
            "what": "spent",
            "model": None,
            "stored": "1.75",
            "records": "1.50",
        }
    ]


def test_verify_is_a_command_of_the_installed_program(guard: Guard, folder: Path) -> None:
    guard.set_budget(10, user="a")
    done = run("verify", "--store", f"disk://{folder}", **clean_environment())
    assert (done.code, done.err) == (0, "")
