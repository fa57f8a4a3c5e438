"""A row of the table of SDKs that openai's generator has not made: the methods that their requests pass."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final, Literal, Protocol, TypeAlias

from budgetguard.config import Settings
from budgetguard.engine.engine import Engine
from budgetguard.engine.provider_call import ProviderCall
from budgetguard.errors import ConfigurationError
from budgetguard.providers.fetching import Fetcher
from budgetguard.providers.polling import Poll
from budgetguard.providers.request import HttpRequest
from budgetguard.providers.sent_call import SentCall
from budgetguard.providers.table import EndpointTable

# How a method answers: at once; when awaited; by yielding pieces; by being entered, which returns the answer.
Style: TypeAlias = Literal["call", "coroutine", "generator", "manager", "async manager"]


@dataclass(frozen=True, slots=True)
class Sending:
    """One call of a method that sends.

    Attributes:
        engine: whose books it goes into.
        settings: the engine's, with the client's own names for models.
        sender: the object whose method it is; None of a function.
        arguments: the method's, by name, without `self`; what it takes as `**kwargs` is among them.
    """

    engine: Engine
    settings: Settings
    sender: Any
    arguments: Mapping[str, Any]


# What a sending is: a call that costs, a poll for the answers of earlier ones, or None if it may pass.
RequestOf: TypeAlias = Callable[[Sending], ProviderCall | Poll | None]


def _itself(sender: Any) -> Any:
    return sender


class Place(Protocol):
    """A method, or a function of a module, on which a wrapper stands."""

    @property
    def owner(self) -> str:
        """Its class in the module; "" for a function."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Those that it must have, or the SDK is not one that is known."""

    @property
    def module(self) -> str:
        """Where it is, if not in the row's module."""

    @property
    def qualname(self) -> str:
        """Its name with its class's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method, or a function of a module, through which an SDK sends.

    Attributes:
        owner: its class in the row's module; "" for a function.
        name: its name.
        style: how it answers.
        parameters: those that it must have, or the SDK is not one that is known.
        request: reads what is sent; raises what refuses it.
        module: where it is, if not in the row's module.
        carrier: its object -> what a wrapped client's guard is kept on, one of `MethodSdk.senders`.
    """

    owner: str
    name: str
    style: Style
    parameters: tuple[str, ...]
    request: RequestOf
    module: str = ""
    carrier: Callable[[Any], object] = _itself

    @property
    def qualname(self) -> str:
        """Its name with its class's."""
        return f"{self.owner}.{self.name}" if self.owner else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """A method of an SDK inside of one that sends, by which lost tries are counted.

    Attributes:
        owner: its class in the row's module.
        name: its name.
        kind: it makes one try, and is called again for the next; or it is called between two tries, while
            the first one's error is being handled.
        parameters: those that it must have, or the SDK is not one that is known.
        module: where it is, if not in the row's module.
    """

    owner: str
    name: str
    kind: Literal["sends", "sends async", "between"]
    parameters: tuple[str, ...] = ()
    module: str = ""

    @property
    def qualname(self) -> str:
        """Its name with its class's."""
        return f"{self.owner}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSdk:
    """One SDK whose requests pass methods that are known by name.

    Attributes:
        name: what `patch_NAME` and errors call it.
        package: the name that it is imported by.
        distribution: the name that it is installed by.
        module: the module that has the methods' classes.
        oldest: the oldest version that the tests run on.
        too_new: the version from which on it is not known.
        methods: what its requests pass.
        tries: where it sends again by itself what was sent before.
        senders: client -> the objects whose methods it sends through; none if it is no client of the SDK.
        passed_by: modules that send past these methods in part, and what the log warns of at their import.
    """

    name: str
    package: str
    distribution: str
    module: str
    oldest: tuple[int, ...]
    too_new: tuple[int, ...]
    methods: tuple[Method, ...]
    tries: tuple[Try, ...] = ()
    senders: Callable[[object], Iterable[object]] = lambda _client: ()
    passed_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def modules(self) -> Mapping[str, tuple[Method | Try, ...]]:
        """The modules that have methods, each with its own."""
        found: dict[str, list[Method | Try]] = {}
        everywhere: tuple[Method | Try, ...] = (*self.methods, *self.tries)
        for one in everywhere:
            found.setdefault(one.module or self.module, []).append(one)
        return {name: tuple(methods) for name, methods in found.items()}

    def version(self) -> str:
        """Return the version that is installed."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return "of unknown version"

    def check(self, module: Mapping[str, Any], methods: Iterable[Place]) -> None:
        """Refuse a module whose methods cannot be guarded.

        Raises:
            ConfigurationError: it is unlike those that the tests run on.
        """
        version = self.version()
        why = next((why for one in methods if (why := _difference(module, one)) is not None), None)
        if why is None:
            numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
            if self.oldest <= numbers < self.too_new:
                return
            why = "its requests may go other ways"
        versions = f"{'.'.join(map(str, self.oldest))} to {self.too_new[0] - 1}"
        raise ConfigurationError(
            f"{self.distribution} {version} is not one that budgetguard knows: {why}. "
            f"Install {self.distribution} from {versions}, or update budgetguard"
        )


def _difference(module: Mapping[str, Any], method: Place) -> str | None:
    found = found_in(module, method)
    found = getattr(found, "__func__", found)  # a static method
    if not callable(found):
        return f"it has no {method.qualname}"
    parameters = inspect.signature(found).parameters
    missing = [name for name in method.parameters if name not in parameters]
    return f"its {method.qualname} takes no {', '.join(missing)}" if missing else None


def found_in(module: Mapping[str, Any], method: Place) -> Any:
    """Return what stands for a method in a module's names, None if nothing does."""
    if not method.owner:
        return module.get(method.name)
    owner = module.get(method.owner)
    return None if owner is None else vars(owner).get(method.name)


