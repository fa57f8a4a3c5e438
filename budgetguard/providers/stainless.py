"""One call of a client of openai's generator (Stainless), as it stands at the client's `request` method."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from budgetguard.config import Settings
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.outcomes import NotCharged, Outcome, Unknown
from budgetguard.errors import ConfigurationError
from budgetguard.providers.answers import http_response
from budgetguard.providers.base import Endpoint
from budgetguard.providers.failures import was_never_sent, was_sending
from budgetguard.providers.fetching import Fetcher
from budgetguard.providers.json import is_absent
from budgetguard.providers.request import HttpRequest, with_files
from budgetguard.providers.sdk import Place, Route, Sdk
from budgetguard.providers.sent_call import FollowedCall
from budgetguard.providers.streams import is_read


class StainlessCall(FollowedCall):
    """One request of a client, with the marks by which its answer is seen.

    Args:
        client: the SDK's client that makes it.
        options: the SDK's `FinalRequestOptions`. Never changed: `options` of this object is a copy.
        endpoint: how it is read.
        route: where it goes.
        sdk: the client's.
        settings: say which model a name stands for, what may be asked without a price, also inside a batch,
            and who counts the input.
        stream: the caller iterates over events.

    Attributes:
        received: what the client has parsed of the answer, None before.
        receiving: what it parses is to be kept.

    Raises:
        ConfigurationError: the body is not a JSON object, so it cannot be priced.
    """

    def __init__(
        self,
        client: Any,
        options: Any,
        endpoint: Endpoint,
        route: Route,
        sdk: Sdk,
        settings: Settings,
        *,
        stream: bool,
    ) -> None:
        self.options = copy.copy(options)
        request = _value_of(self.options, route)
        super().__init__(
            request,
            endpoint,
            provider=route.place.provider,
            default_provider=sdk.default_provider,
            model=route.model,
            model_of=str if route.names_are_models else partial(_listed, settings.model_of, route.place),
            served=route.place.served,
            free=route.free,
            counts=settings.count == "provider",
            fetcher=lambda: Fetcher(client, request.headers, options.timeout),
            row_of=lambda path: sdk.table.endpoint_of(
                "POST", path, base_url=request.base_url, allowed=settings.allow_endpoints
            ),
        )
        self.streams = stream and endpoint.streams
        self.received: object = None
        self._ending: Outcome | None = None
        self.receiving = True
        if self.streams:
            self._ask_for_usage()
        theirs: Callable[[Any], Any] | None = self.options.post_parser
        self.options.post_parser = _Look(self, None if is_absent(theirs) else theirs)

    def outcome(self, answer: Any) -> Outcome:
        if self._ending is not None:
            return self._ending
        received = answer if self.received is None else self.received
        return self._outcome_of(received)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        if self.received is not None:
            return self._outcome_of(self.received)
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "APIStatusError" in kinds:
            return NotCharged(f"HTTP {getattr(error, 'status_code', 'error')}")
        if "APIResponseValidationError" in kinds:
            return self._outcome_of(getattr(error, "response", None))
        if was_never_sent(error):
            return NotCharged("no connection")
        if "APIConnectionError" in kinds or not isinstance(error, Exception) or was_sending(error):
            return Unknown(type(error).__name__)
        return NotCharged(f"not sent: {type(error).__name__}")

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        # What the hook sees from here on would keep the stream alive through the call that follows it.
        received, self.received, self.receiving = self.received, None, False
        response = http_response(answer)
        if response is None:
            self.received = received
            return None
        unread = not is_read(response)
        if not unread:
            self.received = received
        self._ending = self._follow(response, call)
        return answer if unread else None

    def _ask_for_usage(self) -> None:
        headers = {} if is_absent(self.options.headers) else dict(self.options.headers)
        if not any(name.lower() == "accept-encoding" for name in headers):
            self.options.headers = {**headers, "Accept-Encoding": "identity"}
        asked = self._endpoint.asks_usage(self._sent.body)
        self._hide_usage = bool(asked)
        for name, value in asked.items():
            self._write(name, value)

    def _write(self, name: str, value: object) -> None:
        options = self.options
        super()._write(name, value)
        if isinstance(options.extra_json, Mapping) and name in options.extra_json:
            options.extra_json = {**options.extra_json, name: value}
        elif isinstance(options.json_data, Mapping):
            options.json_data = {**options.json_data, name: value}
        else:
            text = json.dumps(self._sent.body).encode()
            if getattr(options, "content", None) is not None:
                options.content = text
            else:
                options.json_data = text


class Mark:
    """The parser in the options of a request that a guard has looked at; all copies of the options share it.

    Args:
        theirs: the caller's own parser.
    """

    def __init__(self, theirs: Callable[[Any], Any] | None) -> None:
        self._theirs = theirs

    def __deepcopy__(self, _memo: object) -> Mark:
        return self  # some clients copy the options with all that they hold

    def __call__(self, parsed: Any) -> Any:
        return parsed if self._theirs is None else self._theirs(parsed)


class _Look(Mark):
    """The mark of a request that is guarded, which sees what the client parses.

    Args:
        request: the call.
        theirs: the caller's own parser.
    """

    def __init__(self, request: StainlessCall, theirs: Callable[[Any], Any] | None) -> None:
        super().__init__(theirs)
        self.request = request
        self.sent = False

    def __call__(self, parsed: Any) -> Any:
        # Before theirs, which may raise: by then the answer is paid for.
        request = self.request
        if request.receiving:
            request.received = parsed
        return super().__call__(parsed)


def passing(options: Any) -> Any:
    """Return a copy of a request's options that every guard lets pass."""
    marked = copy.copy(options)
    theirs: Callable[[Any], Any] | None = options.post_parser
    marked.post_parser = Mark(None if is_absent(theirs) else theirs)
    return marked


