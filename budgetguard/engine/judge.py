"""What a guard knows of a project's documents: by which a call is judged before its hold is sent.

The scopes of the project say which accounts a call is charged to, beside its user's, runs', process' and
project's; an account's rules and labels say what else holds for it. A hold names the revisions by which it
was judged. Where the store has others it answers with them, and the call is judged again; so what is known
here may be old, and is never used when it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
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
from budgetguard.stores.locks import taken

_MOST_KNOWN: Final = 16_384
_LOOK_EVERY: Final = 1.0
"""Seconds."""
_NO_DOCUMENT: Final = Document()


@dataclass(frozen=True, slots=True)
class Known:
    """The documents of a project, as far as they are known.

    Attributes:
        revision: of the scopes; 0 if there are none.
        scopes: which kinds of budgets there are.
        documents: the rules and labels of accounts; of one that is not here, none were told.
    """

    revision: int = 0
    scopes: Scopes = field(default_factory=Scopes)
    documents: Mapping[str, Document] = field(default_factory=dict)

    def rules(self, charge: Charge) -> Rules:
        """Return what is known of the rules of an account that a call is charged to.

        Of one that nothing is known of, they are those of the budget that would make it.
        """
        if (known := self.documents.get(charge.account)) is not None:
            return read_rules(known.rules)
        return _NO_RULES if charge.budget is None else read_rules(charge.budget.rules)

    def member_labels(self, user: str | None) -> Mapping[str, str]:
        """Return the labels that are kept with a user, as far as they are known."""
        if user is None or not self.documents:
            return {}
        known = self.documents.get(account_name(USER, user))
        return {} if known is None else read_labels(known.labels)

    def recorded_labels(self, user: str | None, said: Mapping[str, str], provider: str) -> Mapping[str, str]:
        """Return the labels that a record keeps: those said, those kept with the user, and the provider."""
        members = self.member_labels(user)
        if not (said or members):
            return _of_provider(provider)
        return {**members, **said, **_of_provider(provider)}

    def charges(self, labels: Labels) -> tuple[Charge, ...]:
        """Return the charges on the accounts of the project's scopes."""
        scopes = self.scopes
        return tuple(Charge(name, budget=budget) for name, budget in scopes.accounts(labels))

    @property
    def knows_rules(self) -> bool:
        """Whether any rules or labels are known, so that a call may be refused by them."""
        return bool(self.documents) or bool(self.scopes.templates)

    @property
    def has_scopes(self) -> bool:
        """Whether the project has budgets of other kinds than users', runs', processes' and its own."""
        return self.revision != 0

    def by_what_is_known(self, charges: tuple[Charge, ...]) -> tuple[Charge, ...]:
        """Return charges with the revisions of the rules by which they were judged."""
        if not self.documents and not self.scopes.templates:
            return charges
        return tuple(map(self._by_what_is_known, charges))

    def _by_what_is_known(self, charge: Charge) -> Charge:
        known = self.documents.get(charge.account, _NO_DOCUMENT)
        shadow = self.rules(charge).on_limit == "shadow"
        if (charge.revision, charge.shadow) == (known.revision, shadow):
            return charge
        return replace(charge, revision=known.revision, shadow=shadow)


NOTHING_KNOWN: Final = Known()


class Judge:
    """What is known of one project's documents; it begins as nothing.

    Attributes:
        known: replaced as a whole when something is learned, so that a call is judged by what belongs
            together.
    """

    def __init__(self) -> None:
        self.known = NOTHING_KNOWN
        self._looked: dict[str, float] = {}
        self._lock = threading.RLock()

    def forget(self) -> None:
        """Know nothing: the store is another one."""
        self.known, self._looked = NOTHING_KNOWN, {}

    def learn(self, outdated: Outdated) -> None:
        """Take what a store has answered in place of what was known.

        Raises:
            ConfigurationError: a document that this version does not know.
        """
        for document in outdated.accounts.values():
            read_rules(document.rules)
            read_labels(document.labels)
        scopes = None if outdated.scopes is None else read_scopes(outdated.scopes.rules)
        with taken(self._lock):
            known = self.known
            if outdated.scopes is not None and scopes is not None:
                known = replace(known, revision=outdated.scopes.revision, scopes=scopes)
            if outdated.accounts:
                documents = {**known.documents, **outdated.accounts}
                # What has none may be no account, of which the rules are those that it is made with.
                documents = {account: one for account, one in documents.items() if one.revision}
                if len(documents) > _MOST_KNOWN:
                    keep_newest(documents, _MOST_KNOWN)
                known = replace(known, documents=documents)
            self.known = known

    def is_current(self, store: Store, accounts: Iterable[str], without: set[str] | None = None) -> bool:
        """Look whether what is known of some accounts, and of the scopes, is what the store has.

        What is not is learned.

        Args:
            store: the project's.
            accounts: which.
            without: accounts that are known to exist and to have no document; those that are found are added.
        """
        found: dict[str, Document] = {}
        plain: set[str] = set()
        for account in accounts:
            balance = store.read(account)
            document = _NO_DOCUMENT if balance is None else balance.document
            if document.revision != self.known.documents.get(account, _NO_DOCUMENT).revision:
                found[account] = document
            elif balance is not None and not document.revision:
                plain.add(account)
        scopes = store.scopes()
        news = Outdated(None if scopes.revision == self.known.revision else scopes, found)
        self.learn(news)
        news_of_plain = without is not None and not plain <= without
        if without is not None:
            without |= plain
        return news.scopes is None and not found and not news_of_plain

    def look(self, store: Store, user: str) -> None:
        """Look what the store has for a user's call that is booked without a hold; not again for a second."""
        now = time.monotonic()
        account = account_name(USER, user)
        if now < self._looked.get(account, 0.0) + _LOOK_EVERY:
            return
        scopes = store.scopes()
        if scopes.revision:
            self.is_current(store, (account,))
        elif self.known.has_scopes:
            self.learn(Outdated(scopes))
        self._looked[account] = now
        if len(self._looked) > _MOST_KNOWN:
            keep_newest(self._looked, _MOST_KNOWN)


_NO_RULES: Final = Rules()


@lru_cache(maxsize=256)
def _of_provider(provider: str) -> Mapping[str, str]:
    return {"provider": provider} if provider else {}


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