_NOTHING: Final[Mapping[str, Any]] = {}


def sent_call(
    sending: Sending,
    table: EndpointTable,
    *,
    method: str,
    base_url: str,
    path: str,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str] = _NOTHING,
    provider: str | None = None,
    default_provider: str | None = None,
    model: str | None = None,
    streams: bool = False,
    content: Callable[[Any], object] = lambda answer: answer,
    writes: Callable[[str, object], None] | None = None,
    fetcher: Callable[[], Fetcher] | None = None,
) -> SentCall | None:
    """Return the call that a request is, None if it may pass.

    Args:
        sending: the call of the SDK's method.
        table: the API's endpoints.
        method: such as `POST`.
        base_url: the API's address, which decides what models cost there.
        path: below it.
        body: the JSON object.
        headers: the caller's own.
        provider: genai-prices' provider id, whatever the address tells.
        default_provider: that of addresses that tell nothing.
        model: the model that the address names.
        streams: the answer is asked for as a stream.
        content: an answer, or a piece of one -> what is read of it.
        writes: (field, value) -> sets the field in what the SDK sends: a cap that the settings ask for.
        fetcher: -> what makes free requests for what the projection needs.

    Raises:
        UnknownEndpointError: it may cost money, and nobody knows how much.
        ConfigurationError: the body cannot be read.
    """
    settings = sending.settings
    address = base_url.rstrip("/") + "/" + path.lstrip("/")
    free = settings.is_free(address)
    endpoint = table.endpoint_of(method, path, base_url=base_url, allowed=settings.allow_endpoints, free=free)
    if endpoint is None:
        return None
    if not isinstance(body, Mapping):
        if free:
            return None
        raise ConfigurationError(
            f"{method.upper()} {path}: the body cannot be read to price it ({type(body).__name__}); "
            "pass a dict"
        )
    request = HttpRequest(
        method=method.upper(),
        base_url=base_url,
        address=address,
        path=table.path_of(path, base_url),
        headers={name.lower(): value for name, value in headers.items()},
        body=body,
    )
    call = SentCall(
        request,
        endpoint,
        provider=provider,
        default_provider=default_provider,
        model=model,
        model_of=settings.model_of,
        free=free,
        counts=settings.count == "provider",
        content=content,
        writes=writes,
        fetcher=fetcher,
        row_of=lambda path: table.endpoint_of(
            "POST", path, base_url=base_url, allowed=settings.allow_endpoints
        ),
    )
    call.streams = streams and endpoint.streams
    return call
