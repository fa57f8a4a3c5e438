"""Revisions of rules and labels: each store makes its own, and the naive model has numbers in their place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from budgetguard.core.accounts import Balance, Document
from budgetguard.core.holds import Booked, Denied, Granted, Hold, Outdated

from .naive import Text

_OF_NOTHING: Final = 2**40
"""A revision for a number that no account of the store has had."""


class Revisions:
    """What the model numbers, as one store knows it."""

    def __init__(self) -> None:
        self._known = {0: 0}

    def learn(self, text: Text, document: Document) -> None:
        """Take in what a store has of an account, and what the model has.

        A number has the same revision each time, and no other number has it: else they differ as texts.
        """
        self._known.setdefault(text.number, document.revision)
        assert len(set(self._known.values())) == len(self._known), "a revision came twice"

    def hold(self, hold: Hold) -> Hold:
        """Return a hold whose charges have the store's revisions, of one that has the model's numbers."""
        charges = (replace(one, revision=self._known.get(one.revision, _OF_NOTHING)) for one in hold.charges)
        return replace(hold, charges=tuple(charges))

    def text(self, document: Document) -> Text:
        """Return a store's rules and labels as the model has them."""
        numbers = {revision: number for number, revision in self._known.items()}
        return Text(numbers.get(document.revision, -1), document.rules, document.labels)

    def balance(self, balance: Balance) -> Balance:
        """Return a balance with the model's number."""
        return replace(balance, document=Document(*self.text(balance.document)))

    def answer(self, answer: Any) -> Any:
        """Return an answer with the model's numbers, and its expiries in the order of their ids."""
        if isinstance(answer, Outdated):
            return answer.scopes, {name: self.text(one) for name, one in answer.accounts.items()}
        if not isinstance(answer, Granted | Denied | Booked):
            return answer
        answer = replace(answer, expired=tuple(sorted(answer.expired, key=lambda expiry: expiry.hold_id)))
        if isinstance(answer, Denied):
            return replace(answer, balance=self.balance(answer.balance))
        if isinstance(answer, Granted):
            return replace(answer, shadowed=tuple(map(self.balance, answer.shadowed)))
        crossings = (replace(one, balance=self.balance(one.balance)) for one in answer.crossings)
        return replace(answer, crossings=tuple(crossings))
