"""Budgets as people set them: for a user, a team, any labels; what they count; and what changes them.

Each change adds an entry to the project's audit trail, in the transaction that makes it.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from budgetguard.core.accounts import (
    PROJECT,
    UNITS,
    USD,
    USER,
    Balance,
    Budget,
    Document,
    Grant,
    Unit,
    account_name,
    check_id,
)
from budgetguard.core.holds import Entry, new_hold_id
from budgetguard.core.labels import Named, Pattern, Scope, check_labels, literal, named_by
from budgetguard.core.money import Nanos, to_usd
from budgetguard.core.rows import balance, new_account, new_life
from budgetguard.core.rules import Rules, labels_text, read_labels, read_rules
from budgetguard.core.scopes import Scopes, read_scopes
from budgetguard.core.trail import Change, change_of, entry_of
from budgetguard.core.windows import (
    Milliseconds,
    duration_ms,
    to_milliseconds,
)
from budgetguard.engine.terms import Terms, TermsReader
from budgetguard.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

_MOST_TRIES: Final = 64


class Budgets:
    """The budgets of one engine's project.

    Args:
        engine: whose.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = TermsReader(engine)

    def named(
        self,
        user: str | None,
        labels: Mapping[str, str],
        *,
        unit: str = USD,
        rolling: str = "",
        name: str = "",
    ) -> str:
        """Return the name of a budget's account.

        Args:
            user: an id, taken literally; or `EACH`; None is no user's.
            labels: patterns by label.
            unit: what it counts.
            rolling: the duration over which it rolls, empty for windows of the calendar.
            name: tells it from other budgets for the same calls.

        Raises:
            ConfigurationError: no such label or unit; a bad value.
        """
        if unit not in UNITS:
            raise ConfigurationError(f"unit must be one of {', '.join(UNITS)}, not {unit!r}")
        if name:
            check_id(name, name="name")
        if USER in labels:
            raise ConfigurationError("user is given twice: as the user, and as a label")
        patterns = dict(labels)
        if user is not None:
            patterns[USER] = user if isinstance(user, Pattern) else literal(check_id(user, name="user"))
        if not patterns and unit == USD and not rolling and not name:
            return account_name(PROJECT, self._engine.project)
        scope = Scope.of(patterns)
        account = Named(scope, _unit(unit), rolling, name).account
        if len(account) > _LONGEST_NAME:
            raise ConfigurationError(f"the labels of this budget are too long: {account[:80]}…")
        return account

    def set(
        self,
        account: str,
        limit: int | float | Decimal | None,
        terms: Terms,
        *,
        by: str | None = None,
        reason: str = "",
    ) -> Balance:
        """Make a budget, or change it and keep what is spent; see `Guard.set_budget`."""
        named = named_by(account)
        unit: Unit = USD if named is None else named.unit
        budget = self._reader.budget(account, limit, terms, unit)
        shown = None if limit is None else format(_plain(budget.limit or 0, unit), "f")
        rules = {name: value for name, value in _said(read_rules(budget.rules)).items() if name != "template"}
        entry = self._entry(
            "set_budget",
            account,
            by,
            reason,
            limit=shown,
            duration=budget.duration,
            rolling=budget.rolling or None,
            rollover=format(_plain(budget.rollover, unit), "f") if budget.rollover else None,
            **rules,
        )
        if named is None or not named.scope.is_for_each:
            if named is not None:
                self._extend_scopes(lambda scopes: scopes.having(named, budget), None)
            return self._engine.store.set_budget(account, budget, entry=entry)
        # Not by its own name: it has no account, but makes those of each value.
        template = replace(budget, rules=replace(read_rules(budget.rules), template=account).text)
        self._extend_scopes(lambda scopes: scopes.having(named, template), entry)
        for one in self._made_from(account):
            self._engine.store.set_budget(one.account, template)
        return _standing(account, budget, self._engine.now())

    def grant(
        self,
        account: str,
        amount: int | float | Decimal,
        *,
        expires: str | datetime | None,
        by: str | None = None,
        reason: str = "",
    ) -> Balance | None:
        """Raise a budget's limit until some time; None if there is no such budget.

        Raises:
            ConfigurationError: no amount, no end, or one that has passed; a budget without a limit.
        """
        now = self._engine.now()
        until = _end(expires, now)
        found = self._limited(account, "grant")
        if found is None:
            return None
        nanos = self._reader.amount(amount, found.unit, name="amount", least=1)
        said = {"amount": format(_plain(nanos, found.unit), "f"), "until": until}
        entry = self._entry("grant", account, by, reason, **said)
        return self._engine.store.grant(account, Grant(new_hold_id(now), nanos, until), entry=entry)

    def top_up(
        self, account: str, amount: int | float | Decimal, *, by: str | None = None, reason: str = ""
    ) -> Balance:
        """Add to a prepaid budget, which never resets; make it if it does not exist.

        Raises:
            ConfigurationError: no amount; a budget without a limit, or with windows.
        """
        store, now = self._engine.store, self._engine.now()
        named = named_by(account)
        unit: Unit = USD if named is None else named.unit
        nanos = self._reader.amount(amount, unit, name="amount", least=1)
        found = self._limited(account, "top_up")
        if found is not None and (found.duration is not None or found.rolling):
            raise ConfigurationError(
                f"{account} has a limit for each window ({found.duration}), and what is topped up would come "
                "again in each: raise it for a while with grant(amount, expires=...), or set a higher limit"
            )
        if found is None:
            self.set(account, 0, Terms(), by=by, reason=reason)
        entry = self._entry("top_up", account, by, reason, amount=format(_plain(nanos, unit), "f"))
        after = store.grant(account, Grant(new_hold_id(now), nanos, None), entry=entry)
        if after is None:
            raise StoreError(f"{account} was deleted while it was topped up; nothing was added")
        return after

    def set_member(
        self, user: str, labels: Mapping[str, str | None], *, by: str | None = None, reason: str = ""
    ) -> Mapping[str, str]:
        """Keep labels with a user; a label that is None is taken away. Return all that are kept.

        A user without a budget gets the settings' default budget, else one without a limit.

        Raises:
            ConfigurationError: a bad user, label or value.
        """
        account = account_name(USER, check_id(user, name="user"))
        check_labels({name: value for name, value in labels.items() if value is not None})
        store = self._engine.store
        found = store.read(account)
        if found is None:
            found = store.set_budget(account, self._engine.settings.default or Budget(None))
        kept = dict(read_labels(found.document.labels))
        for name, value in labels.items():
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = value
        entry = self._entry("set_member", account, by, reason, labels=kept)
        store.set_labels(account, labels_text(kept), entry=entry)
        return kept

    def member(self, user: str) -> Mapping[str, str]:
        """Return the labels that are kept with a user; none of one who is not known."""
        found = self._engine.store.read(account_name(USER, check_id(user, name="user")))
        return {} if found is None else read_labels(found.document.labels)

    def reset(self, account: str, *, by: str | None = None, reason: str = "") -> Balance | None:
        """Set what a budget has spent to nothing; None if it does not exist."""
        entry = self._entry("reset", account, by, reason)
        return self._engine.store.reset(account, entry=entry)

    def delete(self, account: str, *, by: str | None = None, reason: str = "") -> bool:
        """Forget a budget, and return whether it existed. One for each value goes with all that it made."""
        store = self._engine.store
        entry = self._entry("delete", account, by, reason)
        if account not in self.templates():
            return store.delete(account, entry=entry)
        self._extend_scopes(lambda scopes: scopes.without(account), entry)
        for one in self._made_from(account):
            store.delete(one.account)
        return True

    def templates(self) -> Mapping[str, Budget]:
        """Return the budgets for each value of a label, by the names of their accounts."""
        return read_scopes(self._engine.store.scopes().rules).templates

    def all(self) -> Iterator[Balance]:
        """Yield all budgets, in order of their accounts' names; those for each value before the others."""
        now = self._engine.now()
        for name, budget in sorted(self.templates().items()):
            yield _standing(name, budget, now)
        yield from self._engine.store.list()

    def trail(self, since: Milliseconds = 0) -> Iterator[Change]:
        """Yield the changes of budgets, oldest first."""
        return map(change_of, self._engine.store.trail(since))

    def _made_from(self, template: str) -> list[Balance]:
        """Return the accounts that a budget for each value has made, and that nobody has set since."""
        return [
            one
            for one in self._engine.store.list()
            if one.document.rules and read_rules(one.document.rules).template == template
        ]

    def _extend_scopes(self, change: Any, entry: Entry | None) -> None:
        """Change the project's scopes, whoever else does meanwhile."""
        store = self._engine.store
        for _ in range(_MOST_TRIES):
            seen = store.scopes()
            before = read_scopes(seen.rules)
            after: Scopes = change(before)
            if after == before and entry is None:
                return
            if store.save_scopes(Document(new_life(), after.text), seen.revision, entry=entry):
                return
        raise StoreError(f"the kinds of budgets changed {_MOST_TRIES} times meanwhile; nothing was set")

    def _limited(self, account: str, what: str) -> Balance | None:
        if account in self.templates():
            raise ConfigurationError(
                f"{account} is a budget for each value: {what} one of those that it made, such as one "
                "customer's"
            )
        found = self._engine.store.read(account)
        if found is not None and found.limit_nanos is None:
            raise ConfigurationError(
                f"{account} has no limit, so there is nothing to raise: set one with set_budget"
            )
        return found

    def _entry(self, action: str, account: str, by: str | None, reason: str, **details: Any) -> Entry:
        who = self._engine.settings.actor or _system_user() if by is None else check_id(by, name="by")
        if reason:
            check_id(reason, name="reason")
        return entry_of(self._engine.now(), action, account, by=who, reason=reason, **details)


_LONGEST_NAME: Final = 4_000


def _standing(template: str, budget: Budget, now: Milliseconds) -> Balance:
    """Return a budget for each value, which has no account, as a balance on which nothing is spent."""
    return replace(balance(template, new_account(budget, now)), document=Document(rules=budget.rules))


def _unit(unit: str) -> Unit:
    return next(one for one in UNITS if one == unit)


def _plain(amount: Nanos, unit: Unit) -> Decimal:
    return to_usd(amount) if unit == USD else Decimal(amount)


def _said(rules: Rules) -> dict[str, Any]:
    """Return what rules ask for, as an entry of the trail tells it."""
    found: dict[str, Any] = json.loads(rules.text) if rules.text else {}
    return found


def _end(expires: str | datetime | None, now: Milliseconds) -> Milliseconds:
    if expires is None:
        raise ConfigurationError(
            'a grant needs an end, such as expires="2d": to raise a limit for good, set it anew with '
            "set_budget, or add to a prepaid budget with top_up"
        )
    until = (
        now + duration_ms(expires) if isinstance(expires, str) else to_milliseconds(expires, name="expires")
    )
    if until <= now:
        raise ConfigurationError(f"expires must be in the future, and {expires!s} has passed")
    return until


def _system_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"
