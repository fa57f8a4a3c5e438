"""Settings: what a guard does, from arguments or `BUDGETGUARD_*` variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

from budgetguard.core.accounts import Budget, check_id
from budgetguard.core.labels import check_labels
from budgetguard.core.money import Nanos, parse_usd, to_nanos
from budgetguard.core.process import system_clock
from budgetguard.core.windows import Clock, duration_ms, zone
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.addresses import Address
from budgetguard.pricing.hosts import parsed
from budgetguard.stores.base import DEFAULT_RETENTION, STORES, Store
from budgetguard.stores.urls import public_url, shown_url

MissingUser: TypeAlias = Literal["error", "allow", "require"]
UnknownModel: TypeAlias = Literal["error", "allow"]
UnknownOutcome: TypeAlias = Literal["charge", "input", "release"]
OnStoreError: TypeAlias = Literal["block", "allow"]
OnStreamExceeded: TypeAlias = Literal["finish", "stop"]
Count: TypeAlias = Literal["local", "provider"]
OnUnguarded: TypeAlias = Literal["warn", "block", "allow"]

DEFAULT_PROJECT: Final = "default"
DEFAULT_THRESHOLDS: Final = (50, 80, 100)
ALERT_KINDS: Final = ("threshold", "refused")
DEFAULT_ALERT_QUIET: Final = "1h"
DEFAULT_ALERT_ON: Final[tuple[str | int, ...]] = ALERT_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a guard does. Each setting is also a variable: `BUDGETGUARD_` and its name in capitals.

    Attributes:
        store: a store's URL, or an open Store. By default `disk://~/.budgetguard`.
        project: whose accounts; None is `default`, or the project of the first BudgetManager.
        user: who pays where no `budget_user` says.
        runs: ids of runs that every call is charged to as well; `budgetguard run` makes them and says so.
        tags: labels of every call, for reports; see `budget_tags`.
        labels: labels of every call, such as `{"team": "red"}`; see `budget_labels`.
        actor: who changes budgets here, as the audit trail names them; None is the system's user.
        default_budget: USD for users who have no budget yet; None refuses them.
        default_duration: the window of such budgets.
        timezone: IANA name, for windows of days and longer.
        missing_user: whether a call that nothing limits is an `error`, or allowed; or `require`, which is
            what `require_user` says.
        require_user: refuse every call that has no user, whatever else limits it, unless it is known to
            cost nothing.
        unknown_model: whether a model without a price is an `error`, or allowed and booked at $0.
        unknown_outcome: what a call of unknown outcome costs: `charge` the projection, its `input`, or
            `release` it all.
        on_store_error: whether a store that fails before a call will `block` or allow it.
        on_stream_exceeded: what a stream does that has cost more than its hold when no account has any
            more: `finish`, and the next call is refused, or `stop` with BudgetExceededError.
        count: who counts the input of responses: this machine (`local`), or the `provider`, asked before each
            one for its exact count.
        strict: write the largest output cap that the budget affords into requests that set none.
        strict_floor: output tokens; a call whose cap would be lower is refused.
        strict_ceiling: output tokens that no written cap exceeds; None is what the model can write.
        spool: a folder for settlements that a store does not take, until it does; None keeps them in memory.
        hold_ttl: how long a hold lives without word of its call (a duration).
        retention: how long records of ended calls are kept (a duration).
        thresholds: percentages of a limit that are announced when reached.
        alerts: addresses that are told of thresholds and refusals, once a window and account:
            `["slack://TOKEN_A/TOKEN_B/TOKEN_C", "mailto://USER:PASSWORD@example.com"]`, see docs/alerts.md.
            They are never shown. They need the extra `alerts`.
        alert_on: what they are told: `threshold` (all of `thresholds`), some of these percentages, `refused`.
        alert_quiet: for how long nothing else is told about an account, unless it is worse (a duration); None
            tells everything at once.
        allow_endpoints: paths such as `/batches` that may be called although no price is known.
        model_map: which model a name stands for that says nothing of it, as an Azure deployment's:
            `{"my-deployment": "gpt-4o-mini"}`. Its calls are priced and booked as that model's.
        free_base_urls: addresses of servers that cost nothing, such as `http://localhost:11434/v1`: what
            is called there is booked at $0 and never refused.
        prices: a file of prices of your own, in TOML; it is read again when it changes.
        price_list: the file in which `budgetguard prices update` keeps genai-prices' newest list; None is the
            list of the installed genai-prices.
        unguarded: what happens to a connection to a model provider that no guarded call makes: `warn` once
            an address, `block` it before anything is sent, or `allow` it. None is `warn` where clients are
            guarded, else `allow`.
        provider_hosts: hosts where model calls are billed beside those that are known: `host`, `*.host` or
            `host:port` of a gateway, say.
        clock: what tells the time, in milliseconds.

    Raises:
        ConfigurationError: a bad value, named with its setting.
    """

    store: str | Store = "disk://~/.budgetguard"
    project: str | None = None
    user: str | None = None
    runs: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    actor: str | None = None
    default_budget: int | float | Decimal | None = None
    default_duration: str | None = None
    timezone: str = "UTC"
    missing_user: MissingUser = "error"
    require_user: bool = False
    unknown_model: UnknownModel = "error"
    unknown_outcome: UnknownOutcome = "charge"
    on_store_error: OnStoreError = "block"
    on_stream_exceeded: OnStreamExceeded = "finish"
    count: Count = "local"
    strict: bool = False
    strict_floor: int = 16
    strict_ceiling: int | None = None
    spool: str | None = "~/.budgetguard/spool"
    hold_ttl: str = "15m"
    retention: str = DEFAULT_RETENTION
    thresholds: tuple[int, ...] = DEFAULT_THRESHOLDS
    alerts: tuple[str, ...] = ()
    alert_on: tuple[str | int, ...] = DEFAULT_ALERT_ON
    alert_quiet: str | None = DEFAULT_ALERT_QUIET
    allow_endpoints: tuple[str, ...] = ()
    model_map: Mapping[str, str] = field(default_factory=dict)
    free_base_urls: tuple[str, ...] = ()
    prices: str | None = None
    price_list: str | None = "~/.budgetguard/prices.json"
    unguarded: OnUnguarded | None = None
    provider_hosts: tuple[str, ...] = ()
    clock: Clock = system_clock

    def __repr__(self) -> str:
        """Show all settings; of URLs only what is no secret."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        if isinstance(self.store, str):
            given["store"] = public_url(self.store)
        if self.alerts:
            from budgetguard.alerts.addresses import masked

            given["alerts"] = tuple(map(masked, self.alerts))
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def __post_init__(self) -> None:
        _check_store(self.store)
        if self.project is not None:
            check_id(self.project, name="project")
            theirs = self.project if isinstance(self.store, str) else self.store.project
            if theirs != self.project:
                raise ConfigurationError(
                    f"the store was opened for the project {theirs!r}, not for {self.project!r}: "
                    "open it for that one, or name it by its URL"
                )
        if self.user is not None:
            check_id(self.user, name="user")
        for name, what in _LISTS.items():
            if not isinstance(getattr(self, name), tuple):
                raise ConfigurationError(f"{name} is a list of {what}, not {getattr(self, name)!r}")
        for run in self.runs:
            check_id(run, name="each of runs")
        for tag in self.tags:
            check_id(tag, name="each of tags")
        _check_labels(self.labels)
        if self.actor is not None:
            check_id(self.actor, name="actor")
        if self.default_budget is not None:
            to_nanos(self.default_budget, name="default_budget")
        if self.default_duration is not None:
            duration_ms(self.default_duration)
        zone(self.timezone)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices and not (name == "unguarded" and self.unguarded is None):
                known = ", ".join(map(repr, choices))
                raise ConfigurationError(f"{name} must be one of {known}, not {getattr(self, name)!r}")
        for name in ("strict", "require_user"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.require_user and self.missing_user == "allow":
            raise ConfigurationError(
                'require_user refuses the calls that missing_user="allow" lets through: set one of them'
            )
        _check_tokens(self.strict_floor, name="strict_floor")
        if self.strict_ceiling is not None:
            _check_tokens(self.strict_ceiling, name="strict_ceiling")
            if self.strict_ceiling < self.strict_floor:
                raise ConfigurationError(
                    f"strict_ceiling must be at least strict_floor ({self.strict_floor}), "
                    f"not {self.strict_ceiling}"
                )
        for name, what in _PATHS.items():
            path = getattr(self, name)
            if path is not None and (not isinstance(path, str) or not path.strip() or "\0" in path):
                raise ConfigurationError(f"{name} must be {what}, or None for none, not {path!r}")
        duration_ms(self.hold_ttl)
        duration_ms(self.retention)
        for percent in self.thresholds:
            if isinstance(percent, bool) or not isinstance(percent, int) or not 0 < percent <= 1000:
                raise ConfigurationError(f"thresholds are whole percentages from 1 to 1000, not {percent!r}")
        if self.alerts != ():
            from budgetguard.alerts.addresses import check_addresses

            check_addresses(self.alerts)
        _check_alert_on(self.alert_on, self.thresholds)
        if self.alert_quiet is not None:
            duration_ms(self.alert_quiet)
        if not all(isinstance(path, str) for path in self.allow_endpoints):
            what = _LISTS["allow_endpoints"]
            raise ConfigurationError(f"allow_endpoints is a list of {what}, not {self.allow_endpoints!r}")
        _check_model_map(self.model_map)
        for url in self.free_base_urls:
            _check_base_url(url)
        for host in self.provider_hosts:
            if parsed(host) is None:
                raise ConfigurationError(
                    "each of provider_hosts must be a host such as 'llm.example.com', '*.llm.example.com' or "
                    f"'localhost:4000', without scheme and path, not {_hidden(host)!r}"
                )
        if not callable(self.clock):
            raise ConfigurationError(f"clock must return milliseconds when called, not {self.clock!r}")

    @property
    def requires_user(self) -> bool:
        """Whether every call needs a user."""
        return self.require_user or self.missing_user == "require"

    @property
    def default(self) -> Budget | None:
        """The budget that users without one get, or None."""
        if self.default_budget is None:
            return None
        limit = to_nanos(self.default_budget, name="default_budget")
        return Budget(limit, self.default_duration, self.timezone)

    def model_of(self, name: str) -> str:
        """Return the model that a name stands for by `model_map`; the name itself if it is not there."""
        if not self.model_map or not isinstance(name, str):
            return name
        wanted = name.strip().lower()
        return next((model for key, model in self.model_map.items() if key.strip().lower() == wanted), name)

    def is_free(self, url: str) -> bool:
        """Whether what is requested at a URL costs nothing, by `free_base_urls`."""
        if not self.free_base_urls:
            return False
        address = Address.of(url)
        declared = (Address.of(free) for free in self.free_base_urls)
        return address is not None and any(one is not None and one.covers(address) for one in declared)


def _check_tokens(tokens: object, *, name: str) -> None:
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ConfigurationError(f"{name} must be a whole number of tokens from 1, not {tokens!r}")


def _check_alert_on(alert_on: object, thresholds: tuple[int, ...]) -> None:
    if not isinstance(alert_on, tuple) or not alert_on:
        raise ConfigurationError(
            f"alert_on is a list such as ['threshold', 'refused'] or [80, 100, 'refused'], not {alert_on!r}; "
            "without addresses in alerts nothing is sent"
        )
    for one in alert_on:
        is_percent = isinstance(one, int) and not isinstance(one, bool)
        if is_percent and one not in thresholds:
            raise ConfigurationError(
                f"alert_on has {one} %, which is never announced: add it to thresholds, {list(thresholds)}"
            )
        if not is_percent and one not in ALERT_KINDS:
            known = ", ".join(map(repr, ALERT_KINDS))
            raise ConfigurationError(
                f"alert_on is a list of {known} and percentages that thresholds has, such as "
                f"[80, 100, 'refused'], not {one!r}"
            )
    if alert_on == ():
        raise ConfigurationError(
            "alert_on is empty, so no alert would ever be sent: leave alerts empty instead"
        )


def _check_model_map(models: object) -> None:
    if not isinstance(models, Mapping):
        raise ConfigurationError(
            "model_map says which model a name stands for, as in {'my-deployment': 'gpt-4o-mini'}, "
            f"not {models!r}"
        )
    for name, model in models.items():
        if not all(isinstance(one, str) and one.strip() for one in (name, model)):
            raise ConfigurationError(f"model_map has names and models, not {name!r}: {model!r}")


def _check_labels(labels: object) -> None:
    if not isinstance(labels, Mapping):
        raise ConfigurationError(f"labels are names and values, as in {{'team': 'red'}}, not {labels!r}")
    check_labels(labels)


def _check_base_url(url: object) -> None:
    if not isinstance(url, str) or Address.of(url) is None or not {"?", "#"}.isdisjoint(url):
        raise ConfigurationError(
            "each of free_base_urls must be a plain address such as 'http://localhost:11434/v1', with http "
            f"or https, without user name, query or `..`, not {_hidden(url)!r}"
        )


def _hidden(url: object) -> object:
    """Return an address without the user name and password that it may have."""
    return re.sub(r"//[^/]*@", "//...@", url) if isinstance(url, str) else url


def _check_store(store: object) -> None:
    if isinstance(store, str):
        if "://" not in store:
            shown, (scheme, colon, _) = shown_url(store), store.partition(":")
            meant = f"disk://{shown or '~/budgets'} for a folder, or memory://"
            if colon and scheme in STORES:
                meant = f"{scheme}://, with both slashes, before the rest"
            raise ConfigurationError(f"store {shown!r} is not a URL: write {meant}")
    elif not hasattr(store, "reserve"):
        raise ConfigurationError(
            f"store must be a URL such as disk:///var/lib/app/budgets, or an open Store, not {store!r}"
        )


_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "missing_user": get_args(MissingUser),
    "unknown_model": get_args(UnknownModel),
    "unknown_outcome": get_args(UnknownOutcome),
    "on_store_error": get_args(OnStoreError),
    "on_stream_exceeded": get_args(OnStreamExceeded),
    "count": get_args(Count),
    "unguarded": get_args(OnUnguarded),
}
_PATHS: Final = {
    "spool": "a folder's name",
    "prices": "the name of a TOML file",
    "price_list": "a file's name",
}
_LISTS: Final = {
    "runs": "ids of runs",
    "tags": "labels such as ['checkout']",
    "thresholds": "percentages such as [50, 80]",
    "allow_endpoints": "paths such as ['/batches']",
    "free_base_urls": "addresses such as ['http://localhost:11434/v1']",
    "provider_hosts": "hosts such as ['llm.example.com']",
}
_SETTING_NAMES: Final = frozenset(one.name for one in fields(Settings))
_READERS: Final[dict[str, Callable[[str], Any]]] = {
    **dict.fromkeys(_LISTS, lambda text: _list(text)),
    "alerts": lambda text: _addresses(text),
    "alert_on": lambda text: tuple(int(one) if one.isdecimal() else one for one in _list(text)),
    "alert_quiet": lambda text: None if text == "none" else text,
    "default_budget": lambda text: parse_usd(text, name="BUDGETGUARD_DEFAULT_BUDGET"),
    "thresholds": lambda text: tuple(_percentages(text)),
    "model_map": lambda text: _pairs(text, name="BUDGETGUARD_MODEL_MAP"),
    "labels": lambda text: _pairs(text, name="BUDGETGUARD_LABELS", such_as="team=red,feature=search"),
    "spool": lambda text: None if text == "none" else text,
    "price_list": lambda text: None if text == "none" else text,
    "strict": lambda text: _flag(text, name="BUDGETGUARD_STRICT"),
    "require_user": lambda text: _flag(text, name="BUDGETGUARD_REQUIRE_USER"),
    "strict_floor": lambda text: _number(text, name="BUDGETGUARD_STRICT_FLOOR"),
    "strict_ceiling": lambda text: _number(text, name="BUDGETGUARD_STRICT_CEILING"),
}


MAX_BUDGET: Final = "BUDGETGUARD_MAX_BUDGET"
"""USD that a process, or all of a run, may spend."""

_PREFIX: Final = "BUDGETGUARD_"
# Variables that are no settings: of runs, the service and its keys.
_OTHER_VARIABLES: Final = frozenset(
    (
        MAX_BUDGET,
        "BUDGETGUARD_RUN_LOG",
        "BUDGETGUARD_RUN_PYTHON",
        "BUDGETGUARD_RUN_PATH",
        "BUDGETGUARD_API_KEY",
        "BUDGETGUARD_WEBHOOK",
        "BUDGETGUARD_WEBHOOK_SECRET",
        "BUDGETGUARD_SERVE_HOST",
        "BUDGETGUARD_SERVE_RATE",
        "BUDGETGUARD_SERVE_REFRESH",
        "BUDGETGUARD_SERVE_CONNECTIONS",
        "BUDGETGUARD_SERVE_ACCOUNTS",
        "BUDGETGUARD_SERVE_HOLDS",
    )
)
# Kubernetes sets these in every container beside a service called budgetguard (or budgetguard-db), and they
# mean nothing to us; the others are our own tests'.
_PASSED_OVER: Final = re.compile(
    r"BUDGETGUARD_(?:TEST_\w+|(?:\w+_)?SERVICE_(?:HOST|PORT(?:_\w+)?)|(?:\w+_)?PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
)


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that `BUDGETGUARD_*` variables give, defaults for the rest.

    Lists are separated by commas: `BUDGETGUARD_THRESHOLDS=50,90`.

    Raises:
        ConfigurationError: a bad value, or a variable of that prefix that nothing reads.
    """
    _check_variables(environ)
    values: dict[str, Any] = {}
    for name in _SETTING_NAMES - {"clock"}:
        text = environ.get(variable_of(name))
        if text:
            values[name] = _READERS.get(name, str)(text)
    return Settings(**values)


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting."""
    return _PREFIX + setting.upper()


def max_budget_of_environment(environ: Mapping[str, str] = os.environ) -> Nanos | None:
    """Return what BUDGETGUARD_MAX_BUDGET says, in Nanos; None where it is not set or empty. 0 allows nothing.

    Raises:
        ConfigurationError: not an amount of money in USD.
    """
    text = environ.get(MAX_BUDGET)
    return to_nanos(parse_usd(text, name=MAX_BUDGET), name="max budget") if text else None


def _check_variables(environ: Mapping[str, str]) -> None:
    """Refuse a variable that looks like ours and is read by nobody: it is a mistyped cap."""
    known = {variable_of(name) for name in _SETTING_NAMES - {"clock"}} | _OTHER_VARIABLES
    for name in environ:
        if name.startswith(_PREFIX) and name not in known and not _PASSED_OVER.fullmatch(name):
            from difflib import get_close_matches

            # By what follows the prefix, which all of them share.
            names = [one.removeprefix(_PREFIX) for one in known]
            near = get_close_matches(name.removeprefix(_PREFIX), names, n=1)
            hint = (
                f": did you mean {_PREFIX}{near[0]}?" if near else f". There are {', '.join(sorted(known))}"
            )
            raise ConfigurationError(f"the environment variable {name} is none of budgetguard's{hint}")


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings with some values changed.

    Raises:
        ConfigurationError: an unknown setting or a bad value.
    """
    for name in changes:
        if name not in _SETTING_NAMES:
            known = ", ".join(sorted(_SETTING_NAMES))
            raise ConfigurationError(f"unknown setting {name!r}: the settings are {known}")
    values = dict(changes)
    for name in (*_LISTS, "alerts", "alert_on"):
        if isinstance(values.get(name), list | set | frozenset):
            values[name] = tuple(values[name])
    if values.get("alerts", ()) is None:
        values["alerts"] = ()
    for name in _PATHS:
        if isinstance(values.get(name), os.PathLike):
            values[name] = os.fspath(values[name])
    if isinstance(values.get("model_map"), Mapping):
        values["model_map"] = MappingProxyType(dict(values["model_map"]))
    return replace(settings, **values)


def _addresses(text: str) -> tuple[str, ...]:
    from budgetguard.alerts.addresses import split_addresses

    return split_addresses(text)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(
    text: str, *, name: str, such_as: str = "my-deployment=gpt-4o-mini,other=gpt-4o"
) -> Mapping[str, str]:
    pairs = [pair.rpartition("=") for pair in _list(text)]
    if not all(key.strip() and value.strip() for key, _, value in pairs):
        raise ConfigurationError(f"{name} must be like {such_as}, not {text!r}")
    return MappingProxyType({key.strip(): value.strip() for key, _, value in pairs})


def _flag(text: str, *, name: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ConfigurationError(f"{name} must be true or false, not {text!r}")


def _number(text: str, *, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{name} must be a whole number, not {text!r}") from None


def _percentages(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigurationError(
            f"BUDGETGUARD_THRESHOLDS must be whole percentages such as 50,80,100, not {text!r}"
        ) from None
