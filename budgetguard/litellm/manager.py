"""`BudgetManager`: LiteLLM's budget manager as its callers know it, over a guard."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from budgetguard.core.accounts import USER, Balance, account_name, check_id
from budgetguard.core.money import Nanos, to_nanos, to_usd
from budgetguard.core.windows import Align, parse_duration
from budgetguard.engine.payers import is_paid
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.litellm.costs import counted_usage, price, reported_usage, without_price
from budgetguard.providers.base import Asked
from budgetguard.providers.functions import chat_body
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.openai.embeddings import EMBEDDINGS

if TYPE_CHECKING:
    from budgetguard.guard import Guard
    from budgetguard.litellm.importing import Imported

User: TypeAlias = "str | int"

logger = logging.getLogger("budgetguard")

_DAY_MS: Final = 86_400_000
# LiteLLM's own, which a manager shows but never asks.
_LITELLM_ADDRESS: Final = "https://api.litellm.ai"
# The year 10 000: the last instant that a datetime can tell.
_LAST_SECOND: Final = 253_402_300_800


class BudgetManager:
    """Users' budgets as LiteLLM's `BudgetManager` keeps them, over a guard's store or at a hosted service.

    Amounts in and out are USD as float. A record is a dict with `total_budget`, `duration`, `created_at`,
    `last_updated_at`, `current_cost` and `model_cost`; see `record`. Nothing is kept in the manager itself:
    managers, processes and patched clients of one project on one store see one state. A user is text, or a
    whole number that stands for its digits.

    Args:
        project_name: whose users; projects share nothing.
        client_type: `local`, or `hosted`: at a service, which is first asked by the first method.
        api_base: the service's address, such as `https://budgets.example.com`; unused while local. It may be
            `budgetguard serve`, or any server of LiteLLM's hosted protocol (see `stores.hosted_litellm` for
            what that can keep).
        headers: sent to the service in place of the default ones, a bearer key included; unused while local.
        guard: whose store (if local), prices, settings and hooks; the default guard's by default, looked up
            at each call.

    Raises:
        ConfigurationError: a bad project name, client type, address or header.
    """

    def __init__(
        self,
        project_name: str,
        client_type: str = "local",
        api_base: str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        guard: Guard | None = None,
    ) -> None:
        if client_type not in ("local", "hosted"):
            raise ConfigurationError(f"client_type must be 'local' or 'hosted', not {client_type!r}")
        self.project_name = check_id(project_name, name="project_name")
        self.client_type = client_type
        self.api_base = api_base or _LITELLM_ADDRESS
        self.headers = headers or {"Content-Type": "application/json"}
        self._given = guard
        self._service = None
        if client_type == "hosted":
            from budgetguard.litellm.hosted import HostedGuard

            self._service = HostedGuard(api_base, headers, project_name)
        # The first manager's project becomes that of a guard which has none; see `Settings.project`.
        _ = self._local

    def __repr__(self) -> str:
        return f"BudgetManager({self.project_name!r})"

    @property
    def user_dict(self) -> Mapping[str, dict[str, Any]]:
        """The records by user, as they are whenever they are looked at. To be read: methods change them."""
        return _Users(self)

    def load_data(self) -> None:
        """Do nothing, for programs that call it: what is stored is read whenever it is asked for."""

    def print_verbose(self, print_statement: object) -> None:
        """Log a statement at level DEBUG."""
        logger.debug("%s", print_statement)

    @property
    def _guard(self) -> Guard:
        return self._local if self._service is None else self._service.beside(self._local)

    @property
    def _local(self) -> Guard:
        base = self._given
        if base is None:
            import budgetguard

            base = budgetguard.default_guard()
        # What is at a service limits none of the guard's own calls, whatever their project is called.
        return (base.of_manager if self._service is None else base.in_project)(self.project_name)

    def create_budget(
        self,
        total_budget: int | float | Decimal,
        user: User,
        duration: str | None = None,
        created_at: float | datetime | None = None,
        *,
        timezone: str | None = None,
        align: Align = "created",
    ) -> dict[str, Any]:
        """Make a user's budget, or change its limit and window and keep what is spent. Returns the record.

        Args:
            total_budget: USD.
            user: whose.
            duration: `hourly`, `daily`, `weekly`, `monthly`, `yearly`, or such as `30s`, `7d`, `1mo`;
                None never resets.
            created_at: where windows start: epoch seconds, or a datetime (naive: UTC). Now by default; a
                budget that is changed and keeps its duration keeps its windows too.
            timezone: IANA name, for windows of days and longer; the settings' by default.
            align: `calendar` starts windows with the hour, day, week (Monday), month or year instead.

        Raises:
            ConfigurationError: a bad argument; nothing was changed.
            StoreError: the store failed.
        """
        user = _id(user)
        to_nanos(total_budget, name="total_budget")
        if duration is not None and not isinstance(duration, str):
            raise ConfigurationError(
                f'duration must be text such as "monthly" or "28d", not {duration!r} '
                f"({type(duration).__name__})"
            )
        return record(
            self._guard.set_budget(
                total_budget,
                user=user,
                duration=duration,
                timezone=timezone,
                starts_at=None if created_at is None else _instant(created_at),
                align=align,
            )
        )

    def projected_cost(self, model: str, messages: Any, user: User, **request: Any) -> float:
        """Return what a user will have spent at most once a call is made: USD spent now plus the projection.

        Args:
            model: the model.
            messages: the messages of a chat, a text, or a list of texts to embed.
            user: who would pay.
            request: what else the request says that costs: `tools`, `max_completion_tokens`, `n` and so on.

        Raises:
            UnknownUserError: the user has no budget.
            UnknownModelError: no price is known.
            ConfigurationError: the request cannot be right.
        """
        spent = self._balance(user).spent_nanos
        engine = self._guard.engine
        body = chat_body(request, messages)
        try:
            rates = engine.prices.rates(model, bare=True)
        except UnknownModelError as error:
            if engine.settings.unknown_model == "allow":
                return _usd(spent)
            raise without_price(error, "the cost of the call cannot be projected") from error
        endpoint = CHAT if "messages" in body else EMBEDDINGS
        projection = endpoint.project(Asked(body, model, rates, engine.learned.cap))
        return _usd(spent + projection.cost)

    def get_total_budget(self, user: User) -> float:
        """Return a user's limit in USD; infinity for a budget that only counts.

        Raises:
            UnknownUserError: the user has no budget.
        """
        return _limit(self._balance(user))

    def update_cost(
        self,
        user: User,
        completion_obj: Any = None,
        model: str | None = None,
        input_text: str | None = None,
        output_text: str | None = None,
    ) -> dict[str, Any]:
        """Book what a call has cost: once, whatever runs beside it. Returns `{"user": record}`.

        An answer that a guarded call (patched client or `@budgeted`) of this process has charged to the
        user already is not booked again.

        Args:
            user: who pays.
            completion_obj: the answer: an object of the `openai` package, a dict of that shape, or any object
                with such a `usage`.
            model: the model, for the text form; with an answer, the name to price and to book it under.
            input_text: the text that was sent, where there is no answer to read; its tokens are counted.
            output_text: the text that came back.

        Raises:
            UnknownUserError: the user has no budget.
            UnknownModelError: no price is known; nothing was booked.
            ConfigurationError: neither an answer nor both texts, or an answer that does not say its usage.
            StoreError: the store failed; nothing was booked.
        """
        user = _id(user)
        engine = self._guard.engine
        if model is not None and input_text is not None and output_text is not None:
            found = counted_usage(model, input_text, output_text)
        elif completion_obj is not None:
            found = reported_usage(completion_obj, model)
            if is_paid(engine, user, completion_obj, found):
                return {"user": self._record(user)}
        else:
            raise ConfigurationError(
                "update_cost needs the answer (completion_obj=), or model=, input_text= and output_text="
            )
        name, cost = price(engine, found, model, completion_obj)
        engine.post(user, cost, model=name, endpoint="update_cost", reported=found)
        return {"user": self._record(user)}

    def get_current_cost(self, user: User) -> float:
        """Return what a user has spent in the present window, USD.

        Raises:
            UnknownUserError: the user has no budget.
        """
        return _usd(self._balance(user).spent_nanos)

    def get_model_cost(self, user: User) -> dict[str, float]:
        """Return what a user has spent in the present window, USD by model; empty when fresh.

        Raises:
            UnknownUserError: the user has no budget.
        """
        return {model: _usd(cost) for model, cost in self._balance(user).models.items()}

    def is_valid_user(self, user: User) -> bool:
        """Return whether a user has a budget."""
        try:
            user = _id(user)
        except ConfigurationError:
            return False
        return self._guard.store.read(account_name(USER, user)) is not None

    def get_users(self) -> list[str]:
        """Return the ids of all users who have a budget, in order."""
        return list(self._guard.users())

    def reset_cost(self, user: User) -> dict[str, Any]:
        """Set what a user has spent to nothing. Returns `{"user": record}`.

        Raises:
            UnknownUserError: the user has no budget.
        """
        user = _id(user)
        return {"user": record(self._guard.reset(user))}

    def reset_on_duration(self, user: User) -> None:
        """Do nothing, for programs that call it: windows reset by themselves.

        Raises:
            UnknownUserError: the user has no budget.
        """
        self._balance(user)

    def update_budget_all_users(self) -> None:
        """Do nothing, for programs that call it: windows reset by themselves."""

    def save_data(self) -> dict[str, str]:
        """Return `{"status": "success"}`: every change is stored when its call returns."""
        self._guard.flush()
        return {"status": "success"}

    def import_litellm(
        self, path: str | os.PathLike[str] = "user_cost.json", *, calendar: bool = False
    ) -> Imported:
        """Import the users of LiteLLM's `user_cost.json`; see `importing.import_user_cost`.

        Raises:
            ConfigurationError: the file cannot be read, or is no such file; nothing was changed.
            StoreError: the store failed; run it again, and it goes on where it stopped.
        """
        from budgetguard.litellm.importing import import_user_cost

        return import_user_cost(self._guard, path, calendar=calendar)

    def _balance(self, user: User) -> Balance:
        return self._guard.balance(_id(user))

    def _record(self, user: User) -> dict[str, Any]:
        return record(self._balance(user))


class _Users(Mapping[str, dict[str, Any]]):
    """A manager's records by user, read whenever they are looked at."""

    def __init__(self, manager: BudgetManager) -> None:
        self._manager = manager

    def __getitem__(self, user: User) -> dict[str, Any]:
        return self._manager._record(user)

    def __contains__(self, user: object) -> bool:
        return self._manager.is_valid_user(user)  # type: ignore[arg-type]  # `in` takes anything

    def __iter__(self) -> Iterator[str]:
        return iter(self._manager.get_users())

    def __len__(self) -> int:
        return len(self._manager.get_users())

    def __repr__(self) -> str:
        return repr(dict(self))

    def __setitem__(self, user: User, value: object) -> None:
        raise ConfigurationError(
            "user_dict shows what is stored, and is not stored itself: change a user by create_budget(), "
            "update_cost() or reset_cost()"
        )

    __delitem__ = None


