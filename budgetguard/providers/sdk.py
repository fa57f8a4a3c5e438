"""A row of the table of SDKs: what the wrapper around clients of openai's generator has to know of one."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from budgetguard.config import Settings
from budgetguard.engine.engine import Engine
from budgetguard.errors import ConfigurationError
from budgetguard.providers.base import Endpoint
from budgetguard.providers.table import EndpointTable

# The generator's classes that have the method which every request goes through.
SYNC: Final = "SyncAPIClient"
ASYNC: Final = "AsyncAPIClient"
# What a client does between two tries; from outside, `request` looks the same however many there were.
RETRY: Final = "_sleep_for_retry"
# What makes one attempt of a request, below the middleware of those clients that have any.
ATTEMPT: Final = "_attempt_request"
_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "request": ("self", "cast_to", "options", "stream", "stream_cls"),
    RETRY: ("options", "response"),
}
_OPTIONS: Final = ("method", "url", "headers", "post_parser", "files", "json_data", "extra_json")

EngineOf: TypeAlias = Callable[[Any], Engine | None]


def as_answered(_asked: str, answered: str) -> str:
    """Return the name that an answer gives to its model."""
    return answered


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client's models run, and how they are called there, where its address does not tell.

    Attributes:
        provider: genai-prices' provider id, None where the address tells.
        priced_at: the address that decides what models cost, None for the client's own. A gateway's address
            does not show the region behind it.
        listed: a model's id there -> the name that it is listed by.
        served: (the model that was asked for, the name that the answer gives) -> the latter, as it is listed.
    """

    provider: str | None = None
    priced_at: str | None = None
    listed: Callable[[str], str] = str
    served: Callable[[str, str], str] = as_answered


