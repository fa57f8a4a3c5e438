"""`postgresql://`: balances in a database, shared by every machine that reaches it.

A verb is one call of a function in the database, which locks what it changes in a fixed order: see
`sql/`. Where it finds a window over, it asks for the next one, which only this side computes
(`windows.window_at`), and is called once more. The database's clock counts.
"""

from __future__ import annotations

import builtins
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from budgetguard.core.accounts import Balance, Budget, check_id
from budgetguard.core.holds import (
    Charge,
    Expiry,
    Granted,
    Hold,
    HoldRecord,
    Refused,
    Reservation,
    Settled,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.inside import store_verbs
from budgetguard.core.learning import FADE_AT, Observations, observe
from budgetguard.core.rows import Export, Stored
from budgetguard.core.windows import Clock, Milliseconds, duration_ms, system_clock, window_at
from budgetguard.errors import StoreError
from budgetguard.stores.forking import survive_forks
from budgetguard.stores.movable import COPY, batches, moved, note_of
from budgetguard.stores.postgres_link import Link, shared_link
from budgetguard.stores.postgres_rows import exported, rows_value
from budgetguard.stores.postgres_schema import ensure, grants, migrate
from budgetguard.stores.postgres_target import parse_url
from budgetguard.stores.postgres_wire import (
    balance_of,
    charge_values,
    crossings_of,
    decode,
    digest,
    dump,
    encode,
    expiries_of,
    record_of,
    sql_value,
)

_PAGE: Final = 500
_SWEEP_EVERY: Final = 512
_SWEPT_AT_MOST: Final = 2_048

# From one project to the next by the index, so that not every account is read.
_PROJECTS: Final = """
WITH RECURSIVE found AS (
    (SELECT a.project FROM @schema@.accounts a ORDER BY a.project LIMIT 1)
    UNION ALL
    SELECT (SELECT a.project FROM @schema@.accounts a WHERE a.project > f.project ORDER BY a.project LIMIT 1)
    FROM found f WHERE f.project IS NOT NULL
)
SELECT jsonb_agg(f.project ORDER BY f.project) FROM found f
WHERE f.project IS NOT NULL AND ($1::text IS NULL OR EXISTS (
    SELECT FROM @schema@.accounts a WHERE a.project = f.project AND a.name = $1
))
"""
_INHERITED: Final[list[Link]] = []
"""Connections of a parent process: to close them, be it by forgetting them, would end them for it too."""


@store_verbs
class PostgresStore:
    """Keep one project's rows in a PostgreSQL database.

    Nothing is connected before the first verb.

    Args:
        url: see `postgres_target.parse_url`.

    Raises:
        ConfigurationError: a bad URL.
    """

    blocking = True

    def __init__(self, url: str, *, project: str, clock: Clock, retention: str) -> None:
        self.url = url
        self.project = check_id(project, name="project")
        self._clock = clock
        self.retention_ms = duration_ms(retention)
        self._target = parse_url(url)
        self._expiry_hooks: list[Callable[[Expiry], None]] = []
        self._since_sweep = 0
        self._lock = threading.RLock()
        self._link = self._new_link()
        survive_forks(self)

    def reserve(self, hold: Hold) -> Reservation:
        names, flags, limits = charge_values(hold.charges)
        fields = (hold.amount, *_fields(hold))

        def arguments(found: _Found) -> tuple[Any, ...]:
            return (encode(hold.id), names, flags, limits, *fields, self._now(), *found.values())

        answer = self._verb("reserve", arguments, _Found(hold.charges))
        self._sweep_at_times()
        if "granted" in answer:
            expired = expiries_of(answer.get("expired", ()))
            return Granted(tuple(map(decode, answer["granted"])), answer["repeated"], expired)
        if "refused" in answer:
            return Refused(balance_of(answer["refused"]), expiries_of(answer["expired"]))
        return UnknownAccount(decode(answer["unknown"])) if "unknown" in answer else Unlimited()

    def settle(self, hold: Hold, settlement: Settlement) -> Settled | UnknownAccount:
        names, flags, _ = charge_values(hold.charges)
        units = settlement.usage.units if settlement.usage else {}
        ended = (
            settlement.state,
            settlement.cost,
            settlement.outcome,
            encode(settlement.request_id) if settlement.request_id else None,
            dump({encode(unit): count for unit, count in units.items()}),
            list(settlement.thresholds),
            [encode(model) for model, _ in settlement.observed],
            [bucket for _, tokens in settlement.observed for bucket in observe({}, tokens)],
            FADE_AT,
        )
        fields = (hold.amount, *_fields(hold), *ended)

        def arguments(found: _Found) -> tuple[Any, ...]:
            return (encode(hold.id), names, flags, *fields, self._now(), *found.values())

        answer = self._verb("settle", arguments, _Found(hold.charges))
        self._sweep_at_times()
        if "unknown" in answer:
            return UnknownAccount(decode(answer["unknown"]))
        if "repeated" in answer:
            return Settled(booked=0, repeated=True)
        return Settled(
            answer["settled"],
            late=answer["late"],
            crossings=crossings_of(answer["crossings"]),
            expired=expiries_of(answer["expired"]),
        )

    def attach(self, hold_id: str, request_id: str) -> bool:
        values = (encode(hold_id), digest(request_id), encode(request_id))
        return bool(self._call("attach", values, self._link.deadline()))

    def attached(self, request_id: str) -> HoldRecord | None:
        return self._present("attached", digest(request_id))

    def read(self, account: str) -> Balance | None:
        return self._balance("read", account)

    def set_budget(self, account: str, budget: Budget, *, ephemeral: bool = False) -> Balance:
        life = int.from_bytes(os.urandom(6))
        told = (budget.limit, budget.duration, budget.timezone, budget.starts_at, ephemeral, life)

        def arguments(found: _Found) -> tuple[Any, ...]:
            return (encode(account), *told, self._now(), sorted(found.also), found.window)

        answer = self._verb("set_budget", arguments, _Found(budget=budget))
        self._announce(answer)
        return balance_of(answer["balance"])

    def delete(self, account: str) -> bool:
        def arguments(found: _Found) -> tuple[Any, ...]:
            return encode(account), self._now(), sorted(found.also)

        answer = self._verb("delete", arguments, _Found())
        self._announce(answer)
        return bool(answer["existed"])

    def list(self, kind: str = "") -> Iterator[Balance]:
        for one in self._accounts(f"{kind}:" if kind else ""):
            found = self.read(decode(one["key"])) if one["due"] else balance_of(one["value"])
            if found is not None:
                yield found

    def reset(self, account: str) -> Balance | None:
        return self._balance("reset", account)

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        if account is not None:
            self.read(account)  # so that what has expired is not listed as open
            yield from self._holds_of(account)
            return
        for one in self._accounts("", with_open_holds=True):
            name = decode(one["key"])
            if one["due"]:
                self.read(name)
            # Each is listed with the first of its accounts.
            yield from (hold for hold in self._holds_of(name) if min(hold.accounts, default=name) == name)

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        end = None if until is None else f"{until:012x}"
        for one in self._pages("holds_page", f"{since:012x}", end):
            found = self._present("present", one["key"]) if one["due"] else record_of(one["value"])
            if found is not None:
                yield found

    def observations(self, model: str) -> Observations:
        counts: Observations = self._call("observed", (digest(model),), self._link.deadline())
        return counts

    def projects(self, account: str | None = None) -> Iterator[str]:
        name = None if account is None else encode(account)
        statement = _PROJECTS.replace("@schema@", f'"{self._target.schema}"').encode()
        found = self._link.run(statement, [sql_value(name)], self._link.deadline())
        yield from map(decode, json.loads(found or b"[]"))

    def export(self, since: Milliseconds = 0) -> Export:
        at: Milliseconds = self._call("instant", (self._now(),), self._link.deadline())
        return Export(at, self._exported(since))

    def _exported(self, since: Milliseconds) -> Iterator[Stored]:
        # All of it is one state of the database: one long transaction, on a connection of its own.
        with self._link.snapshot() as con:

            def ask(function: str, *arguments: Any) -> Any:
                statement, values = self._asking(function, arguments)
                return self._read(con.ask(statement, values, prepare=False))

            yield from exported(ask, since)

    def restore(self, rows: Iterable[Stored]) -> None:
        for batch in batches(rows):
            self._call("restore", (dump(rows_value(batch)), COPY), self._link.deadline())

    def retire(self, moved_to: str | None) -> None:
        whereto = None if moved_to is None else encode(note_of(moved_to))
        self._call("retire", (whereto,), self._link.deadline())

    def retired(self) -> str | None:
        found: str | None = self._call("moved_to", (), self._link.deadline())
        return None if found is None else decode(found)

    def on_expiry(self, hook: Callable[[Expiry], None]) -> None:
        self._expiry_hooks.append(hook)

    def close(self) -> None:
        self._link.left(self)

    def migrate(self) -> tuple[int, int]:
        """Make the tables and functions, or bring them up to date; return the version before and after.

        Raises:
            StoreError: the database cannot be asked, or this role may not.
        """
        before, after = self._link.apart(lambda con: migrate(con, self._target))
        return before, after

    def grants(self) -> str:
        """Return the SQL with which the owner lets another role use the store."""
        return grants(self._target)

    def _balance(self, verb: str, account: str) -> Balance | None:
        def arguments(found: _Found) -> tuple[Any, ...]:
            return encode(account), self._now(), sorted(found.also), found.windows_value()

        answer = self._verb(verb, arguments, _Found())
        self._announce(answer)
        return None if answer["balance"] is None else balance_of(answer["balance"])

    def _present(self, verb: str, key: str | bytes) -> HoldRecord | None:
        def arguments(found: _Found) -> tuple[Any, ...]:
            return key, self._now(), sorted(found.also), found.windows_value()

        answer = self._verb(verb, arguments, _Found())
        if answer is None or answer["record"] is None:
            return None
        self._announce(answer)
        return record_of(answer["record"])

    def _verb(self, name: str, arguments: Callable[[_Found], tuple[Any, ...]], found: _Found) -> Any:
        deadline = self._link.deadline()
        while True:
            answer = self._call(name, arguments(found), deadline)
            if answer is None or "again" not in answer:
                return answer
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"cannot use the store at {self._target}: others kept changing the same accounts for "
                    f"{self._target.timeout:g} s: try again, or raise ?timeout=; nothing was changed"
                )
            found.learn(answer)

    def _call(self, name: str, arguments: Sequence[Any], deadline: float) -> Any:
        self._link.opened(self)
        return self._read(self._link.run(*self._asking(name, arguments), deadline))

    def _asking(self, name: str, arguments: Sequence[Any]) -> tuple[bytes, builtins.list[bytes | None]]:
        places = ",".join([f"${number}" for number in range(1, len(arguments) + 2)])
        statement = f'SELECT "{self._target.schema}".{name}({places})'.encode()
        return statement, [sql_value(encode(self.project)), *map(sql_value, arguments)]

    def _read(self, answer: bytes | None) -> Any:
        value = json.loads(answer) if answer else None
        if isinstance(value, dict) and "moved" in value:
            raise moved(self, decode(value["moved"]))
        return value

    def _accounts(self, prefix: str, *, with_open_holds: bool = False) -> Iterator[Mapping[str, Any]]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else None
        yield from self._pages("accounts_page", prefix, end, with_open_holds)

    def _pages(self, function: str, start: str, end: str | None, *more: Any) -> Iterator[Mapping[str, Any]]:
        """Yield what a function answers for start <= key < end."""
        last = None if end is None else encode(end)
        first = encode(start)
        while True:
            values = (first, last, *more, self._now(), _PAGE)
            page = self._call(function, values, self._link.deadline()) or []
            yield from page
            if len(page) < _PAGE:
                return
            first = page[-1]["key"] + "\x01"  # the next text there is: PostgreSQL's holds no NUL

    def _holds_of(self, account: str) -> Iterator[HoldRecord]:
        after = (-1, "")
        while True:
            values = (encode(account), *after, _PAGE)
            page = self._call("open_page", values, self._link.deadline()) or []
            yield from map(record_of, page)
            if len(page) < _PAGE:
                return
            after = (page[-1]["expires_ms"], page[-1]["id"])

    def _sweep_at_times(self) -> None:
        self._since_sweep += 1
        if self._since_sweep < _SWEEP_EVERY:
            return
        self._since_sweep = 0
        with suppress(StoreError):  # the verb is done; what is left now will be swept another time
            values = (self._now(), self.retention_ms, _SWEPT_AT_MOST)
            self._call("sweep", values, self._link.deadline())

    def _now(self) -> Milliseconds | None:
        # Clients whose clocks disagree must agree on when a window ends: the server's clock counts.
        return None if self._clock is system_clock else self._clock()

    def _announce(self, answer: Mapping[str, Any]) -> None:
        for expiry in expiries_of(answer["expired"]):
            for hook in self._expiry_hooks:
                hook(expiry)

    def _new_link(self) -> Link:
        target = self._target
        return shared_link(self.url, target, lambda con: ensure(con, target))

    def _before_fork(self) -> None:
        """Do nothing: the child gets connections of its own."""

    def _after_fork_in_child(self) -> None:
        _INHERITED.append(self._link)
        self._link = self._new_link()


