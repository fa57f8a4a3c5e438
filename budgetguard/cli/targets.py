"""The budget that a command is about: a user's, or the whole project's."""

from __future__ import annotations

from typing import Any

from budgetguard.cli.display import account_label
from budgetguard.cli.session import CommandSession
from budgetguard.core.accounts import PROJECT, USER, Balance, account_name, check_id
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard


def whose(user: str | None, project_budget: bool, command: str) -> str | None:
    """Return the user that a command names, or None for the project.

    Raises:
        ConfigurationError: neither or both, or a bad id.
    """
    if (user is None) != project_budget:
        raise ConfigurationError(
            f"whose? Write `budgetguard {command} USER`, or `budgetguard {command} --project-budget`"
        )
    return None if user is None else check_id(user, name="USER")


def find(guard: Guard, user: str | None) -> Balance | None:
    """Return the balance of a user (None: of the project), or None if there is none."""
    account = account_name(PROJECT, guard.project) if user is None else account_name(USER, user)
    return guard.store.read(account)


def known(here: CommandSession, user: str | None) -> Balance:
    """Return the balance of a user (None: of the project).

    Raises:
        UnknownUserError: the user has none.
        ConfigurationError: the project has none.
    """
    if user is None and find(here.guard, None) is None:
        raise ConfigurationError(
            f"{here.place} has no budget of its own: make one with `budgetguard create --project-budget 500`"
        )
    return here.guard.balance(user)


def who(balance: Balance) -> str:
    """Return whose balance this is, for the middle of a sentence."""
    return account_label(balance.account) if balance.account.startswith(f"{USER}:") else "the project"


def balance_object(guard: Guard, balance: Balance) -> dict[str, Any]:
    """Return a balance as `--json` shows it: `Balance.to_dict()` with its project and user before it."""
    kind, _, ident = balance.account.partition(":")
    return {"project": guard.project, "user": ident if kind == USER else None, **balance.to_dict()}
