"""Budgets of labels, units and rules from the command line, on a disk store that calls are charged to."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from budgetguard import EACH, BudgetExceededError, ModelNotAllowedError, budget_labels
from budgetguard.guard import Guard

from .helpers import Command


def call(guard: Guard, model: str = "gpt-4o-mini", user: str | None = None, **labels: str) -> str:
    """Make a call through the guard, of labels; return the model that it went to."""

    @guard.budgeted
    def ask(messages: str, model: str = model, max_tokens: int = 100) -> dict[str, Any]:
        return {"model": model, "usage": {"prompt_tokens": 500, "completion_tokens": 50}, "choices": []}

    def made() -> str:
        return str(ask("hi", model=model)["model"])

    labelled = budget_labels(**labels) if labels else None
    if user is not None:
        with guard.budget_user(user):
            return made() if labelled is None else _inside(labelled, made)
    return made() if labelled is None else _inside(labelled, made)


def _inside(labelled: budget_labels, made: Any) -> str:
    with labelled:
        return str(made())


def test_a_budget_of_a_label_holds_for_calls_that_carry_it(command: Command, guard: Guard) -> None:
    made = command("create", "--label", "team=red", "0.0001", "--duration", "monthly")
    assert made.out.startswith("Created the budget of team 'red' in project 'default'")
    assert "$0.0001, monthly, resets " in made.out
    with pytest.raises(BudgetExceededError):
        call(guard, "gpt-4o", team="red")
    assert call(guard, "gpt-4o-mini", team="red") == "gpt-4o-mini"
    shown = command("show", "--label", "team=red", "--json").object
    assert (shown["account"], shown["user"], shown["labels"]) == ("team:red", None, {"team": "red"})
    assert shown["models"] == {"gpt-4o-mini": shown["spent"]}
    assert Decimal(shown["spent"]) > 0


def test_user_and_label_together_are_one_budget(command: Command, guard: Guard) -> None:
    made = command("create", "alice", "5", "-l", "model=gpt-4o*", "--json").object
    assert made["labels"] == {"model": "gpt-4o*", "user": "alice"}
    assert guard.balance("alice", model="gpt-4o*").limit == 5
    assert command("show", "--user", "alice", "--label", "model=gpt-4o*").code == 0
    assert "Budget of" in command("show", "alice", "--label", "model=gpt-4o*").out


def test_requests_are_counted_and_named(command: Command, guard: Guard) -> None:
    made = command("create", "--label", "team=red", "2", "--unit", "requests", "--duration", "1h")
    assert "2 requests" in made.out
    call(guard, team="red")
    shown = command("show", "--label", "team=red", "--unit", "requests")
    assert "1 request\n" in "\n".join(" ".join(line.split()) for line in shown.out.splitlines()) + "\n"
    (one,) = command("budgets", "--json").objects
    assert (one["unit"], one["limit"], one["spent"], one["available"]) == ("requests", "2", "1", "1")
    assert command("show", "--label", "team=red").code == 2, "of USD there is none"


def test_a_budget_for_each_value_makes_accounts_and_goes_with_them(command: Command, guard: Guard) -> None:
    made = command("create", "--each", "customer", "60", "--unit", "requests", "--duration", "1h")
    assert "the budget of each customer (requests)" in made.out
    assert "made for each with its first call" in made.out
    changed = command("create", "--each", "customer", "50", "--unit", "requests", "--json").object
    assert (changed["action"], changed["limit"], changed["duration"]) == ("changed", "50", "1h")
    call(guard, customer="acme")
    call(guard, customer="initech")
    each, acme, initech = command("budgets", "--json").objects
    assert [one["each"] for one in (each, acme, initech)] == [True, False, False]
    assert [one["spent"] for one in (each, acme, initech)] == ["0", "1", "1"]
    table = command("budgets", COLUMNS="200").out
    (line,) = [line for line in table.splitlines() if line.startswith("each customer")]
    assert line.split() == ["each", "customer", "(requests)", "50", "requests", "1h"]
    assert "each" in command("show", "--each", "customer", "--unit", "requests").out
    refused = command("reset", "--label", "customer=*", "--unit", "requests", "--yes")
    assert refused.code == 2
    assert "customer=acme" in refused.err
    assert command("reset", "--label", "customer=acme", "--unit", "requests", "--yes").code == 0
    gone = command("delete", "--each", "customer", "--unit", "requests", "--yes")
    assert "with all that it had made" in gone.out
    assert command("budgets", "--json").out == ""


def test_each_user_is_no_user(command: Command, guard: Guard) -> None:
    command("create", "--each", "user", "1", "--label", "model=gpt-4o*", "--duration", "daily")
    guard.set_budget(1, user="alice")
    call(guard, "gpt-4o", "alice")
    found = {one["account"]: one for one in command("budgets", "--json").objects}
    assert len(found) == 2
    assert command("show", "alice", "--label", "model=gpt-4o*", "--json").object["spent"] != "0.00"
    assert guard.balance("alice", model="gpt-4o*").limit == 1
    assert EACH in {one["labels"]["user"] for one in found.values()}


def test_what_is_not_given_stays_and_none_takes_away(command: Command, guard: Guard) -> None:
    command(
        *("create", "--label", "team=red", "10", "--duration", "monthly", "--rollover", "3"),
        *("--on-limit", "wait", "--wait", "90s", "--fallback", "gpt-4o=gpt-4o-mini,gpt-4.1-nano"),
        *(
            "--fallback",
            "gpt-4.1=gpt-4.1-mini",
            "--forbid",
            "o3*",
            "--allow",
            "gpt-*",
            "--max-call-cost",
            "0.5",
        ),
    )
    fields = ("on_limit", "wait", "fallbacks", "allow", "forbid", "max_call_cost", "rollover", "duration")
    before = {
        "on_limit": "wait",
        "wait": "90s",
        "fallbacks": {"gpt-4.1": ["gpt-4.1-mini"], "gpt-4o": ["gpt-4o-mini", "gpt-4.1-nano"]},
        "allow": ["gpt-*"],
        "forbid": ["o3*"],
        "max_call_cost": "0.50",
        "rollover": "3.00",
        "duration": "monthly",
    }
    changed = command("create", "--label", "team=red", "20", "--json").object
    assert changed["action"] == "changed"
    assert {name: changed[name] for name in fields} == before
    told = command("create", "--label", "team=red", "20", "--on-limit", "shadow").out
    assert "gpt-4o-mini or gpt-4.1-nano instead of gpt-4o" in told
    assert "else lets calls through (shadow)" in told
    none = [f"--{name}=none" for name in ("fallback", "allow", "forbid", "max-call-cost", "rollover")]
    cleared = command("create", "--label", "team=red", "20", "--on-limit", "refuse", *none, "--json").object
    assert {name: cleared[name] for name in fields} == {
        "fallbacks": {},
        "allow": [],
        "forbid": [],
        "wait": None,
        "max_call_cost": None,
        "on_limit": "refuse",
        "rollover": "0.00",
        "duration": "monthly",
    }


def test_rules_hold_for_calls(command: Command, guard: Guard) -> None:
    command("create", "--label", "team=red", "0.0003", "--fallback", "gpt-4o=gpt-4o-mini", "--forbid", "o3*")
    assert call(guard, "gpt-4o", team="red") == "gpt-4o-mini"
    with pytest.raises(ModelNotAllowedError):
        call(guard, "o3", team="red")
    command("create", "--label", "team=red", "unlimited", "--max-call-cost", "0.00001")
    with pytest.raises(BudgetExceededError, match="max_call_cost"):
        call(guard, "gpt-4o", team="red")


def test_a_rolling_budget_is_found_by_its_span(command: Command, guard: Guard) -> None:
    made = command("create", "alice", "5", "--rolling", "24h", "--reason", "trial")
    assert "rolling over 24h" in made.out
    assert guard.balance("alice", rolling="24h").rolling
    assert command("show", "alice", "--rolling", "24h", "--json").object["rolling"] is True
    assert command("show", "alice", "--rolling", "12h").code == 2
    assert "rolling 24h" in command("budgets").out
    assert "bit by bit" in command("budgets").out


def test_a_name_tells_budgets_apart(command: Command, guard: Guard) -> None:
    command("create", "--project-budget", "5", "--name", "night shift")
    command("create", "--project-budget", "50")
    found = {one["name"]: one["limit"] for one in command("budgets", "--json").objects}
    assert found == {"night shift": "5.00", "": "50.00"}
    assert "the project (night shift)" in command("budgets").out
    assert command("delete", "--project-budget", "--name", "night shift", "--yes").code == 0
    assert guard.balance().limit == 50


def test_budgets_leaves_users_to_users(command: Command, guard: Guard) -> None:
    guard.set_budget(1, user="alice")
    guard.set_budget(1, user="bob")
    assert "2 users more in `budgetguard users`" in command("budgets").out
    guard.set_budget(7, team="red")
    with guard.budget_user("alice"), guard.budget(0.5):
        call(guard)
    assert [one["account"] for one in command("budgets", "--json").objects] == ["team:red"]
    kinds = [one["account"].partition(":")[0] for one in command("budgets", "--all", "--json").objects]
    assert sorted(kinds) == ["run", "team", "user", "user"]
    assert command("budgets", "--match", "team *", "--json").object["limit"] == "7.00"
    assert command("budgets", "--match", "blue", "--json").out == ""
    guard.set_budget(7, team="blue")
    shortened = command("budgets", "--limit", "1").out
    assert "team 'blue'" in shortened
    assert "The first 1 budget of" in shortened
    assert "team 'red'" not in shortened


def test_a_name_in_a_budget_never_steers_the_terminal(command: Command, guard: Guard) -> None:
    guard.set_budget(1, customer="a\x9b31m")
    for arguments in (("budgets",), ("audit",), ("show", "--label", "customer=a\x9b31m")):
        done = command(*arguments)
        assert done.code == 0
        assert "\x9b" not in done.out


@pytest.mark.parametrize("columns", [40, 70, 120, 200])
def test_no_line_of_a_list_is_wider_than_the_window(command: Command, guard: Guard, columns: int) -> None:
    guard.set_budget(1000, team="a team of a long name", unit="tokens", duration="monthly", on_limit="shadow")
    guard.grant(5_000, team="a team of a long name", unit="tokens", expires="2d")
    guard.set_budget(1, customer=EACH, fallbacks={"gpt-4o": ["gpt-4o-mini"]}, reason="why not")
    call(guard, customer="acme", team="a team of a long name")
    for arguments in (["budgets"], ["audit"], ["calls"], ["report", "--by", "customer,team"]):
        out = command(*arguments, COLUMNS=str(columns)).out
        drawn = [line for line in out.splitlines() if not line.endswith((".", "`."))]
        assert len(drawn) >= 3
        assert max(map(len, drawn)) <= columns


def test_a_grant_raises_until_it_ends(command: Command, guard: Guard) -> None:
    guard.set_budget(10, user="alice")
    done = command("grant", "5", "--user", "alice", "--expires", "2d", "--reason", "launch", "--by", "ann")
    assert "Raised the budget of alice" in done.out
    assert "by $5.00 until " in done.out
    assert "$15.00 in all, $15.00 left" in done.out
    assert "$5.00 until" in command("show", "alice").out
    same = command("create", "alice", "10").out
    assert "$10.00, $15.00 with raises" in same, "the limit is the same, and the raise stays"
    assert "(was" not in same
    assert "$12.00 (was $10.00), $17.00 with raises" in command("create", "alice", "12").out
    command("create", "alice", "10")
    told = command(
        "grant", "alice", "1", "--expires", "2100-01-01T12:00", "--json", "--timezone", "Asia/Tokyo"
    )
    assert (told.object["action"], told.object["amount"]) == ("granted", "1.00")
    assert told.object["until"] == "2100-01-01T03:00:00+00:00"
    assert [one["amount"] for one in told.object["grants"]] == ["5.00", "1.00"]
    assert told.object["limit"] == "16.00"
    command("create", "--project-budget", "3", "--unit", "requests", "--duration", "1d")
    assert (
        "7 requests in all"
        in command(*("grant", "--project-budget", "4", "--unit", "requests", "--expires", "1h")).out
    )


def test_top_up_adds_to_what_never_resets(command: Command, guard: Guard) -> None:
    first = command("top-up", "--label", "customer=acme", "50")
    assert "Added $50.00 to the budget of customer 'acme'" in first.out
    assert command("top-up", "5", "--label", "customer=acme", "--json").object["limit"] == "55.00"
    assert command("top-up", "bob", "1", "--json").object["user"] == "bob"
    guard.set_budget(5, user="monthly", duration="monthly")
    refused = command("top-up", "monthly", "1")
    assert refused.code == 2
    assert "budgetguard grant" in refused.err
    assert guard.balance("monthly").limit == 5


def test_members_carry_labels_without_saying_so(command: Command, guard: Guard) -> None:
    guard.set_budget(1, user="alice")
    guard.set_budget(1, team="red")
    assert (
        "alice now has feature 'search', team 'red'."
        in command("member", "alice", "team=red", "feature=search").out
    )
    call(guard, user="alice")
    assert guard.balance(team="red").spent > 0
    assert command("member", "alice", "--json").object["labels"] == {"team": "red", "feature": "search"}
    assert command("member", "alice", "feature=", "--json").object["labels"] == {"team": "red"}
    assert "team 'red'" in command("show", "alice").out
    assert command("show", "alice", "--json").object["member"] == {"team": "red"}
    assert command("member", "alice", "team=").out == "alice now has no labels.\n"
    assert command("member", "nobody").code == 2


def test_audit_tells_who_changed_what_and_why(command: Command, guard: Guard) -> None:
    command("create", "--label", "team=red", "10", "--duration", "monthly", "--by", "ann", "--reason", "Q4")
    command("grant", "--label", "team=red", "5", "--expires", "2d", "--by", "=ben", "--reason", "+SUM(A1)")
    command("member", "alice", "team=red", BUDGETGUARD_ACTOR="carol")
    command("delete", "--label", "team=red", "--yes", "--reason", "@over")
    rows = command("audit", "--json").objects
    assert [(one["by"], one["action"], one["reason"]) for one in rows[:3]] == [
        ("ann", "set_budget", "Q4"),
        ("=ben", "grant", "+SUM(A1)"),
        ("carol", "set_member", ""),
    ]
    assert rows[0]["details"] == {"limit": "10.00", "duration": "monthly"}
    at = datetime.fromisoformat(rows[0]["at"])
    assert abs(datetime.now(at.tzinfo) - at) < timedelta(minutes=10)
    table = command("audit", COLUMNS="200").out
    assert "$10.00, monthly" in table
    assert "$5.00 until" in table
    assert "Deleted" in table
    spread = command("audit", "--csv").out.splitlines()
    assert spread[0] == "at,by,key,action,account,budget,what,reason"
    assert ",'=ben,," in spread[2]
    assert spread[2].endswith(",'+SUM(A1)")
    assert spread[4].endswith(",'@over")
    assert command("audit", "--since", "1d", "--json").out.count("\n") == 4
    assert "No budget was changed" in command("audit", "--since", "2100-01-01").out


def kept(guard: Guard) -> list[tuple[Any, ...]]:
    return [
        (one.account, one.limit_nanos, one.duration, one.document.rules, one.document.labels, one.grants)
        for one in guard.budgets()
    ]


WHOSE = ("--label", "team=red")
GRANT = ("grant", "5", *WHOSE)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "10", "--label", "red"), "'red'"),
        (("create", "10", "--label", "=red"), "'=red'"),
        (("create", "10", "--label", "team="), "'team='"),
        (("create", "10", "--label", "Team=red"), "'Team'"),
        (("create", "10", "--label", "limit=red"), "'limit'"),
        (("create", "10", "--label", "by=red"), "'by'"),
        (("create", "10", *WHOSE, "--label", "team=blue"), "'blue'"),
        (("create", "10", *WHOSE, "--each", "team"), "twice"),
        (("create", "10", "--label", "user=alice"), "'alice'"),
        (("create", "alice", "10", "--each", "user"), "twice"),
        (("create", "alice", "10", "--user", "bob"), "create USER LIMIT"),
        (("create", "10", *WHOSE, "--project-budget"), "--project-budget"),
        (("create", "10", "--unit", "requests"), "create USER LIMIT"),
        (("create", *WHOSE), "--label team=red LIMIT"),
        (("create", "10", *WHOSE, "--unit", "euros"), "'euros'"),
        (("create", "1.5", *WHOSE, "--unit", "requests"), "'1.5'"),
        (("create", "ten", *WHOSE, "--unit", "tokens"), "'ten'"),
        (("create", *WHOSE, "--unit", "tokens", "--", "-1"), "-1"),
        (("create", "10", *WHOSE, "--unit", "concurrent", "--duration", "1h"), "no window"),
        (("create", "10", *WHOSE, "--rolling", "24h", "--duration", "1h"), "--duration 1h"),
        (("create", "10", *WHOSE, "--rolling", "monthly"), "'monthly'"),
        (("create", "10", *WHOSE, "--rolling", "24h", "--align", "calendar"), "align"),
        (("create", "10", "--label", "team=blue", "--rollover", "5"), "duration"),
        (("create", "10", *WHOSE, "--rollover", "much", "--duration", "1h"), "'much'"),
        (("create", "10", *WHOSE, "--on-limit", "cry"), "'cry'"),
        (("create", "10", *WHOSE, "--on-limit", "wait"), "--wait 30s"),
        (("create", "10", *WHOSE, "--wait", "30s"), "--on-limit wait"),
        (("create", "10", *WHOSE, "--on-limit", "shadow", "--wait", "30s"), "shadow"),
        (("create", "10", *WHOSE, "--on-limit", "wait", "--wait", "soon"), "'soon'"),
        (("create", "10", *WHOSE, "--fallback", "gpt-4o"), "'gpt-4o'"),
        (("create", "10", *WHOSE, "--fallback", "gpt-4o="), "'gpt-4o='"),
        (("create", "10", *WHOSE, "--fallback", "gpt-4o=gpt-4o"), "itself"),
        (("create", "10", *WHOSE, "--fallback", "gpt-4o=gtp-4o"), "'gtp-4o'"),
        (("create", "10", *WHOSE, "--fallback", "gpt-4o=o3", "--forbid", "o3"), "'o3'"),
        (("create", "10", *WHOSE, "--allow", "gtp-*"), "'gtp-*'"),
        (("create", "10", *WHOSE, "--forbid", "gtp-4o"), "'gtp-4o'"),
        (("create", "10", "--label", "model=gtp-*"), "'gtp-*'"),
        (("create", "10", *WHOSE, "--max-call-cost", "little"), "'little'"),
        (("create", "10", *WHOSE, "--by", ""), "by"),
        (GRANT, "--expires 2d"),
        ((*GRANT, "--expires", "soon"), "'soon'"),
        ((*GRANT, "--expires", "2020-01-01"), "2020"),
        ((*GRANT, "--expires", "2d", "--unit", "requests"), "(requests)"),
        (("grant", "5", "--label", "team=blue", "--expires", "2d"), "team 'blue'"),
        (("grant", "5", "--user", "nobody", "--expires", "2d"), "'nobody'"),
        (("grant", "0", *WHOSE, "--expires", "2d"), "more than 0"),
        (("grant", "5", "--expires", "2d"), "grant USER AMOUNT"),
        (("grant", "5", "--label", "team=free", "--expires", "2d"), "no limit"),
        (("top-up", "5", "--label", "team=free"), "no limit"),
        (("top-up", "5", *WHOSE), "budgetguard grant"),
        (("top-up", "5", "--label", "customer=*"), "each"),
        (("member", "somebody", "team"), "'team'"),
        (("member", "somebody", "model=x"), "'model'"),
        (("member", "somebody", "Team="), "'Team'"),
        (("member", "somebody", "team=a", "team=b"), "'b'"),
        (("member", "nobody"), "'nobody'"),
        (("show", "somebody", "--user", "somebody"), "twice"),
        (("show", "--label", "team=blue"), "team 'blue'"),
        (("show", "--each", "team"), "each team"),
        (("show", "somebody", "--unit", "requests"), "user 'somebody' (requests)"),
        (("reset", *WHOSE, "--unit", "tokens", "--yes"), "(tokens)"),
        (("reset", "--label", "customer=*", "--yes"), "customer=acme"),
        (("delete", "--each", "team", "--yes"), "each team"),
        (("audit", "--since", "yesterday-ish"), "--since"),
        (("audit", "--csv", "--json"), "choose one"),
        (("calls", "--since", "1d", "--until", "2d"), "not before"),
        (("calls", "--label", "red"), "'red'"),
        (("calls", "--csv", "--json"), "choose one"),
        (("budgets", "--limit", "-1"), "--limit"),
    ],
)
def test_bad_input_changes_nothing_and_names_the_value(
    command: Command, guard: Guard, arguments: tuple[str, ...], told: str
) -> None:
    guard.set_budget(3, user="somebody")
    guard.set_budget(3, team="red", duration="monthly")
    guard.set_budget(None, team="free")
    guard.set_budget(3, customer=EACH)
    before, trail = kept(guard), len(list(guard.audit()))
    done = command(*arguments)
    assert done.code == 2, done.out
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert told in done.err
    assert kept(guard) == before
    assert len(list(guard.audit())) == trail
    assert list(guard.holds()) == []


def test_a_budget_that_is_in_another_project_is_found(command: Command, guard: Guard) -> None:
    guard.in_project("shop").set_budget(1, team="red")
    done = command("show", "--label", "team=red")
    assert done.code == 2
    assert "--project shop" in done.err
