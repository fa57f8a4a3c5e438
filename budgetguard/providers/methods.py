"""A row of the table of SDKs that openai's generator has not made: the methods that their requests pass."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final, Literal, TypeAlias

from budgetguard.config import Settings
from budgetguard.engine.context import innermost_call
from budgetguard.engine.engine import Engine
from budgetguard.engine.provider_call import ProviderCall
from budgetguard.errors import ConfigurationError
from budgetguard.providers.failures import was_never_sent
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
        changes: arguments that are sent in place of the caller's, by name.
    """

    engine: Engine
    settings: Settings
    sender: Any
    arguments: Mapping[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)


# What a sending is: a call that costs, a poll for the answers of earlier ones, or None if it may pass.
RequestOf: TypeAlias = Callable[[Sending], ProviderCall | Poll | None]
Instead: TypeAlias = Callable[[Callable[..., Any], Any, Any, Any], Any]
Observe: TypeAlias = Callable[[Mapping[str, Any], Any, BaseException | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method, or a function of a module, through which an SDK sends.

    Attributes:
        owner: its class in the row's module; "" for a function.
        name: its name.
        style: how it answers.
        parameters: those that it must have, or the SDK is not one that is known.
        request: reads what is sent; raises what refuses it.
        receive: is called with the answer before it is read, and returns what is read and handed on.
        observe: of a method that is not guarded itself, but tells what became of a try: is called with its
            arguments, what it returned, and what it raised.
        instead: of a method that is not guarded itself: (method, object, arguments by place, by name) -> what
            is returned in its place.
        module: where it is, if not in the row's module.
        repeats: whether a call of it is the SDK's next try of the call that we are inside.
        in_code: it is guarded under every name that anybody keeps it by; see `exchange`. What is guarded is
            the function inside all that its package has decorated it with; what `instead` is called for is
            all of them.
        optional: not every version has it.
    """

    owner: str
    name: str
    style: Style
    parameters: tuple[str, ...]
    request: RequestOf = lambda _sending: None
    receive: Callable[[Any], Any] | None = None
    observe: Observe | None = None
    instead: Instead | None = None
    module: str = ""
    repeats: Callable[[Mapping[str, Any]], bool] = lambda _arguments: False
    in_code: bool = False
    optional: bool = False

    @property
    def qualname(self) -> str:
        """Its name with its class's."""
        return f"{self.owner}.{self.name}" if self.owner else self.name


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
        is_used: whether this process uses the SDK; by default, whether `package` is imported.
        serves_others: the package does much else: of a version that is not known, what costs is refused when
            it is called, not when it is imported.
        senders: client -> the objects that carry its guard once it is wrapped; none if it is no client of the
            SDK.
        carrier: object whose method is called -> the one of those that it sends through.
        carries: what it refuses is carried out of the package; see `carrying`.
    """

    name: str
    package: str
    distribution: str
    module: str
    oldest: tuple[int, ...]
    too_new: tuple[int, ...]
    methods: tuple[Method, ...]
    senders: Callable[[object], Iterable[object]] = lambda _client: ()
    carrier: Callable[[Any], object] = lambda sender: sender
    is_used: Callable[[], bool] | None = None
    serves_others: bool = False
    carries: bool = False

    @property
    def modules(self) -> Mapping[str, tuple[Method, ...]]:
        """The modules that have methods, each with its own."""
        found: dict[str, list[Method]] = {}
        for one in self.methods:
            found.setdefault(one.module or self.module, []).append(one)
        return {name: tuple(methods) for name, methods in found.items()}

    @property
    def versions(self) -> str:
        """The versions that are known, as an error names them."""
        return f"{'.'.join(map(str, self.oldest))} to {self.too_new[0] - 1}"

    def version(self) -> str:
        """Return the version that is installed."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return "of unknown version"

    def has(self, module: str) -> bool:
        """Whether a module is the SDK's own, by its full name."""
        return module.startswith(self.package.partition(".")[0])

    def check(self, module: Mapping[str, Any], methods: Iterable[Method]) -> None:
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
        raise ConfigurationError(
            f"{self.distribution} {version} is not one that budgetguard knows: {why}. "
            f"Install {self.distribution} from {self.versions}, or update budgetguard"
        )


def _difference(module: Mapping[str, Any], method: Method) -> str | None:
    found = found_in(module, method)
    if not callable(found):
        if method.optional and found is None:
            return None
        return f"it has no {method.qualname}"
    parameters = inspect.signature(found).parameters
    missing = [name for name in method.parameters if name not in parameters]
    return f"its {method.qualname} takes no {', '.join(missing)}" if missing else None


def found_in(module: Mapping[str, Any], method: Method) -> Any:
    """Return what stands for a method in a module's names, None if nothing does."""
    if not method.owner:
        return module.get(method.name)
    owner = module.get(method.owner)
    return None if owner is None else vars(owner).get(method.name)


def note_lost_try(error: BaseException | None) -> None:
    """Count a try as lost, of the call that we are inside, if it may have arrived; its SDK tries once more.

    Args:
        error: what the try ended with; None if it was answered.
    """
    call = innermost_call()
    if call is not None and error is not None and not was_never_sent(error):
        call.request.lost_tries += 1


def note_failed_try(error: BaseException | None) -> None:
    """Count a try of the call that we are inside as `SentCall.note_failed_try` does.

    Args:
        error: what the try ended with; None if it was answered.
    """
    call = innermost_call()
    if call is not None and isinstance(call.request, SentCall):
        call.request.note_failed_try(error)


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
    rewrite: Callable[[Mapping[str, Any]], None] | None = None,
    fetcher: Callable[[], Fetcher] | None = None,
    kind: type[SentCall] = SentCall,
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
        rewrite: has the method send another body; None where it cannot.
        fetcher: -> what makes free requests for what the projection needs.
        kind: the class of the call.

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
    call = kind(
        request,
        endpoint,
        provider=provider,
        default_provider=default_provider,
        model=model,
        model_of=settings.model_of,
        free=free,
        counts=settings.count == "provider",
        content=content,
        rewrite=rewrite,
        fetcher=fetcher,
        row_of=lambda path: table.endpoint_of(
            "POST", path, base_url=base_url, allowed=settings.allow_endpoints
        ),
    )
    call.streams = streams and endpoint.streams
    return call
