"""A budget for one run: a limit on everything called inside a `with`, on top of the user's."""

from __future__ import annotations

import os
from decimal import Decimal
from types import FrameType
from typing import TYPE_CHECKING

from budgetguard.core.accounts import RUN, Balance, Budget, account_name
from budgetguard.core.holds import Charge
from budgetguard.core.money import to_nanos, to_usd
from budgetguard.engine.context import Surrounding, enter_link

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine


class Run(Surrounding):
    """Cap what the calls inside spend together, in threads and tasks started inside as well.

    Use it as `with budgetguard.budget(0.50) as run:`, as `async with`, or as a decorator, where each call
    of the function is a run of its own. Runs nest: a call inside two is charged to both.

    Args:
        engine: whose books.
        limit: USD.

    Raises:
        ConfigurationError: a bad limit.
    """

    def __init__(self, engine: Engine, limit: int | float | Decimal) -> None:
        self._engine = engine
        self._limit = to_nanos(limit, name="budget")
        self.account = account_name(RUN, os.urandom(8).hex())
        # The account is made by the first hold on it, so that entering does no I/O.
        self._charge = Charge(self.account, budget=Budget(self._limit), ephemeral=True)

    def __repr__(self) -> str:
        return f"<run {self.account} of {self.limit} USD>"

    @property
    def limit(self) -> Decimal:
        """The run's limit, USD."""
        return to_usd(self._limit)

    @property
    def spent(self) -> Decimal:
        """What the run's calls have cost, USD."""
        balance = self._balance()
        return Decimal(0) if balance is None else balance.spent

    @property
    def held(self) -> Decimal:
        """What the run's calls under way have set aside, USD."""
        balance = self._balance()
        return Decimal(0) if balance is None else balance.held

    @property
    def available(self) -> Decimal:
        """limit - spent - held, USD."""
        balance = self._balance()
        return self.limit if balance is None else self.limit - balance.spent - balance.held

    def _balance(self) -> Balance | None:
        return self._engine.store.read(self.account)

    def _enter(self, frame: FrameType | None) -> None:
        enter_link(self, frame, run=self._charge, engine=self._engine)

    def _again(self) -> Run:
        return Run(self._engine, self.limit)
