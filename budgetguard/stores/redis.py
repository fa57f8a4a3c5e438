"""`redis://`, `valkey://` and their kin: balances on a server, shared by every machine that reaches it.

Each verb is one Lua script, so one transaction and one round trip, on keys that share a hash tag. The
scripts are the ledger (`core/ledger.py`) in the server's language, but for windows: calendars and time zones
are unknown there, so a script that finds a window over changes nothing and answers so; it is sent again with
the next window, which `windows.window_at` computes from the server's time.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import count
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from budgetguard.core.accounts import Balance, Budget, Document, Grant
from budgetguard.core.holds import (
    Booked,
    Charge,
    Crossing,
    Denied,
    Entry,
    Expiry,
    Granted,
    Hold,
    HoldRecord,
    Outdated,
    Reservation,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.ledger import REMEMBERED
from budgetguard.core.money import MAX_NANOS
from budgetguard.core.process import store_verbs, system_clock
from budgetguard.core.rows import Export, Stored, new_life
from budgetguard.core.usage import FADE_AT, MOST_MODELS, Observations, observe
from budgetguard.core.windows import Clock, Milliseconds, window_at, windows_between
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores.base import BaseStore
from budgetguard.stores.redis_export import Exporting
from budgetguard.stores.redis_link import EvictionCheck, LuaScript, RedisLink, is_forbidden
from budgetguard.stores.redis_rows import (
    balance_of,
    budget_words,
    charge_words,
    counts_word,
    decode,
    dump,
    encode,
    entry_words,
    expiries_of,
    hold_words,
    more_budget_words,
    number,
    pairs,
    record_of,
    words_of,
)
from budgetguard.stores.targets import redis_target
from budgetguard.stores.transfer import batches, frozen_error, open_error

SCHEMA: Final = 2
_PAGE: Final = b"200"
_RESTORED_AT_ONCE: Final = 100
_SWEEP_EVERY: Final = 64
_SCANNED: Final = b"1000"
# A caller that looks for an account is about to be refused, and must not wait for a walk over all keys.
_SCANS_FOR_ACCOUNT: Final = 50
_GLOB: Final = re.compile(rb"[*?\[\]^\\-]")
_SWEEP_AT_MOST: Final = b"200"
_SEEN_AT_MOST: Final = 100_000
_BEGINNING: Final = ("common", "booking", "accounts")
_Hint: TypeAlias = tuple[bytes, ...]


@store_verbs
class RedisStore(BaseStore):
    """One project's balances on a Redis or Valkey server.

    The server's clock rules where `clock` is the system's, so machines whose clocks differ agree on
    windows and expiries; any other clock rules itself.

    Args:
        url: see `targets.redis_target`.

    Raises:
        ConfigurationError: a bad URL, the redis package is missing, or the server may evict budgets.
        StoreError: the server cannot be reached, or lets nobody in.
    """

    blocking = True

    def __init__(self, url: str, *, project: str, clock: Clock, retention: str) -> None:
        super().__init__(url, project=project, clock=clock, retention=retention)
        self._prefix = _prefix(SCHEMA, project)
        self._seen: set[str] = set()
        self._seen_scopes = False
        self._verbs = count(hash(self._prefix) % _SWEEP_EVERY)
        self._link = RedisLink(redis_target(url))
        self._eviction = EvictionCheck(self._link)
        if problem := self._eviction.problem():
            raise ConfigurationError(problem)
        self._refuse_older_schema()

    def reserve(self, hold: Hold) -> Reservation:
        if problem := self._eviction.problem():
            raise StoreError(f"{problem}; nothing was changed")
        words = [
            encode(hold.id),
            number(hold.amount),
            number(hold.on_expiry),
            number(hold.ttl),
            number(hold.scopes) + (b"s" if self._seen_scopes else b""),
            *hold_words(hold),
            *charge_words(hold.charges, self._seen),
        ]
        answer, found = self._run("reserve", words, sweep=True)
        if isinstance(answer, bytes):
            answer = [b"granted", answer, [], []]
        match answer:
            case [b"granted", mask, expiries, shadowed]:
                expiries = (*found, *expiries_of(expiries))
                taken = [c for c, on in zip(hold.charges, mask, strict=True) if on == _ONE]
                self._see(taken)
                self._seen_scopes |= hold.scopes > 0
                return Granted(
                    tuple([charge.account for charge in taken]),
                    expired=expiries,
                    shadowed=tuple(map(balance_of, shadowed)),
                )
            case [b"refused", account, expiries]:
                return Denied(balance_of(account), (*found, *expiries_of(expiries)))
        self._announce(found)
        match answer:
            case [b"repeated", names]:
                return Granted(tuple(map(decode, names)), repeated=True)
            case [b"unknown", name]:
                return UnknownAccount(decode(name))
            case [b"outdated", scopes, accounts]:
                documents = {decode(name): _document(*document) for name, *document in accounts}
                return Outdated(self._scoped(*scopes) if scopes else None, documents)
        return Unlimited()

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        words = [
            encode(hold.id),
            number(settlement.cost),
            encode(settlement.state),
            encode(settlement.outcome),
            dump(dict(settlement.usage.units)) if settlement.usage else b"",
            encode(settlement.request_id or ""),
            counts_word(settlement.units),
            number(len(settlement.thresholds)),
            *map(number, settlement.thresholds),
            number(len(settlement.observed)),
        ]
        for model, tokens in settlement.observed:
            (bucket,) = observe({}, tokens)
            words += (encode(model), encode(bucket))
        words += (number(FADE_AT), number(MOST_MODELS))
        answer, found = self._run("settle", [*words, b"known"], sweep=True)
        if answer == b"whole":
            # Never reserved here, or lost: the money is spent all the same, so the whole hold is sent.
            whole = [number(hold.amount), number(hold.on_expiry), number(hold.ttl), encode(hold.model)]
            words += (b"whole", *whole, *hold_words(hold), *charge_words(hold.charges, self._seen))
            answer, more = self._run("settle", words, sweep=True)
            found = (*found, *more)
        if isinstance(answer, bytes):
            answer = [answer, [], []]
        match answer:
            case [b"unknown", name]:
                self._announce(found)
                return UnknownAccount(decode(name))
            case [b"repeated", _, _]:
                return Booked(booked=0, repeated=True, expired=found)
        state, crossed, expiries = answer
        crossings = []
        for account, reached in crossed:
            balance = balance_of(account)
            crossings += [Crossing(balance.account, int(percent), balance) for percent in reached]
        return Booked(
            settlement.cost,
            late=state == b"late",
            crossings=tuple(crossings),
            expired=(*found, *expiries_of(expiries)),
        )

    def attach(self, hold_id: str, request_id: str) -> bool:
        answer, _ = self._run("attach", [encode(hold_id), encode(request_id)])
        return bool(answer)

    def attached(self, request_id: str) -> HoldRecord | None:
        return self._present(b"answer", encode(request_id))

    def read(self, account: str) -> Balance | None:
        return self._balance("read", [encode(account), b"0"])

    def mark(self, account: str, mark: int) -> bool:
        answer, found = self._run("change", [encode(account), b"mark", number(mark)])
        self._announce((*found, *expiries_of(answer[1])) if len(answer) > 1 else found)
        first: bool = answer[0] == b"first"
        return first

    def scopes(self) -> Document:
        revision, rules = self._link.ask(b"MGET", self._prefix + b"scopes", self._prefix + b"scopes.rules")
        return self._scoped(revision or b"0", rules or b"")

    def set_budget(
        self, account: str, budget: Budget, *, ephemeral: bool = False, entry: Entry | None = None
    ) -> Balance:
        words = [
            encode(account),
            *budget_words(budget),
            *more_budget_words(budget),
            b"1" if ephemeral else b"0",
            *entry_words(entry),
        ]
        seen: list[bytes] = [b"0", *[b""] * 6]
        while True:
            answer, found = self._run("set_budget", [*words, *seen])
            expiries = (*found, *expiries_of(answer[-1]))
            self._announce(expiries)
            if answer[0] == b"balance":
                return balance_of(answer[1])
            now, (duration, timezone, anchor, start) = int(answer[1]), answer[2]
            same_span = (decode(duration) or None, decode(timezone)) == (budget.duration, budget.timezone)
            kept = int(anchor) if same_span else now
            begin = kept if budget.starts_at is None else budget.starts_at
            window = window_at(budget.duration, begin, budget.timezone, max(now, int(start)))
            seen = [
                b"1",
                duration,
                timezone,
                anchor,
                number(begin),
                number(window.start),
                number(window.end),
            ]

    def grant(self, account: str, grant: Grant, *, entry: Entry | None = None) -> Balance | None:
        most, remembered = number(MAX_NANOS), number(REMEMBERED)
        raised = [encode(grant.id), number(grant.amount), number(grant.until_ms), most, remembered]
        return self._balance("change", [encode(account), b"grant", *entry_words(entry), *raised])

    def set_labels(self, account: str, labels: str, *, entry: Entry | None = None) -> Balance | None:
        kept = [encode(labels), number(new_life())]
        return self._balance("change", [encode(account), b"labels", *entry_words(entry), *kept])

    def save_scopes(self, document: Document, seen: int, *, entry: Entry | None = None) -> bool:
        kept = [number(document.revision), encode(document.rules), number(seen)]
        saved, _ = self._run("save_scopes", [*kept, *entry_words(entry)])
        self._seen_scopes |= bool(saved) and document.revision > 0
        return bool(saved)

    def trail(self, since: Milliseconds = 0) -> Iterator[Entry]:
        for entry_id, text in self._pages("trail", [], b"[%012x" % since, b"+"):
            if text is None:
                raise StoreError(
                    f"entry {decode(entry_id)} of the audit trail of project {self.project!r} in the store "
                    f"at {self._link.target} was there and is lost: restore it from a backup"
                )
            yield Entry(decode(entry_id), decode(text))

    def delete(self, account: str, *, entry: Entry | None = None) -> bool:
        answer, found = self._run("delete", [encode(account), *entry_words(entry)])
        self._seen.discard(account)
        existed: bool = answer[0] == b"deleted"
        self._announce((*found, *expiries_of(answer[1])) if existed else found)
        return existed

    def list(self, kind: str = "") -> Iterator[Balance]:
        low, high = (b"-", b"+") if not kind else (b"[" + encode(f"{kind}:"), b"(" + encode(f"{kind};"))
        failed: builtins.list[Any] = []
        for due, account in self._pages("list", [], low, high, failed):
            balance = self.read(decode(account[0])) if due else balance_of(account)
            if balance is not None:
                yield balance
        # The others are listed all the same; but a list that lacks some must not pass for a whole one.
        for kind_of_failure, name in failed:
            raise self._failure(kind_of_failure, name)

    def reset(self, account: str, *, entry: Entry | None = None) -> Balance | None:
        return self._balance("read", [encode(account), b"1", *entry_words(entry)])

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        for found in self._records(b"open", b"-", b"+"):
            if found.state == "held" and (account is None or account in found.accounts):
                yield found

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        high = b"+" if until is None else b"(%012x" % until
        return self._records(b"holds", b"[%012x" % since, high)

    def observations(self, model: str) -> Observations:
        found = self._link.ask(b"HGETALL", self._prefix + b"b:" + encode(model))
        counts = dict(zip(found[::2], found[1::2], strict=True))
        return {decode(bucket): int(seen) for bucket, seen in counts.items() if bucket != b"sum"}

    def export(self) -> Export:
        def ask(what: bytes, low: bytes = b"", size: bytes = b"", *more: bytes) -> Any:
            return self._run("export", [what, low, size, *more])[0]

        rows = Exporting(
            ask, self._answers, self._models, self.observations, scopes=self.scopes, entries=self.trail
        )
        return rows.export()

    def restore(self, rows: Iterable[Stored]) -> None:
        for batch in batches(rows, _RESTORED_AT_ONCE):
            self._run("restore", [word for one in batch for word in words_of(one)])

    def freeze(self, note: str | None) -> None:
        self._run("freeze", [encode(note or "")])

    def frozen(self) -> str | None:
        (_, note), _ = self._run("export", [b"now", b"", b""])
        return decode(note) or None

    def projects(self, account: str | None = None) -> Iterator[str]:
        # No key lists them: it might be on another node, and a role may have rights to its project's keys
        # only. In a cluster, those on this project's node are found.
        head, tail = b"bg:%d:{" % SCHEMA, b"}:accounts" if account is None else b"}:a:" + encode(account)
        pattern = head + b"*" + _GLOB.sub(rb"\\\g<0>", tail)
        found: set[str] = set()
        cursor, passes = b"0", 0
        while True:
            cursor, keys = self._link.ask(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCANNED)
            names = (key.removeprefix(head).removesuffix(tail).decode() for key in keys)
            found.update(unquote(name) for name in names if "}" not in name)
            passes += 1
            if cursor == b"0" or (account is not None and passes == _SCANS_FOR_ACCOUNT):
                break
        yield from sorted(found)

    def close(self) -> None:
        self._link.close()

    def _answers(self) -> Iterator[tuple[bytes, bytes]]:
        cursor = b"0"
        while True:
            cursor, found = self._link.ask(b"HSCAN", self._prefix + b"answers", cursor, b"COUNT", _PAGE)
            yield from pairs(found).items()
            if cursor == b"0":
                return

    def _models(self) -> set[bytes]:
        return set(self._link.ask(b"SMEMBERS", self._prefix + b"models"))

    def _balance(self, script: str, words: Sequence[bytes]) -> Balance | None:
        answer, found = self._run(script, words)
        if answer[0] == b"none":
            self._announce(found)
            return None
        self._announce((*found, *expiries_of(answer[2])))
        return balance_of(answer[1])

    def _present(self, by: bytes, ident: bytes) -> HoldRecord | None:
        answer, found = self._run("hold", [by, ident])
        if answer[0] == b"none":
            self._announce(found)
            return None
        _, hold_id, fields, on, expiries = answer
        self._announce((*found, *expiries_of(expiries)))
        return record_of(hold_id, fields, on)

    def _records(self, index: bytes, low: bytes, high: bytes) -> Iterator[HoldRecord]:
        for due, hold_id, fields, on in self._pages("records", [index], low, high):
            found = self._present(b"id", hold_id) if due else record_of(hold_id, fields, on)
            if found is not None:
                yield found

    def _pages(
        self,
        script: str,
        words: Sequence[bytes],
        low: bytes,
        high: bytes,
        failed: builtins.list[Any] | None = None,
    ) -> Iterator[Any]:
        while True:
            (seen, last, page, *more), _ = self._run(script, [*words, low, high, _PAGE])
            yield from page
            if failed is not None:
                failed += more[0]
            if seen < int(_PAGE):
                return
            low = b"(" + last

    def _run(
        self, script: str, words: Sequence[bytes], *, sweep: bool = False
    ) -> tuple[Any, tuple[Expiry, ...]]:
        """Run a script until its work is done; return its answer, and the expiries that earlier runs found.

        Raises:
            StoreError: the server cannot be asked.
        """
        deadline = self._link.deadline()
        swept = _SWEEP_AT_MOST if sweep and not next(self._verbs) % _SWEEP_EVERY else b"0"
        hints: list[bytes] = [b"0"]
        expiries: tuple[Expiry, ...] = ()
        try:
            while True:
                stamp = b"" if self._clock is system_clock else number(self._clock())
                head = [self._prefix, stamp, number(self.retention_ms), swept, *hints]
                answer = self._link.run(_script(script), [*head, *words], deadline)
                if isinstance(answer, list) and answer[0] == b"frozen":
                    raise frozen_error(self, decode(answer[1]))
                if answer == b"in use":
                    raise open_error(self)
                if isinstance(answer, list) and answer[0] in (b"lost", b"damaged"):
                    raise self._failure(*answer)
                if isinstance(answer, list) and answer[0] == b"more":
                    expiries += expiries_of(answer[1])
                elif isinstance(answer, list) and answer[0] == b"need":
                    needs = [_window(int(answer[1]), *need) for need in answer[2]]
                    hints = [number(len(needs)), *(word for need in needs for word in need)]
                else:
                    return answer, expiries
        except StoreError:
            self._announce(expiries)
            raise

    def _failure(self, kind: bytes, name: bytes) -> StoreError:
        """Return the error of a verb that found an account lost or damaged."""
        what = f"account {decode(name)!r}" if name else "what kinds of budgets there are"
        account = f"{what} of project {self.project!r} in the store at {self._link.target}"
        if kind == b"damaged":
            return StoreError(
                f"what is stored of {account} is damaged: reset the account, or delete it and make it again; "
                "nothing was changed"
            )
        return StoreError(
            f"{account} was there and is lost: the server evicts, was flushed, or came back without its "
            "data. Restore it from a backup, or give the account its budget anew; nothing was changed"
        )

    def _refuse_older_schema(self) -> None:
        older = _prefix(SCHEMA - 1, self.project)
        try:
            found = self._link.ask(b"EXISTS", older + b"accounts")
        except StoreError as error:
            if is_forbidden(error):  # its user may use the keys of this schema alone
                return
            raise
        if found:
            raise StoreError(
                f"project {self.project!r} at {self._link.target} has schema {SCHEMA - 1}, and this "
                f"budgetguard knows {SCHEMA}: use the budgetguard that made it, or name another database or "
                f"project, or delete the keys that begin with {older.decode()}; nothing was changed"
            )

    def _scoped(self, revision: bytes, rules: bytes) -> Document:
        document = _document(revision, rules)
        self._seen_scopes |= document.revision > 0
        return document

    def _see(self, charges: Sequence[Charge]) -> None:
        """Remember accounts that exist, and that the server does not expire by itself."""
        seen = self._seen
        for charge in charges:
            if not charge.ephemeral and charge.account not in seen:
                if len(seen) >= _SEEN_AT_MOST:
                    seen.clear()
                seen.add(charge.account)


_ONE: Final = ord("1")


def _prefix(schema: int, project: str) -> bytes:
    """Return what the keys of a project begin with."""
    return f"bg:{schema}:{{{quote(project, safe='')}}}:".encode()


def _document(revision: bytes, rules: bytes, labels: bytes = b"") -> Document:
    return Document(int(revision), decode(rules), decode(labels))


def _window(
    now: Milliseconds, name: bytes, duration: bytes, timezone: bytes, anchor: bytes, ends: bytes
) -> _Hint:
    """Return the window that an account is in now, and how many were skipped since its last one's end."""
    begin, span, place = int(anchor) if anchor else now, decode(duration) or None, decode(timezone)
    window = window_at(span, begin, place, now)
    skipped = windows_between(span, begin, place, int(ends), window.start) if span and ends else 0
    reach = number(window.start), number(window.end)
    return name, duration, timezone, number(begin), ends, *reach, number(skipped)


@cache
def _script(name: str) -> LuaScript:
    folder = resources.files(__package__) / "lua"
    parts = [(folder / f"{part}.lua").read_text("utf-8") for part in (*_BEGINNING, name)]
    return LuaScript("\n".join(parts))
