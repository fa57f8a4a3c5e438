"""Which budget a command is about: a user's, the project's, or one for calls with some labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from budgetguard.cli.session import CommandSession, known
from budgetguard.cli.words import budget_in_words, is_for_each
from budgetguard.core.accounts import USD, USER, Balance, check_id
from budgetguard.core.labels import EACH
from budgetguard.core.wording import printable
from budgetguard.engine.budgets import Budgets
from budgetguard.errors import ConfigurationError

_EACH_VALUE = "*"


@dataclass(frozen=True, slots=True)
class Which:
    """What a command's options say of a budget.

    Attributes:
        user: an id; `EACH` is each user's own; None is no user's.
        labels: patterns by label.
        unit: what the budget counts, as it was given.
        rolling: the duration over which it rolls, or empty.
        name: tells it from other budgets for the same calls.
    """

    user: str | None
    labels: Mapping[str, str]
    unit: str = USD
    rolling: str = ""
    name: str = ""

    def account(self, here: CommandSession) -> str:
        """Return the name of the budget's account.

        Raises:
            ConfigurationError: a bad id, label, value or unit.
        """
        return Budgets(here.guard.engine).named(
            self.user, self.labels, unit=self.unit, rolling=self.rolling, name=self.name
        )

    def find(self, here: CommandSession) -> Balance | None:
        """Return how the budget stands, or None if there is none."""
        account = self.account(here)
        if not is_for_each(account):
            return here.guard.store.read(account)
        for one in here.guard.budgets():  # those for each value come first
            if one.account == account:
                return one
            if not is_for_each(one.account):
                break
        return None

    def known(self, here: CommandSession) -> Balance:
        """Return how the budget stands.

        Raises:
            UnknownUserError: a user has no budget.
            ConfigurationError: there is no such budget.
        """
        found = self.find(here)
        return self.missing(here) if found is None else found

    def missing(self, here: CommandSession) -> Balance:
        """Tell that there is no such budget; if one was made meanwhile, return how it stands.

        Raises:
            UnknownUserError: a user has no budget.
            ConfigurationError: there is no such budget.
        """
        marked = self.labels or self.unit != USD or self.rolling or self.name
        if not marked and self.user is not EACH:
            return known(here, self.user)
        account = self.account(here)
        elsewhere = here.guard.engine.elsewhere(account)
        remedy = (
            f"there is one in {', '.join(map(repr, elsewhere))}: add --project {elsewhere[0]}"
            if elsewhere
            else "see `budgetguard budgets`, or make one with `budgetguard create`"
        )
        raise ConfigurationError(
            f"{printable(here.place)} has no budget of {budget_in_words(account)}: {remedy}"
        )


def which(
    command: str,
    user: str | None,
    *,
    project_budget: bool = False,
    labels: Sequence[str] | None = None,
    each: Sequence[str] | None = None,
    unit: str = USD,
    rolling: str | None = None,
    name: str | None = None,
) -> Which:
    """Return which budget a command's options say.

    Args:
        command: its name, and what else it needs, for the error's text.
        user: an id.
        project_budget: the whole project's.
        labels: each as `team=red`.
        each: names of labels, for each value of which there is a budget.
        unit: what it counts.
        rolling: the duration over which it rolls.
        name: tells it from others.

    Raises:
        ConfigurationError: nobody's budget, or what cannot be together.
    """
    patterns = read_labels(labels or (), "--label")
    for label in each or ():
        if label in patterns:
            raise ConfigurationError(f"{label} is given twice: each, and {patterns[label]!r}")
        patterns[label] = _EACH_VALUE
    if (of_users := patterns.pop(USER, None)) is not None:
        if of_users != _EACH_VALUE:
            raise ConfigurationError(
                f"the user is no label: give {of_users!r} as USER, as in `budgetguard {command} USER`, or "
                "`--each user`"
            )
        if user is not None:
            raise ConfigurationError(f"the user is given twice: each, and {user!r}")
    nobody = user is None and of_users is None and not patterns
    if nobody != project_budget:
        raise ConfigurationError(
            f"whose? Write `budgetguard {command} USER`, `budgetguard {command} --label team=red`, or "
            f"`budgetguard {command} --project-budget`, which goes with neither"
        )
    payer = None if user is None else check_id(user, name="USER")
    return Which(EACH if of_users is not None else payer, patterns, unit, rolling or "", name or "")


def read_labels(given: Iterable[str], option: str, *, may_be_empty: bool = False) -> dict[str, str]:
    """Read labels, each written as `team=red`.

    Args:
        given: what was written.
        option: where, for the error's text.
        may_be_empty: whether a label may have no value, as in `team=`.

    Raises:
        ConfigurationError: no label and value, or one label twice.
    """
    found: dict[str, str] = {}
    for label, value in _pairs(given, option, may_be_empty=may_be_empty):
        if label in found:
            raise ConfigurationError(
                f"{label} is given twice, as {found[label]!r} and as {value!r}: choose one, or write a "
                "pattern such as 'gpt-5*'"
            )
        found[label] = value
    return found


def several_labels(given: Iterable[str], option: str) -> dict[str, list[str]]:
    """Read labels, each written as `team=red`, of which one may have several values.

    Raises:
        ConfigurationError: no label and value.
    """
    found: dict[str, list[str]] = {}
    for label, value in _pairs(given, option):
        found.setdefault(label, []).append(value)
    return found


def _pairs(given: Iterable[str], option: str, *, may_be_empty: bool = False) -> Iterator[tuple[str, str]]:
    for text in given:
        label, equals, value = text.partition("=")
        if not equals or not label or not (value or may_be_empty):
            raise ConfigurationError(f"{option} is LABEL=VALUE such as team=red, not {text!r}")
        yield label, value


def one_user(user: str | None, option: str | None) -> str | None:
    """Return the user who was given as USER or by `--user`.

    Raises:
        ConfigurationError: both.
    """
    if user is not None and option is not None:
        raise ConfigurationError(f"the user is given twice: {user!r}, and --user {option}")
    return option if user is None else user
