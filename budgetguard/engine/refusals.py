"""The errors of refusals: which account refused, with which numbers, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from budgetguard.core.accounts import CONCURRENT, RUN, USD, Balance, Unit
from budgetguard.core.holds import Hold
from budgetguard.core.money import Nanos, format_usd, to_usd
from budgetguard.core.rules import Rules
from budgetguard.core.wording import format_amount
from budgetguard.engine.payers import account_in_words
from budgetguard.errors import (
    BudgetExceededError,
    ConfigurationError,
    MissingUserError,
    ModelNotAllowedError,
    UnknownUserError,
)

_LOST = {
    "ended": (
        "this thread or task was started inside a `with budget_user(...)` (or a run's) that has ended since, "
        "and may be working for somebody else by now"
    ),
    "generator": (
        "this thread or task was started in or around a generator with a `with budget_user(...)` in it, "
        "which counts for what the generator calls itself (one that is decorated with budget_user is right "
        "everywhere)"
    ),
    "process": (
        "this process was forked by multiprocessing inside a `with budget_user(...)` (or a run's), and its "
        "workers work for everybody"
    ),
    "stranded": (
        "it has no user, and a context manager with a `with budget_user(...)` (or a run's) in it was entered "
        "in another thread, by a job that did nothing else: there it reaches nobody, and it may be meant for "
        "this call. FastAPI does so with a dependency that is not `async def`: make it one, or set the user "
        "in a middleware (docs/web.md)"
    ),
    "job": "where this job was sent to its queue, nobody could say who pays either",
    "message": "the payer that came with this job cannot be read (the log of budgetguard says why)",
}


def refusal(
    hold: Hold,
    balance: Balance,
    *,
    limit: Nanos,
    spent: Nanos,
    retry_after: float | None = None,
    note: str = "",
) -> BudgetExceededError:
    """Return the error that says which account has too little available for a hold.

    Args:
        hold: what was asked for.
        balance: the account that refused.
        limit: its limit as people mean it, Nanos or a count.
        spent: what it has spent as people mean it, likewise.
        retry_after: seconds after which there is room by time alone, None if there is none.
        note: what the text says beside.
    """
    unit = balance.unit
    wanted = hold.amount_of(unit)
    available = limit - spent - balance.held_nanos
    who = account_in_words(balance.account)
    when = f" until {balance.resets_at:%Y-%m-%d %H:%M:%S} UTC" if balance.resets_at else ""
    held = (
        f" and {format_amount(balance.held_nanos, unit)} is held for calls under way"
        if balance.held_nanos and unit != CONCURRENT
        else ""
    )
    return BudgetExceededError(
        current_cost=balance.quantity(spent),
        max_budget=balance.quantity(limit),
        message=(
            f"Budget has been exceeded! {_needs(hold, unit, wanted)}, "
            f"but {who} has {_left(max(0, available), unit)}{when}: "
            f"of {format_amount(limit, unit)}, {_taken(balance, spent)}{held}. The call was not made. "
            f"{_remedy(balance, retry_after)}{note}"
        ),
        user=hold.user,
        account=balance.account,
        projected_cost=balance.quantity(wanted),
        available=balance.quantity(available),
        resets_at=balance.resets_at,
        unit=unit,
        retry_after=retry_after,
    )


def also_refused(hold: Hold, balance: Balance) -> str:
    """Return what a refusal says of another model that was tried instead."""
    left = _left(max(0, balance.available_nanos or 0), balance.unit)
    return f". {hold.model} was tried instead, but {account_in_words(balance.account)} has {left}"


def _needs(hold: Hold, unit: Unit, wanted: int) -> str:
    if unit == USD:
        return f"This call to {hold.model} may cost up to {format_usd(wanted)}"
    return f"This call to {hold.model} may need {format_amount(wanted, unit)}"


def _left(available: int, unit: Unit) -> str:
    if unit == CONCURRENT:
        return f"room for {available:,} more"
    return f"{format_amount(available, unit)} left"


def _taken(balance: Balance, spent: Nanos) -> str:
    if balance.unit == USD:
        return f"{format_usd(spent)} is spent"
    taken = balance.held_nanos if balance.unit == CONCURRENT else spent
    return f"{taken:,} {'is' if taken == 1 else 'are'} {'taken' if balance.unit == CONCURRENT else 'used'}"


def _remedy(balance: Balance, retry_after: float | None) -> str:
    last = "raise the limit, or wait until it resets" if balance.resets_at else "or raise the limit"
    if balance.unit == USD:
        return f"Cap its output (max_completion_tokens), use a cheaper model, {last}"
    if balance.unit == CONCURRENT:
        return "Try again when one of them has ended, or raise the limit"
    if retry_after is None:
        return "Raise the limit"
    return f"Try again in {retry_after:,.1f} s, or raise the limit"


def above_the_cap(hold: Hold, account: str, most: Nanos) -> BudgetExceededError:
    """Return the error that says a call may cost more than a budget lets one call cost.

    Args:
        hold: what was asked for.
        account: whose budget caps it.
        most: Nanos that a call may cost.
    """
    return BudgetExceededError(
        current_cost=to_usd(0),
        max_budget=to_usd(most),
        message=(
            f"Budget has been exceeded! This call to {hold.model} may cost up to {format_usd(hold.amount)}, "
            f"and the budget of {account_in_words(account)} lets one call cost {format_usd(most)} at most "
            "(max_call_cost). The call was not made. Cap its output (max_completion_tokens), use a cheaper "
            "model, or raise max_call_cost"
        ),
        user=hold.user,
        account=account,
        projected_cost=to_usd(hold.amount),
        available=to_usd(most),
        unit=USD,
    )


def model_not_allowed(model: str, user: str | None, account: str, rules: Rules) -> ModelNotAllowedError:
    """Return the error that says a budget does not allow a model."""
    said = f"allows {', '.join(rules.allow)}" if rules.allow else ""
    if rules.forbid:
        said += f"{' and ' if said else ''}forbids {', '.join(rules.forbid)}"
    return ModelNotAllowedError(
        current_cost=to_usd(0),
        max_budget=to_usd(0),
        message=(
            f"The budget of {account_in_words(account)} does not allow {model}: it {said}. The call was not "
            "made. Use a model that it allows, or set the budget anew with others (allow=, forbid=)"
        ),
        user=user,
        account=account,
        model=model,
    )


def two_labels(name: str, said: str, kept: str, user: str) -> ConfigurationError:
    """Return the error that says a call's label is not the one that is kept with its user."""
    return ConfigurationError(
        f"this call says {name} {said!r}, and user {user!r} is of {name} {kept!r} in the store, so the call "
        f"was not made: say nothing of {name}, or change it with set_member({user!r}, {name}={said!r})"
    )