class _Found:
    """What a verb was found to need beyond what it was given: locks, windows, accounts to make."""

    def __init__(self, charges: Sequence[Charge] = (), budget: Budget | None = None) -> None:
        self._charges = charges
        self._budget = budget
        self._windows: dict[str, dict[str, Any]] = {}
        self._making: dict[str, dict[str, Any]] = {}
        self.also: set[str] = set()
        self.window: str | None = None

    def values(self) -> tuple[Any, ...]:
        return sorted(self.also), self.windows_value(), dump(self._making) if self._making else None

    def windows_value(self) -> str:
        return dump(list(self._windows.values()))

    def learn(self, answer: Mapping[str, Any]) -> None:
        self.also.update(answer.get("lock") or ())
        for over in answer.get("windows") or ():
            next_one = window_at(over["duration"], over["anchor"], over["timezone"], over["now"])
            self._windows[over["account"]] = {**over, "start": next_one.start, "end": next_one.end}
        for name in answer.get("missing") or ():
            self._making[name] = self._new_account(name, answer["now"])
        if self._budget is not None and "anchor" in answer:
            self.window = dump(self._window_of_budget(self._budget, answer))

    def _new_account(self, name: str, now: Milliseconds) -> dict[str, Any]:
        charge = next(c for c in self._charges if encode(c.account) == name and c.budget is not None)
        budget = charge.budget
        assert budget is not None
        anchor = now if budget.starts_at is None else budget.starts_at
        window = window_at(budget.duration, anchor, budget.timezone, now)
        return {
            "limit": budget.limit,
            "duration": budget.duration,
            "timezone": budget.timezone,
            "anchor": anchor,
            "start": window.start,
            "end": window.end,
            "life": int.from_bytes(os.urandom(6)),
            "now": now,
            "ephemeral": charge.ephemeral,
        }

    @staticmethod
    def _window_of_budget(budget: Budget, asked: Mapping[str, Any]) -> dict[str, Any]:
        window = window_at(budget.duration, asked["anchor"], budget.timezone, asked["instant"])
        return {
            "anchor": asked["anchor"],
            "fresh": asked["fresh"],
            "start": window.start,
            "end": window.end,
        }


def _fields(hold: Hold) -> tuple[Any, ...]:
    return (
        hold.on_expiry,
        hold.ttl,
        hold.created,
        None if hold.user is None else encode(hold.user),
        encode(hold.model),
        encode(hold.endpoint),
        [encode(tag) for tag in hold.tags],
    )
