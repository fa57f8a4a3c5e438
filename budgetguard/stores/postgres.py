"""`postgresql://`: balances in a database, shared by every machine that reaches it.

A verb is one call of a function in the database, which locks what it changes in a fixed order: see
`sql/`. A function that finds a window over changes nothing and answers so; it is called again with the next
window, which only this side can compute (`windows.window_at`). The database's clock counts.
"""

from __future__ import annotations

import builtins
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import (
    Booked,
    Charge,
    Denied,
    Granted,
    Hold,
    HoldRecord,
    Reservation,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.process import store_verbs, system_clock
from budgetguard.core.rows import Export, Stored
from budgetguard.core.usage import FADE_AT, Observations, observe
from budgetguard.core.windows import Clock, Milliseconds, window_at
from budgetguard.errors import StoreError
from budgetguard.stores.base import BaseStore
from budgetguard.stores.postgres_link import shared_link
from budgetguard.stores.postgres_rows import (
    balance_of,
    charge_values,
    crossings_of,
    decode,
    decode_optional,
    digest,
    dump,
    encode,
    encode_optional,
    expiries_of,
    exported,
    hold_values,
    record_of,
    rows_value,
    sql_value,
)
from budgetguard.stores.postgres_schema import ensure, grants, migrate
from budgetguard.stores.targets import postgres_target
from budgetguard.stores.transfer import batches, frozen_error, open_error

_PAGE: Final = 500
_SWEEP_EVERY: Final = 512
_SWEPT_AT_MOST: Final = 2_048


@store_verbs
class PostgresStore(BaseStore):
    """One project's balances in a PostgreSQL database.

    Nothing is connected before the first verb.

    Args:
        url: see `targets.postgres_target`.

    Raises:
        ConfigurationError: a bad URL.
    """

    blocking = True

    def __init__(self, url: str, *, project: str, clock: Clock, retention: str) -> None:
        super().__init__(url, project=project, clock=clock, retention=retention)
        target = self._target = postgres_target(url)
        self._since_sweep = 0
        self._link = shared_link(url, target, lambda con: ensure(con, target))

    def reserve(self, hold: Hold) -> Reservation:
        names, flags, limits = charge_values(hold.charges)
        fields = (hold.amount, *hold_values(hold))

        def arguments(needs: _Needs) -> tuple[Any, ...]:
            return (encode(hold.id), names, flags, limits, *fields, self._now(), *needs.values())

        answer = self._verb("reserve", arguments, _Needs(hold.charges))
        self._sweep_at_times()
        if "granted" in answer:
            expired = expiries_of(answer.get("expired", ()))
            return Granted(tuple(map(decode, answer["granted"])), answer["repeated"], expired)
        if "refused" in answer:
            return Denied(balance_of(answer["refused"]), expiries_of(answer["expired"]))
        return UnknownAccount(decode(answer["unknown"])) if "unknown" in answer else Unlimited()

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
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
        fields = (hold.amount, *hold_values(hold), *ended)

        def arguments(needs: _Needs) -> tuple[Any, ...]:
            return (encode(hold.id), names, flags, *fields, self._now(), *needs.values())

        answer = self._verb("settle", arguments, _Needs(hold.charges))
        self._sweep_at_times()
        if "unknown" in answer:
            return UnknownAccount(decode(answer["unknown"]))
        if "repeated" in answer:
            return Booked(booked=0, repeated=True)
        return Booked(
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

        def arguments(needs: _Needs) -> tuple[Any, ...]:
            return (encode(account), *told, self._now(), sorted(needs.also), needs.window)

        answer = self._verb("set_budget", arguments, _Needs(budget=budget))
        self._announce(expiries_of(answer["expired"]))
        return balance_of(answer["balance"])

    def delete(self, account: str) -> bool:
        def arguments(needs: _Needs) -> tuple[Any, ...]:
            return encode(account), self._now(), sorted(needs.also)

        answer = self._verb("delete", arguments, _Needs())
        self._announce(expiries_of(answer["expired"]))
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
        yield from map(decode, self._call("projects", (encode_optional(account),), self._link.deadline()))

    def export(self) -> Export:
        at: Milliseconds = self._call("instant", (self._now(),), self._link.deadline())
        return Export(at, self._exported())

    def _exported(self) -> Iterator[Stored]:
        # All of it is one state of the database: one long transaction, on a connection of its own.
        with self._link.apart("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as con:

            def ask(function: str, *arguments: Any) -> Any:
                statement, values = self._asking(function, arguments)
                return self._read(con.ask(statement, values, prepare=False))

            yield from exported(ask)

    def restore(self, rows: Iterable[Stored]) -> None:
        for batch in batches(rows):
            self._call("restore", (dump(rows_value(batch)),), self._link.deadline())

    def freeze(self, note: str | None) -> None:
        self._call("freeze", (encode_optional(note),), self._link.deadline())

    def frozen(self) -> str | None:
        found: str | None = self._call("frozen_note", (), self._link.deadline())
        return decode_optional(found)

    def close(self) -> None:
        self._link.left(self)

    def migrate(self) -> tuple[int, int]:
        """Make the tables and functions, or bring them up to date; return the version before and after.

        Raises:
            StoreError: the database cannot be asked, or this role may not.
        """
        with self._link.apart() as con:
            return migrate(con, self._target)

    def grants(self) -> str:
        """Return the SQL with which the owner lets another role use the store."""
        return grants(self._target)

    def _balance(self, verb: str, account: str) -> Balance | None:
        answer = self._as_of_now(verb, encode(account))
        return None if answer["balance"] is None else balance_of(answer["balance"])

    def _present(self, verb: str, key: str | bytes) -> HoldRecord | None:
        answer = self._as_of_now(verb, key)
        return None if answer is None or answer["record"] is None else record_of(answer["record"])

    def _as_of_now(self, verb: str, key: str | bytes) -> Any:
        def arguments(needs: _Needs) -> tuple[Any, ...]:
            return key, self._now(), sorted(needs.also), needs.windows_value()

        answer = self._verb(verb, arguments, _Needs())
        if answer is not None:
            self._announce(expiries_of(answer["expired"]))
        return answer

    def _verb(self, name: str, arguments: Callable[[_Needs], tuple[Any, ...]], needs: _Needs) -> Any:
        deadline = self._link.deadline()
        while True:
            answer = self._call(name, arguments(needs), deadline)
            if answer is None or "again" not in answer:
                return answer
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"cannot use the store at {self._target}: others kept changing the same accounts for "
                    f"{self._target.timeout:g} s: try again, or raise ?timeout=; nothing was changed"
                )
            needs.learn(answer)

    def _call(self, name: str, arguments: Sequence[Any], deadline: float) -> Any:
        self._link.opened(self)
        return self._read(self._link.run(*self._asking(name, arguments), deadline))

    def _asking(self, name: str, arguments: Sequence[Any]) -> tuple[bytes, builtins.list[bytes | None]]:
        places = ",".join([f"${number}" for number in range(1, len(arguments) + 2)])
        statement = f'SELECT "{self._target.schema}".{name}({places})'.encode()
        return statement, [sql_value(encode(self.project)), *map(sql_value, arguments)]

    def _read(self, answer: bytes | None) -> Any:
        value = json.loads(answer) if answer else None
        if isinstance(value, dict) and "frozen" in value:
            raise frozen_error(self, decode(value["frozen"]))
        if value == "in use":
            raise open_error(self)
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


class _Needs:
    """What a verb needs beyond its arguments, as its answers say: locks, windows, accounts to make."""

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