def stopped(hold: Hold, balance: Balance, cost: Nanos) -> BudgetExceededError:
    """Return the error that stops a stream.

    Args:
        hold: what was set aside for it at first.
        balance: the account that has no more.
        cost: Nanos that it has cost so far.
    """
    return BudgetExceededError(
        current_cost=balance.spent,
        max_budget=balance.limit or to_usd(0),
        unit=balance.unit,
        message=(
            f"Budget has been exceeded! This stream of {hold.model} has cost {format_usd(cost)} so far, more "
            f"than the {format_usd(hold.amount)} that was set aside for it, and {balance.account} has no "
            "more. It was stopped, and what it cost is booked. Cap its output (max_completion_tokens), raise "
            'the limit, or let such streams end with on_stream_exceeded="finish"'
        ),
        user=hold.user,
        account=balance.account,
        projected_cost=to_usd(hold.amount),
        available=balance.available,
        resets_at=balance.resets_at,
    )


def unknown_user(user: str, project: str, elsewhere: Sequence[str] = ()) -> UnknownUserError:
    """Return the error that says a user has no budget.

    Args:
        user: who.
        project: where none was found.
        elsewhere: the projects of the same store in which there is one.
    """
    if elsewhere:
        named = elsewhere[0]
        among = "in project " if len(elsewhere) == 1 else "in the projects "
        remedy = (
            f"but there is one {among}{', '.join(map(repr, elsewhere))}. If this program is of that project, "
            f"name it: configure(project={named!r}), BUDGETGUARD_PROJECT={named}, or --project {named}"
        )
    else:
        remedy = (
            f"make one with set_budget(10, user={user!r}) of a guard, or create_budget(total_budget=10, "
            f"user={user!r}) of a BudgetManager, or let budgets be made with configure(default_budget=10)"
        )
    return UnknownUserError(
        f"user {user!r} has no budget in project {project!r}{', ' if elsewhere else ': '}{remedy}",
        user=user,
        project=project,
    )


def unknown_account(
    account: str, user: str | None, project: str, elsewhere: Sequence[str] = ()
) -> UnknownUserError | ConfigurationError:
    """Return the error that says a required account, a user's or a run's, does not exist.

    Args:
        account: which.
        user: whose call it was.
        project: where it was looked for.
        elsewhere: the projects of the same store in which there is one of that name.
    """
    kind, _, ident = account.partition(":")
    if kind != RUN:
        return unknown_user(user or account, project, elsewhere)
    return ConfigurationError(
        f"this program was started under a budget (run {ident!r}), and the project {project!r} of the store "
        "that it now uses does not have it, so the call was not made: name the program's own project and "
        f"store where it is started, such as `budgetguard run --project {project} --store URL -- COMMAND`"
    )


def missing_user(model: str, project: str) -> MissingUserError:
    """Return the error that says nothing limits a call."""
    return MissingUserError(
        f"nothing limits this call to {model}: no user is set, and neither a run nor the process "
        f"nor the project {project!r} has a limit. "
        'Call inside `with budget_user("1234"):` or `with budgetguard.budget(0.50):`, '
        'set budgetguard.max_budget, or allow it with configure(missing_user="allow")'
    )


def required_user(model: str) -> MissingUserError:
    """Return the error that says a call has no user, where each needs one."""
    return MissingUserError(
        f"no user is set for this call to {model}, and require_user says that every call needs one: call "
        'inside `with budget_user("1234"):`, in the same function or one that it is called from. A user that '
        "is set in another thread or context, as in a web framework's sync dependency, does not reach the "
        "call: see docs/web.md"
    )


def lost_user(model: str, why: str) -> MissingUserError:
    """Return the error that says it cannot be known who pays for a call.

    Args:
        model: which model is called.
        why: see `budgetguard.engine.context.Lost`.
    """
    return MissingUserError(
        f"who pays for this call to {model} cannot be known: {_LOST[why]}. The call was not made. Set the "
        'user where the work is done: `with budget_user("1234"):` in the function that the thread, task or '
        'process runs, or `budget_user("1234")(function)` in place of it. Jobs that are submitted to a '
        "ThreadPoolExecutor, a ThreadPool or asyncio.to_thread keep their user: see docs/threads.md"
    )
