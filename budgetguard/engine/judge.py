"""What a guard knows of a project's documents: by which a call is judged before its hold is sent.

The scopes of the project say which accounts a call is charged to, beside its user's, runs', process' and
project's; an account's rules and labels say what else holds for it. A hold names the revisions by which it
was judged. Where the store has others it answers with them, and the call is judged again; so what is known
here may be old, and is never used when it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from budgetguard.config import UnknownOutcome
from budgetguard.core.accounts import CONCURRENT, MOST_COUNTED, USD, USER, Document, account_name, unit_of
from budgetguard.core.holds import Charge, Outdated
from budgetguard.core.labels import Labels
from budgetguard.core.process import keep_newest
from budgetguard.core.rules import Rules, read_labels, read_rules
from budgetguard.core.scopes import Scopes, read_scopes
from budgetguard.core.usage import Usage
from budgetguard.engine.projection import Projection
from budgetguard.stores.base import Store

_MOST_KNOWN: Final = 16_384
_NOTHING: Final = Document()


@dataclass(frozen=True, slots=True)
class _View:
    """The project's scopes, as the store last told them."""

    revision: int
    scopes: Scopes


_NO_SCOPES: Final = _View(0, Scopes())


class Judge:
    """The documents of one project, as far as they are known; each begins as nothing.

    Attributes:
        revision: of the scopes.
    """

    def __init__(self) -> None:
        self._view = _NO_SCOPES
        self._known: dict[str, Document] = {}

    @property
    def revision(self) -> int:
        """The revision of the scopes."""
        return self._view.revision

    def forget(self) -> None:
        """Know nothing: the store is another one."""
        self._view, self._known = _NO_SCOPES, {}

    def learn(self, outdated: Outdated) -> None:
        """Take what a store has answered in place of what was known.

        Raises:
            ConfigurationError: a document that this version does not know.
        """
        if outdated.scopes is not None:
            self._view = _View(outdated.scopes.revision, read_scopes(outdated.scopes.rules))
        for account, document in outdated.accounts.items():
            read_rules(document.rules)
            read_labels(document.labels)
            if document.revision:
                self._known[account] = document
            else:
                self._known.pop(account, None)
        if len(self._known) > _MOST_KNOWN:
            keep_newest(self._known, _MOST_KNOWN)

    def is_current(self, store: Store, accounts: Iterable[str]) -> bool:
        """Look whether what is known of some accounts, and of the scopes, is what the store has.

        What is not is learned.
        """
        current = True
        for account in accounts:
            balance = store.read(account)
            known = self._known.get(account)
            if balance is None:
                current = current and known is None
                self._known.pop(account, None)
            else:
                current = current and known == balance.document
                self.learn(Outdated(None, {account: balance.document}))
                self._known[account] = balance.document  # also where it has no rules: then it has none
        scopes = store.scopes()
        if scopes.revision != self.revision:
            self.learn(Outdated(scopes))
            return False
        return current

    def rules(self, charge: Charge) -> Rules:
        """Return what is known of the rules of an account that a call is charged to."""
        if (known := self._known.get(charge.account)) is not None:
            return read_rules(known.rules)
        return _NO_RULES if charge.budget is None else read_rules(charge.budget.rules)

    def member_labels(self, user: str | None) -> Mapping[str, str]:
        """Return the labels that are kept with a user, as far as they are known."""
        if user is None or not self._known:
            return {}
        known = self._known.get(account_name(USER, user))
        return {} if known is None else read_labels(known.labels)

    def charges(self, labels: Labels) -> tuple[Charge, ...]:
        """Return the charges on the accounts of the project's scopes."""
        scopes = self._view.scopes
        return tuple(Charge(name, budget=budget) for name, budget in scopes.accounts(labels))

    @property
    def knows_rules(self) -> bool:
        """Whether any rules or labels are known, so that a call may be refused by them."""
        return bool(self._known) or bool(self._view.scopes.templates)

    @property
    def has_scopes(self) -> bool:
        """Whether the project has budgets of other kinds than users', runs', processes' and its own."""
        return self._view.revision != 0

    def by_what_is_known(self, charges: tuple[Charge, ...]) -> tuple[Charge, ...]:
        """Return charges with the revisions of the rules by which they were judged."""
        if not self._known and not self._view.scopes.templates:
            return charges
        return tuple(map(self._by_what_is_known, charges))

    def _by_what_is_known(self, charge: Charge) -> Charge:
        known = self._known.get(charge.account, _NOTHING)
        shadow = self.rules(charge).on_limit == "shadow"
        if (charge.revision, charge.shadow) == (known.revision, shadow):
            return charge
        return replace(charge, revision=known.revision, shadow=shadow)


_NO_RULES: Final = Rules()


_OF_A_REQUEST: Final[Mapping[str, tuple[int, int]]] = {"requests": (1, 1), CONCURRENT: (1, 0)}


def amounts(
    charges: Iterable[Charge], projection: Projection | None, policy: UnknownOutcome = "charge"
) -> dict[str, tuple[int, int]]:
    """Return what a hold sets aside of each unit that its accounts count, and what its expiry books.

    Args:
        charges: whom it is charged to.
        projection: of the call; None of one that was made already, for which nothing is set aside.
        policy: what an unknown outcome costs.
    """
    units = sorted({unit_of(charge.account) for charge in charges} - {USD})
    if projection is None:
        return dict.fromkeys(units, (0, 0))
    read, written = projection.input_tokens, projection.output_tokens
    most = _tokens(read, written)
    lost = most if policy == "charge" else _tokens(read if policy == "input" else 0, 0)
    return {unit: _OF_A_REQUEST.get(unit) or (most[unit], lost[unit]) for unit in units}


def extension(units: Iterable[str], tokens: int) -> dict[str, tuple[int, int]]:
    """Return what is set aside of each unit for so many more output tokens of a call."""
    more = {**dict.fromkeys(_OF_A_REQUEST, 0), **_tokens(0, tokens)}
    return {unit: (more[unit], 0) for unit in units}


def counts(units: Iterable[str], usage: Usage | None) -> dict[str, int]:
    """Return what a call is booked at of each unit; without a usage, what its expiry books of tokens."""
    found = {"requests": 1, CONCURRENT: 0}
    if usage is not None:
        found |= _tokens(usage.input_tokens, usage.output_tokens)
    return {unit: min(found[unit], MOST_COUNTED) for unit in units if unit in found}


def _tokens(read: int, written: int) -> dict[str, int]:
    both = {"input_tokens": read, "output_tokens": written, "tokens": read + written}
    return {unit: min(count, MOST_COUNTED) for unit, count in both.items()}