def record(balance: Balance) -> dict[str, Any]:
    """Return a balance as a record of LiteLLM's: a new dict, the caller's to change.

    Keys: `total_budget` and `current_cost` (USD, float), `model_cost` (`{model: USD}`), `created_at` and
    `last_updated_at` (epoch seconds, float), and, where the budget has one, `duration`: the length of the
    present window in days (int), as LiteLLM has it, or the text of a duration that is shorter than days.
    `created_at` is when the budget was made, or the start of the present window if that is earlier.
    """
    made = {
        "total_budget": _limit(balance),
        "created_at": min(balance.created_ms, balance.starts_ms) / 1000,
        "last_updated_at": balance.updated_ms / 1000,
        "current_cost": _usd(balance.spent_nanos),
        "model_cost": {model: _usd(cost) for model, cost in balance.models.items()},
    }
    if balance.duration is not None and balance.resets_ms is not None:
        days = parse_duration(balance.duration)[1] in ("d", "w", "mo", "y")
        made["duration"] = (
            round((balance.resets_ms - balance.starts_ms) / _DAY_MS) if days else balance.duration
        )
    return made


def _usd(nanos: Nanos) -> float:
    return float(to_usd(nanos))


def _limit(balance: Balance) -> float:
    return math.inf if balance.limit_nanos is None else _usd(balance.limit_nanos)


def _instant(created_at: object) -> datetime:
    if isinstance(created_at, datetime):
        return created_at
    if (
        isinstance(created_at, bool)
        or not isinstance(created_at, int | float)
        or not 0 <= created_at < _LAST_SECOND
    ):
        raise ConfigurationError(
            f"created_at must be epoch seconds or a datetime, not {created_at!r} "
            f"({type(created_at).__name__}); leave it out for now"
        )
    return datetime.fromtimestamp(created_at, UTC)


def _id(user: User) -> str:
    whole = isinstance(user, int) and not isinstance(user, bool)
    return check_id(str(user) if whole else user, name="user")
