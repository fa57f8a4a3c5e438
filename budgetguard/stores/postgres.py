"""`postgresql://`: balances in a database, shared by every machine that reaches it.

A verb is one call of a function in the database, which locks what it changes in a fixed order: see
`sql/`. A function that finds a window over changes nothing and answers so; it is called again with the next
window, which only this side can compute (`windows.window_at`). The database's clock counts.
"""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from budgetguard.core.accounts import Balance, Budget, Document, Grant
from budgetguard.core.holds import (
    Booked,
    Denied,
    Entry,
    Granted,
    Hold,
    HoldRecord,
    Reservation,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.process import store_verbs, system_clock
from budgetguard.core.rows import Export, Stored, new_life
from budgetguard.core.usage import FADE_AT, Observations, observe
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.errors import StoreError
from budgetguard.stores.base import BaseStore
from budgetguard.stores.postgres_link import shared_link
from budgetguard.stores.postgres_needs import Needs
from budgetguard.stores.postgres_rows import (
    amounts_of,
    balance_of,
    charge_values,
    crossings_of,
    decode,
    decode_optional,
    digest,
    document_of,
    dump,
    encode,
    encode_optional,
    entry_of,
    entry_values,
    expiries_of,
    hold_values,
    outdated_of,
    record_of,
    sql_value,
)
from budgetguard.stores.postgres_schema import ensure, grants, migrate
from budgetguard.stores.postgres_transfer import exported, rows_value
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
        revisions = [charge.revision for charge in hold.charges]
        judged = (amounts_of(hold), revisions, hold.scopes)
        values = (encode(hold.id), *charge_values(hold.charges), *judged, *hold_values(hold))
        answer = self._verb("reserve", values, Needs(hold.charges))
        self._sweep_at_times()
        if "granted" in answer:
            expired = expiries_of(answer.get("expired", ()))
            shadowed = tuple(map(balance_of, answer.get("shadowed", ())))
            return Granted(tuple(map(decode, answer["granted"])), answer["repeated"], expired, shadowed)
        if "refused" in answer:
            return Denied(balance_of(answer["refused"]), expiries_of(answer["expired"]))
        if "outdated" in answer:
            return outdated_of(answer)
        return UnknownAccount(decode(answer["unknown"])) if "unknown" in answer else Unlimited()

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        names, flags, _ = charge_values(hold.charges)
        units = settlement.usage.units if settlement.usage else {}
        ended = (
            settlement.state,
            settlement.cost,
            dump(dict(settlement.units)) if settlement.units else None,
            settlement.outcome,
            encode(settlement.request_id) if settlement.request_id else None,
            dump({encode(unit): count for unit, count in units.items()}),
            list(settlement.thresholds),
            [encode(model) for model, _ in settlement.observed],
            [bucket for _, tokens in settlement.observed for bucket in observe({}, tokens)],
            FADE_AT,
        )
        values = (encode(hold.id), names, flags, *hold_values(hold), *ended)
        answer = self._verb("settle", values, Needs(hold.charges))
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

    def mark(self, account: str, mark: int) -> bool:
        answer = self._verb("mark", (encode(account), mark), Needs())
        self._announce(expiries_of(answer["expired"]))
        return bool(answer["marked"])

    def scopes(self) -> Document:
        return document_of(self._call("read_scopes", (), self._link.deadline()))

    def read(self, account: str) -> Balance | None:
        return self._balance("read", account)

    def set_budget(
        self, account: str, budget: Budget, *, ephemeral: bool = False, entry: Entry | None = None
    ) -> Balance:
        values = (
            encode(account),
            budget.limit,
            budget.duration,
            budget.timezone,
            budget.starts_at,
            budget.rolling,
            budget.rollover,
            encode(budget.rules),
            ephemeral,
            new_life(),
            *entry_values(entry),
        )
        answer = self._verb("set_budget", values, Needs(budget=budget))
        self._announce(expiries_of(answer["expired"]))
        return balance_of(answer["balance"])

    def grant(self, account: str, grant: Grant, *, entry: Entry | None = None) -> Balance | None:
        raised = (encode(grant.id), grant.amount, grant.until_ms)
        return self._balance("grant", account, *raised, *entry_values(entry))

    def set_labels(self, account: str, labels: str, *, entry: Entry | None = None) -> Balance | None:
        return self._balance("set_labels", account, encode(labels), new_life(), *entry_values(entry))

    def save_scopes(self, document: Document, seen: int, *, entry: Entry | None = None) -> bool:
        values = (document.revision, encode(document.rules), seen, *entry_values(entry))
        return bool(self._call("save_scopes", values, self._link.deadline())["saved"])

    def trail(self, since: Milliseconds = 0) -> Iterator[Entry]:
        after = ""
        while True:
            values = (f"{since:012x}", after, _PAGE)
            page = self._call("page_of_entries", values, self._link.deadline()) or []
            yield from map(entry_of, page)
            if len(page) < _PAGE:
                return
            after = page[-1]["id"]

    def delete(self, account: str, *, entry: Entry | None = None) -> bool:
        answer = self._verb("delete", (encode(account), *entry_values(entry)), Needs())
        self._announce(expiries_of(answer["expired"]))
        return bool(answer["existed"])

    def list(self, kind: str = "") -> Iterator[Balance]:
        for one in self._accounts(f"{kind}:" if kind else ""):
            found = self.read(decode(one["key"])) if one["due"] else balance_of(one["value"])
            if found is not None:
                yield found

    def reset(self, account: str, *, entry: Entry | None = None) -> Balance | None:
        return self._balance("reset", account, *entry_values(entry))

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
        for one in self._pages("page_of_holds", f"{since:012x}", end):
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
            self._call("restore_rows", (dump(rows_value(batch)),), self._link.deadline())

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

    def _balance(self, verb: str, account: str, *values: Any) -> Balance | None:
        answer = self._verb(verb, (encode(account), *values), Needs())
        self._announce(expiries_of(answer["expired"]))
        return None if answer["balance"] is None else balance_of(answer["balance"])

    def _present(self, verb: str, key: str | bytes) -> HoldRecord | None:
        answer = self._verb(verb, (key,), Needs())
        if answer is None:
            return None
        self._announce(expiries_of(answer["expired"]))
        return None if answer["record"] is None else record_of(answer["record"])

    def _verb(self, name: str, values: tuple[Any, ...], needs: Needs) -> Any:
        """Call a function that is told the time and what it needs, as often as it asks for more."""
        deadline = self._link.deadline()
        while True:
            answer = self._call(name, (*values, self._now(), needs.value), deadline)
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
        yield from self._pages("page_of_accounts", prefix, end, with_open_holds)

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
            page = self._call("page_of_open", values, self._link.deadline()) or []
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