ANYWHERE: Final = Place()


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, as far as its method and address tell.

    Attributes:
        method: in capitals.
        base_url: the address that decides what models cost: the API's; where the request goes past the
            client's, the request's own.
        address: where it goes.
        path: as the table of endpoints has it.
        endpoint: how the request is read; None if it may pass.
        free: what is asked there costs nothing, by the user's word.
        place: where the model runs.
        model: the model that the address names, or None.
        names_are_models: a model's name is its own there, so that no map of names has a say.
    """

    method: str
    base_url: str
    address: str
    path: str
    endpoint: Endpoint | None
    free: bool
    place: Place
    model: str | None
    names_are_models: bool


def address_of(client: Any, url: str, base_url: str) -> str:
    """Return the absolute URL that a client sends a request to; both may lack what it finds out later."""
    try:
        return str(client._prepare_url(url))
    except Exception:  # noqa: BLE001 - what is missing, the client may yet find before it sends
        return f"{base_url.rstrip('/')}/{url.lstrip('/')}"


class SideWay(Protocol):
    """Ways to the provider that do not pass a client's `request`, and are guarded or refused apart."""

    def close(self) -> None:
        """Guard or refuse from now on, before and after the SDK is imported. Idempotent."""

    def open(self) -> None:
        """Undo `close`. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """One SDK that openai's generator (Stainless) has made.

    Attributes:
        name: what `patch_NAME` and errors call it.
        package: the name that it is imported by, if it is another one.
        oldest: the oldest version that the tests run on.
        too_new: the version from which on it is not known.
        clients: names of its clients' classes, each with `SYNC` or `ASYNC`.
        table: the API's endpoints.
        default_provider: genai-prices' id of the provider at addresses that are nobody's, None for the price
            book's own default.
        place_of: client -> where its models run. It is asked for each request.
        model_in: address -> the model that it names, or None.
        names_are_models: addresses where a model's name is its own, so that no map of names has a say.
        refuses: client -> why requests of it are refused, or None.
        side_way: (client -> who guards it, -> who guards all) -> what its clients do beside requests.
        is_used: whether this process uses the SDK; None: whether it is imported.
        passed_by: modules that send past the SDK in part, and what the log warns of when one is imported.
    """

    name: str
    package: str = ""
    oldest: tuple[int, ...]
    too_new: tuple[int, ...]
    clients: Mapping[str, str]
    table: EndpointTable
    default_provider: str | None = None
    place_of: Callable[[Any], Place] = lambda _client: ANYWHERE
    model_in: Callable[[str], str | None] = lambda _address: None
    names_are_models: re.Pattern[str] | None = None
    refuses: Callable[[object], str | None] | None = None
    side_way: Callable[[EngineOf, Callable[[], Engine | None]], SideWay] | None = None
    is_used: Callable[[], bool] | None = None
    passed_by: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "package", self.package or self.name)

    @property
    def module(self) -> str:
        """The module that has the generator's classes."""
        return f"{self.package}._base_client"

    @property
    def versions(self) -> str:
        """The versions that are known, as an error names them."""
        return f"{'.'.join(map(str, self.oldest))} to {self.too_new[0] - 1}"

    def base_of(self, kind: type) -> type | None:
        """Return the generator's class below a client's class, or None if it is no client of this SDK.

        By names: an SDK that was imported twice has two of each class.
        """
        name = None
        for one in kind.__mro__:
            if name is None:
                # The package gives what it exports its own name.
                module, package = one.__module__, self.package
                own = module in (package, f"{package}._client") or module.startswith(f"{package}.lib.")
                name = self.clients.get(one.__name__) if own else None
            elif one.__name__ == name and one.__module__ == self.module:
                return one
        return None

    def route_of(
        self, place: Place, method: str, url: str, base_url: str, address: str, settings: Settings
    ) -> Route:
        """Return where a request goes.

        Args:
            place: where the models of its client run.
            method: such as `POST`, in any case.
            url: a path, or an absolute URL.
            base_url: the client's.
            address: where it goes.
            settings: say what is free, and what may pass without a price.

        Raises:
            UnknownEndpointError: it may cost money, and nobody knows how much.
        """
        free = settings.is_free(address)
        return Route(
            method=method.upper(),
            base_url=place.priced_at or (base_url if address.startswith(base_url) else address),
            address=address,
            path=self.table.path_of(url, base_url),
            endpoint=self.table.endpoint_of(
                method, url, base_url=base_url, allowed=settings.allow_endpoints, free=free
            ),
            free=free,
            place=place,
            model=self.model_in(address),
            names_are_models=bool(self.names_are_models and self.names_are_models.match(address)),
        )

    def refusal(self, client: object) -> str | None:
        """Return why requests of a client are refused, or None."""
        return None if self.refuses is None else self.refuses(client)

    def made(self, kind: type) -> bool:
        """Whether a class is the SDK's own, and not one that another package has derived."""
        return kind.__module__ == self.package or kind.__module__.startswith(f"{self.package}.")

    def check(self, kind: Any, namespace: Mapping[str, Any], name: str) -> None:
        """Refuse a class of the generator's, of that name in a module, whose requests cannot be guarded.

        Raises:
            ConfigurationError: it is unlike those that the tests run on.
        """
        # While the import is under way, the package itself does not have its version yet.
        version = str(
            getattr(sys.modules.get(f"{self.package}._version"), "__version__", "of unknown version")
        )
        difference = self._difference(kind, namespace, name, version)
        if difference is not None:
            raise ConfigurationError(
                f"{self.name} {version} is not one that budgetguard knows: {difference}. "
                f"Install an {self.name} from {self.versions}, or update budgetguard"
            )

    def _difference(self, kind: Any, namespace: Mapping[str, Any], name: str, version: str) -> str | None:
        for method, parameters in _PARAMETERS.items():
            found = getattr(kind, "__dict__", {}).get(method)
            if not callable(found) or not set(parameters) <= inspect.signature(found).parameters.keys():
                return f"it has no {name}.{method}({', '.join(parameters)})"
        if not callable(getattr(kind, "_prepare_url", None)):
            return f"it has no {name}._prepare_url"
        if "middleware" in inspect.signature(kind).parameters and not hasattr(kind, ATTEMPT):
            return f"it has no {name}.{ATTEMPT}, which its middleware calls"
        options = getattr(namespace.get("FinalRequestOptions"), "__annotations__", {})
        if not set(_OPTIONS) <= options.keys():
            return f"its FinalRequestOptions lack {', '.join(sorted(set(_OPTIONS) - options.keys()))}"
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
        return None if self.oldest <= numbers < self.too_new else "its requests may go other ways"
