"""MCP: an agent asks what it may still spend, what a call would cost, and what was spent. It changes nothing.

`budgetguard mcp` runs this as a server on standard input and output; `mcp_server(guard, "alice")` makes one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from pydantic import Field
from typing_extensions import TypedDict

from budgetguard.core.accounts import PROJECT, RUN, USER, Balance, account_name, check_id
from budgetguard.core.money import to_usd
from budgetguard.core.report import DIMENSIONS, matching, summarize
from budgetguard.core.windows import moment, to_datetime
from budgetguard.core.windows import zone as zone_of
from budgetguard.errors import BudgetGuardError, ConfigurationError

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
except ImportError as error:
    raise ImportError(
        "budgetguard.integrations.mcp needs the MCP SDK 2: pip install 'budgetguard-ai[mcp]'"
    ) from error

if TYPE_CHECKING:
    from budgetguard.guard import Guard

INSTRUCTIONS: Final = (
    "Tells what may still be spent on calls of language models, what a call would cost at most, and what was "
    "spent. Money is USD. Nothing here spends or changes anything."
)
_MOST_ROWS: Final = 100


class AccountAnswer(TypedDict):
    """One account that pays; amounts are USD, as text with no digit lost."""

    account: str
    limit: str | None
    spent: str
    held: str
    available: str | None
    resets_at: str | None


class BalanceAnswer(TypedDict):
    """What may still be spent."""

    user: str | None
    project: str
    available: Annotated[
        str | None, Field(description="USD that all accounts have left for a call; null: nothing limits it")
    ]
    accounts: Annotated[
        list[AccountAnswer], Field(description="the accounts that every call is charged to, each in full")
    ]


class CostAnswer(TypedDict):
    """What a call would cost at most."""

    model: str
    projected: Annotated[str, Field(description="USD that are held for the call before it is made")]
    input_tokens: int
    output_tokens: Annotated[int, Field(description="the cap on the output, all that is held for")]
    cap_assumed: Annotated[
        bool,
        Field(description="no max_output_tokens was given, so one was assumed; the answer may be longer"),
    ]
    available: str | None
    affordable: Annotated[bool, Field(description="whether the call would be made now")]


class SpendingAnswer(TypedDict):
    """What was spent."""

    user: str | None
    project: str
    since: str | None
    until: str | None
    by: list[str]
    rows: Annotated[list[dict[str, Any]], Field(description="the dearest first; days in order")]
    rows_left_out: int
    total: dict[str, Any]


class BudgetTools:
    """The tools; each is asked by an agent, for one user.

    Args:
        guard: whose budgets.
        user: whose; None is nobody's, so that the project as a whole is told of.
    """

    def __init__(self, guard: Guard, user: str | None) -> None:
        self._guard = guard
        self._user = user

    def balance(self) -> BalanceAnswer:
        """Tell how much may still be spent, and when that resets.

        A call is made only if every account has its projected cost available.
        """
        accounts = list(self._accounts())
        return {
            "user": self._user,
            "project": self._guard.project,
            "available": _usd(_least(accounts)),
            "accounts": [_account(one) for one in accounts],
        }

    def project_cost(
        self,
        model: Annotated[str, Field(description="the model's name, such as gpt-4o-mini")],
        text: Annotated[
            str | None, Field(description="the whole input, which is counted; or give input_tokens")
        ] = None,
        input_tokens: Annotated[
            int | None, Field(description="how many tokens the input has; or give text", ge=0)
        ] = None,
        max_output_tokens: Annotated[
            int | None, Field(description="the cap on the answer that the call will set", ge=0)
        ] = None,
        provider: Annotated[
            str | None, Field(description="whose prices count, such as azure; by default the model's own")
        ] = None,
    ) -> CostAnswer:
        """Tell what a call would cost at most, and whether there is enough for it now. Nothing is held."""
        if (text is None) == (input_tokens is None):
            raise ConfigurationError("give the input as one of text and input_tokens")
        call = self._guard.call(
            model=model,
            input=text,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            provider=provider,
        )
        found = call.project()
        available = _least(list(self._accounts()))
        return {
            "model": model,
            "projected": _exact(found.cost),
            "input_tokens": found.usage.input_tokens,
            "output_tokens": found.usage.output_tokens,
            "cap_assumed": found.cap_assumed,
            "available": _usd(available),
            "affordable": not found.cost or available is None or found.cost <= available,
        }

    def spending(
        self,
        since: Annotated[
            str | None, Field(description="a span before now such as 7d or 12h, a date, or a date and time")
        ] = "30d",
        until: Annotated[str | None, Field(description="likewise; by default now")] = None,
        by: Annotated[
            list[str] | None,
            Field(description=f"some of {', '.join(DIMENSIONS)}, or names of labels; by default model"),
        ] = None,
    ) -> SpendingAnswer:
        """Tell what calls have cost: calls, tokens and USD, added up by model, day, user or any label."""
        guard = self._guard
        zone = zone_of(guard.settings.timezone)
        now = to_datetime(guard.engine.now())
        first, last = (
            None if text is None else moment(text, now, zone, name=name)
            for text, name in ((since, "since"), (until, "until"))
        )
        if first is not None and last is not None and first >= last:
            raise ConfigurationError(f"since {since} is not before until {until}")
        users = () if self._user is None else (self._user,)
        dimensions = ["model"] if by is None else list(dict.fromkeys(by))
        made = summarize(matching(guard.calls(first, last), users=users), dimensions, zone=zone).to_dict()
        rows = made["rows"]
        return {
            "user": self._user,
            "project": guard.project,
            "since": None if first is None else first.isoformat(),
            "until": None if last is None else last.isoformat(),
            "by": made["by"],
            "rows": rows[-_MOST_ROWS:] if {"day", "month"} & set(made["by"]) else rows[:_MOST_ROWS],
            "rows_left_out": max(0, len(rows) - _MOST_ROWS),
            "total": made["total"],
        }

    def _accounts(self) -> Iterator[Balance]:
        """Yield the accounts that a call of the user is charged to, those that exist."""
        guard = self._guard
        settings = guard.settings
        if self._user is not None:
            found = guard.store.read(account_name(USER, self._user))
            # Whoever has no budget gets the default one with the first call, or is refused.
            yield self._to_come() or guard.balance(self._user) if found is None else found
        for account in (
            *(account_name(RUN, run) for run in settings.runs),
            account_name(PROJECT, guard.project),
        ):
            if (balance := guard.store.read(account)) is not None:
                yield balance

    def _to_come(self) -> Balance | None:
        default, now = self._guard.settings.default, self._guard.engine.now()
        if default is None or self._user is None:
            return None
        account = account_name(USER, self._user)
        return Balance(account, default.limit, 0, 0, default.duration, default.timezone, now, None, now, now)


def mcp_server(guard: Guard, user: str | None = None) -> MCPServer:
    """Return a server of these tools, to be run as its library says: `server.run()` is over stdio.

    Args:
        guard: whose budgets.
        user: who asks; by default the settings' user, else the project as a whole is told of.

    Raises:
        ConfigurationError: a bad user id.
    """
    asking = guard.settings.user if user is None else check_id(user, name="user")
    tools = BudgetTools(guard, asking)
    server = MCPServer("budgetguard", instructions=INSTRUCTIONS, log_level="WARNING")
    read_only = ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    for function in (tools.balance, tools.project_cost, tools.spending):
        server.tool(annotations=read_only)(_telling(function))
    return server


def _telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a tool whose refusals are told to the agent; other errors are the server's to log."""

    @functools.wraps(function)
    def tool(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BudgetGuardError as error:
            raise ToolError(error.message) from error

    return tool


def _least(accounts: list[Balance]) -> Decimal | None:
    left = [one.available_nanos for one in accounts if one.available_nanos is not None]
    return to_usd(max(0, min(left))) if left else None


def _account(balance: Balance) -> AccountAnswer:
    told = balance.to_dict()
    return cast(AccountAnswer, {name: told[name] for name in AccountAnswer.__annotations__})


def _usd(amount: Decimal | None) -> str | None:
    return None if amount is None else _exact(amount)


def _exact(amount: Decimal) -> str:
    return format(amount, "f")