def is_marked(options: Any) -> bool:
    """Whether a guard has looked at a request already."""
    return isinstance(getattr(options, "post_parser", None), Mark)


@contextmanager
def sending(options: Any) -> Iterator[None]:
    """Count a guarded request that goes through the SDK's own function more than once.

    Somebody between the guard and there may send it more than once. What is not shown to the guard, because
    another answer is, is booked as a try that was lost.
    """
    look = getattr(options, "post_parser", None)
    if not isinstance(look, _Look):
        yield
        return
    if look.sent:
        look.request.lost_tries += 1
    try:
        yield
    except BaseException as error:
        look.sent = not isinstance(look.request.outcome_of_error(error), NotCharged)
        raise
    look.sent = True


def note_retry(options: Any, response: object) -> None:
    """Count a lost try before the client sends a guarded request again; called where it handles why.

    A try that was answered, with an error, cost nothing; one that was sent and never answered is lost.

    Args:
        options: the client's copy of the request's options.
        response: what the try was answered with, or None.
    """
    look = getattr(options, "post_parser", None)
    error = sys.exception()
    if isinstance(look, _Look) and response is None and error is not None and not was_never_sent(error):
        look.request.lost_tries += 1


def _listed(model_of: Callable[[str], str], place: Place, name: str) -> str:
    return place.listed(model_of(name))


def _value_of(options: Any, route: Route) -> HttpRequest:
    """Return a request as a value.

    Args:
        options: a copy of the SDK's options; an iterator in its body is replaced by a list of what it yields.
        route: where it goes.

    Raises:
        ConfigurationError: the body is not a JSON object.
    """
    headers: Mapping[str, Any] = {} if is_absent(options.headers) else options.headers
    return HttpRequest(
        method=route.method,
        base_url=route.base_url,
        address=route.address,
        path=route.path,
        headers={name.lower(): value for name, value in headers.items()} if headers else headers,
        query=options.params,
        body=with_files(_body(options), options.files) if options.files else _body(options),
    )


def _body(options: Any) -> Mapping[str, Any]:
    body = options.json_data
    if isinstance(body, Mapping):
        for value in body.values():
            if isinstance(value, Iterator):
                # Read once, which is by us: the SDKs take what is iterable for lists.
                body = {name: list(one) if isinstance(one, Iterator) else one for name, one in body.items()}
                options.json_data = body
                break
    if body is None:
        body = getattr(options, "content", None)
    if isinstance(body, bytes | bytearray | str):
        try:
            body = json.loads(body)
        except ValueError:
            body = None
    extra = options.extra_json
    if body is None and isinstance(extra, Mapping):
        body = {}
    if not isinstance(body, Mapping):
        raise ConfigurationError(
            f"{options.method.upper()} {options.url}: the body cannot be read to price it "
            f"({type(options.json_data).__name__}); pass a dict"
        )
    return {**body, **extra} if isinstance(extra, Mapping) else body
