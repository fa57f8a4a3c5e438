"""The guard: settings, store, prices and hooks tied together, with every verb that a program needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from budgetguard.config import Settings, changed, from_environment, max_budget_of_environment
from budgetguard.core.accounts import PROJECT, USER, Balance, Unit, check_id
from budgetguard.core.holds import HoldRecord
from budgetguard.core.money import to_nanos, to_usd
from budgetguard.core.windows import Align, to_milliseconds
from budgetguard.engine.surrounding import Run, budget_labels, budget_user
from budgetguard.errors import ConfigurationError
from budgetguard.events import Event, Hook
from budgetguard.stores.base import Store

if TYPE_CHECKING:
    from pathlib import Path

    from budgetguard.billing.bill import Bill
    from budgetguard.billing.result import Reconciliation
    from budgetguard.core.rules import OnLimit
    from budgetguard.core.trail import Change
    from budgetguard.engine.budgets import Budgets
    from budgetguard.litellm.manager import BudgetManager
    from budgetguard.providers.call_block import BudgetedCall
    from budgetguard.providers.decorator import BudgetedOptions

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")


class Guard:
    """Put calls under budgets. For those who want no globals; the module's verbs are one Guard's.

    Args:
        settings: see `Settings`; what is not given comes from `BUDGETGUARD_*` variables, else is the default.
            `BUDGETGUARD_MAX_BUDGET` is where its `max_budget` begins.

    Raises:
        ConfigurationError: an unknown setting or a bad value.

    >>> guard = Guard(store="memory://", project="my-app")
    >>> guard.set_budget(10, user="1234", duration="monthly").available
    Decimal('10.00')
    """

    # Without a dict of its own, so that `guard.max_budgte = 5` is an AttributeError, not a cap that is none.
    __slots__ = ("__weakref__", "_lock", "_siblings", "engine")

    def __init__(self, **settings: Any) -> None:
        from budgetguard.engine.engine import Engine

        self.engine = Engine(changed(from_environment(), settings))
        self._siblings: dict[str, Guard] = {}
        self._lock = threading.RLock()
        if (limit := max_budget_of_environment()) is not None:
            self.engine.process.limit = limit

    def __repr__(self) -> str:
        return f"<Guard of project {self.project!r} on {self.engine.place!r}>"

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.engine.settings

    @property
    def project(self) -> str:
        """Whose accounts these are."""
        return self.engine.project

    @property
    def store(self) -> Store:
        """The store, opened on first use.

        Raises:
            StoreError: it cannot be opened.
        """
        return self.engine.store

    def configure(self, /, **settings: Any) -> None:
        """Change settings; those not named stay as they are. Calls under way keep what they began with.

        Raises:
            ConfigurationError: an unknown setting or a bad value; nothing was changed.
        """
        new = changed(self.settings, settings)
        with self._lock:
            for project, sibling in self._siblings.items():
                sibling.engine.configure(changed(new, {"project": project}))
            self.engine.configure(new)

    def in_project(self, project: str) -> Guard:
        """Return the guard of another project on the same store, with the same prices and hooks.

        A guard whose project was never set, and whose store was never used, takes on the project itself.

        Raises:
            ConfigurationError: a bad project name.
        """
        check_id(project, name="project")
        with self._lock:
            if self.settings.project is None and not self.engine.is_open:
                self.engine.configure(changed(self.settings, {"project": project}))
            if project == self.project:
                return self
            if project not in self._siblings:
                self._siblings[project] = self.beside(project=project)
            return self._siblings[project]

    def of_manager(self, project: str) -> Guard:
        """Return the guard of a `BudgetManager`'s project; see `in_project`.

        Raises:
            ConfigurationError: a bad project name; or this guard has used budgets of another project, since
                none was named, so that the manager's would limit none of its calls.
        """
        check_id(project, name="project_name")
        if self.settings.project is None and self.engine.is_open and project != self.project:
            raise ConfigurationError(
                f"BudgetManager({project!r}) comes too late to name this program's project: budgets of "
                f"{self.project!r} have been used already. Name it first, with "
                f"configure(project={project!r}) or BUDGETGUARD_PROJECT={project}; or, if both are meant, "
                f"name the other with configure(project={self.project!r})"
            )
        return self.in_project(project)

    def beside(self, **settings: Any) -> Guard:
        """Return another guard of other settings, with this one's prices, hooks and process cap.

        Raises:
            ConfigurationError: an unknown setting or a bad value.
        """
        other = Guard(**{**_values(self.settings), **settings})
        other.engine.prices = self.engine.prices.beside(other.settings.prices, other.settings.price_list)
        other.engine.hooks = self.engine.hooks
        other.engine.process = self.engine.process
        return other

    # Who pays

    def budget_user(self, user: str, **labels: str) -> budget_user:
        """Charge the guarded calls inside to a user; see `budgetguard.budget_user`."""
        return budget_user(user, **labels)

    def budget_labels(self, **labels: str) -> budget_labels:
        """Label the guarded calls inside; see `budgetguard.budget_labels`."""
        return budget_labels(**labels)

    def budget(self, limit: int | float | Decimal) -> Run:
        """Cap what the calls inside a `with` spend together; see `Run`.

        Args:
            limit: USD.

        Raises:
            ConfigurationError: a bad limit.
        """
        return Run(self.engine, limit)

    @property
    def max_budget(self) -> Decimal:
        """USD that this process may spend, 0 for no cap.

        Raises:
            ConfigurationError: on setting it: not an amount of money.
        """
        return to_usd(self.engine.process.limit or 0)

    @max_budget.setter
    def max_budget(self, usd: int | float | Decimal) -> None:
        limit = to_nanos(usd, name="max_budget")
        # What merely rounds to nothing allows nothing.
        self.engine.process.limit = limit if usd else None

    def current_cost(self) -> float:
        """Return what this process has spent through this guard, USD as a float, as LiteLLM counts it."""
        return float(to_usd(self.engine.process.spent))

    # What is guarded

    @overload
    def budgeted(self, function: F) -> F: ...

    @overload
    def budgeted(self, **options: Unpack[BudgetedOptions]) -> Callable[[F], F]: ...

    def budgeted(self, function: Any = None, **options: Any) -> Any:
        """Guard a function that answers with a completion; see `budgetguard.budgeted`."""
        from budgetguard.providers.decorator import budgeted

        return budgeted(lambda: self.engine, function, **options)

    def call(
        self,
        *,
        model: str,
        messages: object = None,
        input: object = None,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        request: Mapping[str, Any] | None = None,
        provider: str | None = None,
        base_url: str | None = None,
        sends_cap: bool = True,
        sends_model: bool = False,
        endpoint: str = "call",
        user: str | None = None,
        tags: str | Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> BudgetedCall:
        """Put one call under a budget, whatever makes it: `with guard.call(...) as call:`.

        See `BudgetedCall`. The input is given as one of `messages`, `input` and `input_tokens`.

        Args:
            model: the model.
            messages: of a chat.
            input: text, messages, or a list of texts to embed.
            input_tokens: how many there are, where you count them yourself.
            max_output_tokens: the cap that the call sets on its output; 0 for a call that writes none. By
                default one is assumed, from what settled calls of the model have written.
            request: what else the request has that costs, by OpenAI's names: `{"tools": [...], "n": 2}`.
            provider: whose prices count, by genai-prices' id such as `azure`; by default what `base_url` or
                a prefix of the model's name says, else OpenAI.
            base_url: the address that is called; calls to one of `free_base_urls` cost nothing.
            sends_cap: `call.max_output_tokens` is sent with the call. If it cannot be, say False: strict mode
                then projects as without it.
            sends_model: `call.model` is what is called. If a budget falls back to a cheaper model, that is
                another one; by default the call is refused then.
            endpoint: what the call is known by in events and records.
            user: who pays; by default the current user.
            tags: labels of this call, beside the current ones.
            labels: likewise, by name, such as `{"customer": "acme"}`.

        Raises:
            ConfigurationError: a bad argument. What refuses the call is raised where the block begins.
        """
        from budgetguard.providers.call_block import call_block

        return call_block(
            self.engine,
            model=model,
            messages=messages,
            input=input,
            input_tokens=input_tokens,
            max_output_tokens=max_output_tokens,
            request=request,
            provider=provider,
            base_url=base_url,
            sends_cap=sends_cap,
            sends_model=sends_model,
            endpoint=endpoint,
            user=user,
            tags=tags,
            labels=labels,
        )

    def patch(self, *sdks: str, model_map: Mapping[str, str] | None = None) -> None:
        """Guard every client of every SDK that budgetguard knows, existing and future ones. Twice is once.

        An SDK that is imported later is guarded when it is.

        Args:
            sdks: the SDKs to guard, such as `"openai"`, `"groq"`; by default all.
            model_map: which model a deployment or a name stands for, as `configure(model_map=...)` sets it.

        Raises:
            ConfigurationError: no such SDK; one is patched by another guard, or of a version that is not
                known; a bad `model_map`.
        """
        from budgetguard.providers.sdks import chosen, patch

        chosen(sdks)
        said = {} if model_map is None else {"model_map": model_map}
        changed(self.settings, said)
        patch(self.engine, *sdks)
        self.configure(**said)

    def unpatch(self, *sdks: str) -> None:
        """Undo `patch`, leaving what others wrapped around it.

        Args:
            sdks: by default all.

        Raises:
            ConfigurationError: no such SDK.
        """
        from budgetguard.providers.sdks import unpatch

        unpatch(*sdks)

    def patch_openai(self, *, model_map: Mapping[str, str] | None = None) -> None:
        """Guard every client of the `openai` package; see `patch`."""
        self.patch("openai", model_map=model_map)

    def unpatch_openai(self) -> None:
        """Undo `patch_openai`, leaving what others wrapped around it."""
        self.unpatch("openai")

    def patch_anthropic(self, *, model_map: Mapping[str, str] | None = None) -> None:
        """Guard every client of the `anthropic` package; see `patch`."""
        self.patch("anthropic", model_map=model_map)

    def unpatch_anthropic(self) -> None:
        """Undo `patch_anthropic`, leaving what others wrapped around it."""
        self.unpatch("anthropic")

    def patch_litellm(self, *, model_map: Mapping[str, str] | None = None) -> None:
        """Guard the functions of the `litellm` package and its Router; see `patch`."""
        self.patch("litellm", model_map=model_map)

    def unpatch_litellm(self) -> None:
        """Undo `patch_litellm`."""
        self.unpatch("litellm")

    def patch_bedrock(self, *, model_map: Mapping[str, str] | None = None) -> None:
        """Guard every client that `boto3` or `aiobotocore` makes of Bedrock's services; see `patch`.

        Those of other services are left alone.
        """
        self.patch("bedrock", "aiobotocore", model_map=model_map)

    def unpatch_bedrock(self) -> None:
        """Undo `patch_bedrock`, leaving what others wrapped around it."""
        self.unpatch("bedrock", "aiobotocore")

    def patch_google(self, *, model_map: Mapping[str, str] | None = None) -> None:
        """Guard every client of the `google-genai` package; see `patch`."""
        self.patch("google", model_map=model_map)

    def unpatch_google(self) -> None:
        """Undo `patch_google`, leaving what others wrapped around it."""
        self.unpatch("google")

    def wrap(self, client: C, *, model_map: Mapping[str, str] | None = None) -> C:
        """Guard one client of an SDK that `patch` knows, and those made from it, and return it.

        Args:
            client: such as an `OpenAI`, an `AsyncAnthropic`, a `Groq`.
            model_map: as the setting of that name, for this client alone, before the setting's own names.

        Raises:
            ConfigurationError: not a client of these packages, or one whose calls are refused; a bad
                `model_map`.
        """
        from budgetguard.providers.sdks import wrap

        return wrap(client, self.engine, model_map)

    # Budgets

    @property
    def _budgets(self) -> Budgets:
        from budgetguard.engine.budgets import Budgets

        return Budgets(self.engine)

    def set_budget(
        self,
        limit: int | float | Decimal | None,
        *,
        user: str | None = None,
        duration: str | None = None,
        timezone: str | None = None,
        starts_at: datetime | None = None,
        align: Align = "created",
        unit: Unit = "usd",
        rolling: bool = False,
        rollover: int | float | Decimal | None = None,
        name: str = "",
        on_limit: OnLimit = "refuse",
        wait: str | None = None,
        fallbacks: Mapping[str, Sequence[str] | str] | None = None,
        allow: Sequence[str] | str = (),
        forbid: Sequence[str] | str = (),
        max_call_cost: int | float | Decimal | None = None,
        by: str | None = None,
        reason: str = "",
        **labels: str,
    ) -> Balance:
        """Make a budget, or change its limit, window and rules and keep what is spent.

        It is for a user, for calls with some labels, or for both together; else for the whole project. A call
        is charged to every budget that it is within, to all of them or none.

        Args:
            limit: USD, or a number of the unit; None counts and refuses nothing.
            user: whose, taken literally; `EACH` is every user's own.
            duration: such as `monthly` or `7d`; None never resets.
            timezone: IANA name; the settings' by default.
            starts_at: where the first window starts (naive: UTC); now by default.
            align: `calendar` starts windows with the hour, day, week (Monday), month or year instead.
            unit: what it counts: `usd`, `tokens`, `input_tokens`, `output_tokens`, `requests`, or
                `concurrent` (calls under way).
            rolling: what is spent counts for a duration from when it was, instead of in windows.
            rollover: what a window leaves unused is added to the next, at most this much (USD or a number).
            name: tells several budgets for the same calls apart.
            on_limit: what happens to a call that there is no room for: `refuse`; `shadow` lets it through and
                tells; `wait` has it wait until there is room.
            wait: for how long it waits at most (a duration); then it is refused.
            fallbacks: models that are tried in place of one that there is no room for, such as
                `{"gpt-5": ["gpt-5-mini"]}`.
            allow: patterns of the models that may be called, such as `gpt-5*`; all by default.
            forbid: patterns of models that may not be called.
            max_call_cost: USD that one call may cost at most.
            by: who makes the change, for the audit trail; the setting `actor` by default.
            reason: why, likewise.
            labels: calls with these, such as `team="red"`. In a value `*` stands for any text; alone it is
                each value, with a budget of its own that is made on first use. See `budgetguard.literal`.

        Raises:
            ConfigurationError: a bad argument; nothing was changed.
            StoreError: the store failed.
        """
        from budgetguard.engine.terms import Terms

        terms = Terms(
            duration,
            timezone,
            starts_at,
            align,
            rolling,
            rollover,
            on_limit,
            wait,
            fallbacks or {},
            allow,
            forbid,
            max_call_cost,
        )
        span = (duration or "none") if rolling else ""
        account = self._budgets.named(user, labels, unit=unit, rolling=span, name=name)
        return self._foreseen(self._budgets.set(account, limit, terms, by=by, reason=reason))

    def grant(
        self,
        amount: int | float | Decimal,
        *,
        user: str | None = None,
        expires: str | datetime | None = None,
        by: str | None = None,
        reason: str = "",
        **which: Any,
    ) -> Balance:
        """Raise a budget's limit until some time, when it ends by itself.

        Args:
            amount: USD, or a number of the budget's unit.
            user: whose budget.
            expires: when: a duration from now such as `2d`, or a time (naive: UTC).
            by: who grants it, for the audit trail; the setting `actor` by default.
            reason: why, likewise.
            which: which budget, by `unit`, `rolling` (its duration), `name` and labels.

        Raises:
            ConfigurationError: no amount, no end, or one that has passed; a budget without a limit.
            UnknownUserError: the user has no budget.
            StoreError: the store failed.
        """
        account = self._budgets.named(user, **_parts(which))
        found = self._budgets.grant(account, amount, expires=expires, by=by, reason=reason)
        return self._found(account, found)

    def top_up(
        self,
        amount: int | float | Decimal,
        *,
        user: str | None = None,
        by: str | None = None,
        reason: str = "",
        **which: Any,
    ) -> Balance:
        """Add to a prepaid budget, which never resets; make it if it does not exist.

        Args:
            amount: USD, or a number of the budget's unit.
            user: whose budget.
            by: who adds it, for the audit trail; the setting `actor` by default.
            reason: why, likewise.
            which: which budget, by `unit`, `name` and labels.

        Raises:
            ConfigurationError: no amount; a budget without a limit, or with windows.
            StoreError: the store failed.
        """
        account = self._budgets.named(user, **_parts(which))
        return self._foreseen(self._budgets.top_up(account, amount, by=by, reason=reason))

    def set_member(
        self, user: str, *, by: str | None = None, reason: str = "", **labels: str | None
    ) -> Mapping[str, str]:
        """Keep labels with a user, such as a team, so that calls need not say them; return all of them.

        A user without a budget gets the default budget, else one without a limit.

        Args:
            user: whose.
            by: who makes the change, for the audit trail; the setting `actor` by default.
            reason: why, likewise.
            labels: name and value; None takes one away.

        Raises:
            ConfigurationError: a bad user, label or value.
            StoreError: the store failed.
        """
        return self._budgets.set_member(user, labels, by=by, reason=reason)

    def member(self, user: str) -> Mapping[str, str]:
        """Return the labels that are kept with a user."""
        return self._budgets.member(user)

    def audit(self, since: datetime | None = None) -> Iterator[Change]:
        """Yield the changes of budgets, oldest first: who changed what, when and why.

        Args:
            since: only those from then on (naive: UTC).
        """
        return self._budgets.trail(0 if since is None else to_milliseconds(since, name="since"))

    def balance(self, user: str | None = None, **which: Any) -> Balance:
        """Return how a user's budget stands; None, and no label, is the whole project's.

        Args:
            user: whose.
            which: another budget, by `unit`, `rolling` (its duration), `name` and labels.

        Raises:
            UnknownUserError: there is no such budget.
            ConfigurationError: likewise, of a budget that is no user's.
            StoreError: the store failed.
        """
        account = self._budgets.named(user, **_parts(which))
        return self._found(account, self.store.read(account))

    def balances(self) -> Iterator[Balance]:
        """Yield every user's balance, in order of their ids.

        The first `forecast` that is asked for reads the records of all of them, once.
        """
        from budgetguard.engine.forecasting import all_foreseen

        return all_foreseen(lambda: self.store, USER, self.store.list(USER), self.engine.now())

    def budgets(self) -> Iterator[Balance]:
        """Yield all budgets of the project, of whatever kind; those for each value of a label first.

        The first `forecast` that is asked for reads the records of all of them, once.
        """
        from budgetguard.engine.forecasting import all_foreseen

        return all_foreseen(lambda: self.store, "", self._budgets.all(), self.engine.now())

    def users(self) -> Iterator[str]:
        """Yield every user's id, in order."""
        for balance in self.balances():
            yield balance.account.removeprefix(f"{USER}:")

    def reset(
        self, user: str | None = None, *, by: str | None = None, reason: str = "", **which: Any
    ) -> Balance:
        """Set what a user (None: the project) has spent to nothing; calls under way stay held.

        Args:
            user: whose.
            by: who does it, for the audit trail; the setting `actor` by default.
            reason: why, likewise.
            which: another budget, see `balance`.

        Raises:
            UnknownUserError: there is no such budget.
            ConfigurationError: likewise, of a budget that is no user's.
        """
        account = self._budgets.named(user, **_parts(which))
        return self._found(account, self._budgets.reset(account, by=by, reason=reason))

    def delete(
        self, user: str | None = None, *, by: str | None = None, reason: str = "", **which: Any
    ) -> None:
        """Forget a user's budget (None: the project's). Records of calls stay.

        Args:
            user: whose.
            by: who does it, for the audit trail; the setting `actor` by default.
            reason: why, likewise.
            which: another budget, see `balance`. One for each value goes with all that it has made.

        Raises:
            UnknownUserError: there is no such budget.
            ConfigurationError: likewise, of a budget that is no user's.
        """
        account = self._budgets.named(user, **_parts(which))
        if not self._budgets.delete(account, by=by, reason=reason):
            self._found(account, None)

    def projects(self) -> Iterator[str]:
        """Yield the projects of the store that have a budget, in order of their names.

        A hosted service tells a key of its own project only.

        Raises:
            StoreError: the store failed.
        """
        return self.engine.projects()

    def holds(self, user: str | None = None) -> Iterator[HoldRecord]:
        """Yield the open holds of a user, or of everybody."""
        return self.store.holds(None if user is None else self._account(user))

    def calls(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[HoldRecord]:
        """Yield the records of calls made from `since` to before `until`, oldest first."""
        return self.store.calls(
            0 if since is None else to_milliseconds(since, name="since"),
            None if until is None else to_milliseconds(until, name="until"),
        )

    def reconcile(
        self,
        *bills: Bill | str | Path,
        by: Sequence[str] = ("day", "model"),
        since: date | None = None,
        until: date | None = None,
    ) -> Reconciliation:
        """Compare what this project booked with what providers billed, and say where it differs.

        Args:
            bills: what `budgetguard.billing.openai_bill` and `anthropic_bill` fetched, or paths of files:
                their pages as JSON, exports of both consoles as CSV, or a CSV with `date,model,usd`.
            by: what rows are of: `provider`, `day`, `model` or several of them.
            since: the first UTC day; by default the bills'.
            until: the day after the last one; by default the bills'.

        Raises:
            ConfigurationError: no bill, a file that is none, days that are in no bill, a bad grouping.
            BillError: a bill has an amount that is none.
            StoreError: the store failed.
        """
        from budgetguard.billing.reconciling import reconcile

        return reconcile(self.engine, bills, by=by, since=since, until=until)

    def manager(self, project_name: str | None = None) -> BudgetManager:
        """Return a `BudgetManager` on this guard, of its project or of another."""
        from budgetguard.litellm.manager import BudgetManager

        return BudgetManager(project_name or self.project, guard=self)

    # Prices and events

    def register_price(self, /, model: str, **prices: Any) -> None:
        """Set a model's price by your own word; see `PriceBook.register`.

        Raises:
            ConfigurationError: no price, a bad price, an unknown unit.
        """
        self.engine.prices.register(model, **prices)

    def on(self, hook: Hook, *kinds: type[Event]) -> Callable[[], None]:
        """Call `hook` with events (of these kinds only, if any are named), and return its remover.

        Hooks may be called from any thread. What a hook raises is logged and goes no further.
        """
        if not callable(hook):
            raise ConfigurationError(f"a hook is called with each event, and {hook!r} cannot be called")
        return self.engine.hooks.add(hook, kinds)

    def flush(self) -> None:
        """Send settlements that the store did not take before."""
        self.engine.flush()

    def close(self) -> None:
        """Flush, and let go of the store's files and connections; the next use opens them again."""
        self.engine.close()

    def _account(self, user: str | None) -> str:
        return self._budgets.named(user, {})

    def _found(self, account: str, balance: Balance | None) -> Balance:
        if balance is None:
            from budgetguard.engine.payers import account_in_words

            kind, _, ident = account.partition(":")
            if kind == USER:
                raise self.engine.unknown(account, ident)
            if kind == PROJECT:
                raise ConfigurationError(
                    f"project {self.project!r} has no budget of its own: make one with set_budget(limit)"
                )
            raise ConfigurationError(
                f"project {self.project!r} has no budget for {account_in_words(account)}: make one with "
                "set_budget, or look for it with `budgetguard budgets`"
            )
        return self._foreseen(balance)

    def _foreseen(self, balance: Balance) -> Balance:
        from budgetguard.engine.forecasting import foreseen

        return foreseen(lambda: self.store, balance, self.engine.now())


def _parts(which: Mapping[str, Any]) -> dict[str, Any]:
    """Return what names a budget: its labels, and the marks that tell it from others."""
    marks = {name: which[name] for name in ("unit", "rolling", "name") if name in which}
    return {"labels": {name: value for name, value in which.items() if name not in marks}, **marks}


def _values(settings: Settings) -> dict[str, Any]:
    return {one.name: getattr(settings, one.name) for one in fields(settings)}
