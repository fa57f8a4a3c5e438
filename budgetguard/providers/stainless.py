"""One call of the openai client, as it stands at the client's `request` method."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.outcomes import Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import LearnedCap, Preparation, ProviderCall
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.pricing.book import AZURE, FREE_PROVIDER, PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.accumulators import is_only_an_error, with_seen
from budgetguard.providers.alternatives import first_model, with_alternatives
from budgetguard.providers.base import Endpoint, Prepare, Preparing
from budgetguard.providers.body import BodyWatch, Coding, EventWatch, Watch
from budgetguard.providers.failures import was_never_sent
from budgetguard.providers.fetching import Fetcher
from budgetguard.providers.paths import deployment, endpoint_of, plain_path
from budgetguard.providers.streams import (
    coding_of,
    follow,
    http_response,
    is_event_stream,
    is_read,
    read_before,
)
from budgetguard.providers.uploads import with_files
from budgetguard.tokens.input_bounds import input_reserve
from budgetguard.tokens.requests import given, is_absent

# The attribute of a client's type that has its own names for models.
MODEL_MAP: Final = "_budgetguard_model_map"
# Where a name is the model's own, a map of other servers' names has no say.
NAMES_ARE_MODELS: Final = re.compile(r"https://(?:[a-z]{2}\.)?api\.openai\.com[:/]")
# Providers that know `max_completion_tokens`.
_NEWER_CAP: Final = frozenset({"openai", "azure"})
_SOUND_KEPT: Final = 1_048_576
# Functions of the client and of httpx that a request has gone through once it may have been sent.
_SENDING: Final = frozenset({"send", "_send_request", "_process_response", "parse", "_parse"})


class StainlessCall(ProviderCall):
    """Read one request of the client.

    Args:
        client: the `OpenAI` or `AsyncOpenAI` that makes it.
        options: the SDK's `FinalRequestOptions`. Never changed: `options` of this object is a copy.
        endpoint: how it is read.
        stream: the caller iterates over events.
        address: where it goes.
        free: what is asked there costs nothing, by the user's word.
        model_of: the model that a name stands for.
        allowed: path patterns that may be asked without a price, also inside a batch.
        counts: the provider is to count the input, where it can.

    Raises:
        ConfigurationError: the body is not a JSON object, so it cannot be priced.
    """

    def __init__(
        self,
        client: Any,
        options: Any,
        endpoint: Endpoint,
        *,
        stream: bool,
        address: str,
        free: bool = False,
        model_of: Callable[[str], str] = str,
        allowed: Iterable[str] = (),
        counts: bool = False,
    ) -> None:
        body = with_files(_body(options), options.files)
        self.options = copy.copy(options)
        self.endpoint = endpoint.name
        # Azure answers with the deployment that the address names, whatever model the body names.
        self._written = first_model(body)
        model = deployment(address) or self._written
        self._model_of = str if NAMES_ARE_MODELS.match(address) else model_of
        self.model = self._named(model)
        self.choices = 1
        self._client: Any = client
        self._allowed = allowed
        self._counts = counts
        self._body: Mapping[str, Any] = body
        self._shown: Mapping[str, Any] | None = None
        self._rates: Rates | None = None
        self._endpoint = endpoint
        self._base_url = str(client.base_url) if address.startswith(str(client.base_url)) else address
        self._provider = AZURE if is_azure(client) else None
        self._free = free
        self._unreported = endpoint.unreported(body)
        self.least_ttl = endpoint.least_ttl(body)
        self._stream = stream and endpoint.tally is not None
        self._hide_usage = False
        self._cap: str | None = None
        self._received: object = None
        self._ending: Outcome | None = None
        self._receiving = True
        if self._stream:
            self._ask_for_usage()
        self._look_at_the_answer()

    def prepare(self, book: PriceBook, learned_cap: LearnedCap) -> Preparation | None:
        client, self._client = self._client, None
        prepare = self._endpoint.prepare or (self._endpoint.count if self._counts else None)
        if self._free or prepare is None:
            return None
        return self._prepared(prepare, client, book, learned_cap)

    def _prepared(
        self,
        prepare: Prepare,
        client: Any,
        book: PriceBook,
        learned_cap: LearnedCap,
    ) -> Preparation:
        preparing = Preparing(
            body=self._body,
            path=plain_path(self.options.url, self._base_url),
            fetch=Fetcher(client, self.options),
            rates=lambda model: self._rates_of(book, self._named(model)),
            learned=learned_cap,
            row_of=lambda path: endpoint_of("POST", path, base_url=self._base_url, allowed=self._allowed),
            strict=self.strict,
        )
        prepared = yield from prepare(preparing)
        self._shown = prepared.body
        self.model = self._named(prepared.model)
        self.endpoint = prepared.name or self.endpoint
        self._rates = prepared.rates

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        if self._free:
            return self._project_free(learned_cap)
        body = self._body if self._shown is None else self._shown
        rates = self._rates or self._rates_of(book, self.model)
        rates, projection = self._project_at(rates, learned_cap)
        return rates, with_alternatives(
            projection, body, rates, lambda name: self._rates_of(book, self._named(name)), learned_cap
        )

    def rates_if_known(self, book: PriceBook) -> Rates:
        return book.rates_if_known(self.model, provider=self._provider, base_url=self._base_url)

    def model_named(self, name: str) -> str:
        # A server that repeats what the body says, and does not look at it, names nothing.
        return str(self.model) if name == self._written else self._model_of(name)

    def _named(self, model: Any) -> Any:
        return self._model_of(model) if isinstance(model, str) else model

    def _rates_of(self, book: PriceBook, model: str) -> Rates:
        return book.rates(model, provider=self._provider, base_url=self._base_url)

    def _project_free(self, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates = Rates.free(str(self.model), FREE_PROVIDER)
        nothing = Projection(rates.model, Usage(), 0, 0, 0, 0, cap_assumed=False)
        if self._endpoint.prepare is not None:
            return rates, nothing  # what it would be projected from was not fetched
        try:
            return self._project_at(rates, learned_cap)
        except BudgetGuardError:
            # What cannot be projected costs nothing either, and whether it is right is the server's to say.
            return rates, nothing

    def _project_at(self, rates: Rates, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        more = {"learned_input": learned_cap} if self._endpoint.learns_input else {}
        body = self._body if self._shown is None else self._shown
        projection = self._endpoint.project(body, self.model, rates, learned_cap(self.model), **more)
        self.choices = self._endpoint.choices(self._body)
        if self.strict and projection.input_tokens and projection.served:
            projection = projection.with_reserve(input_reserve(body, self.model))
        # OpenAI's reasoning models refuse `max_tokens`; many other servers know nothing else.
        older = self._endpoint.cap == "max_completion_tokens" and rates.provider not in _NEWER_CAP
        self._cap = "max_tokens" if older else self._endpoint.cap
        if not self.strict:
            self._body = {}  # the prompt is not needed any more
        self._shown = None
        return rates, projection

    @property
    def takes_cap(self) -> bool:
        return self._cap is not None

    def write_cap(self, cap: int) -> None:
        assert self._cap is not None
        self._set(self._cap, cap)

    def outcome(self, answer: Any) -> Outcome:
        if self._ending is not None:
            return self._ending
        received = answer if self._received is None else self._received
        return self._outcome_of(received)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        if self._received is not None:
            return self._outcome_of(self._received)
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "APIStatusError" in kinds:
            return NotCharged(f"HTTP {getattr(error, 'status_code', 'error')}")
        if "APIResponseValidationError" in kinds:
            return self._outcome_of(getattr(error, "response", None))
        if was_never_sent(error):
            return NotCharged("no connection")
        if "APIConnectionError" in kinds or not isinstance(error, Exception) or _was_sending(error):
            return Unknown(type(error).__name__)
        return NotCharged(f"not sent: {type(error).__name__}")

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        # What the hook sees from here on would keep the stream alive through the call that follows it.
        received, self._received, self._receiving = self._received, None, False
        response = http_response(answer)
        if response is None:
            self._received = received
            return None
        if is_read(response):
            self._received = received
            if self._stream or is_event_stream(response):
                self._ending = read_before(response, self._watch(response, encoding=""))
            return None
        follow(response, self._watch(response), call)
        return answer

    def _watch(self, response: Any, encoding: str | Coding | None = None) -> Watch:
        sound = response.headers.get("content-type", "").strip().lower().startswith("audio/")
        events = is_event_stream(response)
        # Servers name the kind of a stream as they like; what was asked for as one, the body itself decides.
        follows_events = events or (self._stream and not sound)
        if encoding is None:
            encoding = coding_of(response, changes=follows_events and self._hide_usage)
        if self._endpoint.tally is not None and follows_events:
            return EventWatch(
                _Complete(self._endpoint.tally(self.model), self._complete),
                hide_usage=self._hide_usage,
                encoding=encoding,
                read=None if events else self._read,
            )
        # A recording's length is read from its beginning.
        return BodyWatch(self._read, encoding=encoding, most=_SOUND_KEPT if sound else None)

    def _outcome_of(self, answer: object) -> Outcome:
        said = self._read(answer)
        return said if isinstance(said, NotCharged) else Answered(said)

    def _read(self, answer: object) -> Reported | NotCharged:
        response = http_response(answer)
        if response is not None and not hasattr(answer, "usage"):
            answer = getattr(response, "_content", None)
        if is_only_an_error(answer):
            return NotCharged("the answer was an error")
        return self._complete(with_seen(self._endpoint.read(answer), answer, self.model))

    def _complete(self, said: Reported) -> Reported:
        if said.usage is None or not self._unreported:
            return said
        return replace(said, usage=Usage({**self._unreported, **said.usage.units}))

    def _ask_for_usage(self) -> None:
        headers = {} if is_absent(self.options.headers) else dict(self.options.headers)
        if not any(name.lower() == "accept-encoding" for name in headers):
            self.options.headers = {**headers, "Accept-Encoding": "identity"}
        if not self._endpoint.asks_usage:
            return
        asked = given(self._body, "stream_options")
        asked = dict(asked) if isinstance(asked, Mapping) else {}
        if asked.get("include_usage") is True:
            return
        self._hide_usage = True
        self._set("stream_options", {**asked, "include_usage": True})

    def _set(self, name: str, value: object) -> None:
        options = self.options
        if isinstance(options.extra_json, Mapping) and name in options.extra_json:
            options.extra_json = {**options.extra_json, name: value}
        elif isinstance(options.json_data, Mapping):
            options.json_data = {**options.json_data, name: value}
        else:
            self._body = {**self._body, name: value}
            text = json.dumps(self._body).encode()
            if getattr(options, "content", None) is not None:
                options.content = text
            else:
                options.json_data = text

    def _look_at_the_answer(self) -> None:
        theirs: Callable[[Any], Any] | None = self.options.post_parser
        self.options.post_parser = _Look(self, None if is_absent(theirs) else theirs)

    def look(self, parsed: Any) -> None:
        """Take note of an answer as the client has parsed it."""
        if self._receiving:
            self._received = parsed


class _Look:
    """Stand as the parser that the client calls with each answer. Its copies of the options share it.

    Args:
        request: the call.
        theirs: the caller's own parser.
    """

    def __init__(self, request: StainlessCall, theirs: Callable[[Any], Any] | None) -> None:
        self.request = request
        self.sent = False
        self._theirs = theirs

    def __call__(self, parsed: Any) -> Any:
        # Before theirs, which may raise: by then the answer is paid for.
        self.request.look(parsed)
        return parsed if self._theirs is None else self._theirs(parsed)


class _Passing:
    """Stand as the parser in the options of a request that was looked at and may pass.

    Args:
        theirs: the caller's own parser.
    """

    def __init__(self, theirs: Callable[[Any], Any] | None) -> None:
        self._theirs = theirs

    def __call__(self, parsed: Any) -> Any:
        return parsed if self._theirs is None else self._theirs(parsed)


def passing(options: Any) -> Any:
    """Return a copy of a request's options that every guard lets pass."""
    marked = copy.copy(options)
    theirs: Callable[[Any], Any] | None = options.post_parser
    marked.post_parser = _Passing(None if is_absent(theirs) else theirs)
    return marked


def is_marked(options: Any) -> bool:
    """Whether a guard has looked at a request already."""
    return isinstance(getattr(options, "post_parser", None), _Look | _Passing)


@contextmanager
def sending(options: Any) -> Iterator[None]:
    """Take note that a guarded request goes through openai's own function.

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
    """Take note that the client is about to send a guarded request again; called where it handles why.

    A try that was answered, with an error, cost nothing; one that was sent and never answered is lost.

    Args:
        options: the client's copy of the request's options.
        response: what the try was answered with, or None.
    """
    look = getattr(options, "post_parser", None)
    error = sys.exception()
    if isinstance(look, _Look) and response is None and error is not None and not was_never_sent(error):
        look.request.lost_tries += 1


class _Complete:
    """Complete what a tally reports with what answers never count."""

    def __init__(self, tally: Any, complete: Callable[[Reported], Reported]) -> None:
        self._tally = tally
        self._complete = complete

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_tally"), name)

    @property
    def reported(self) -> Reported | None:
        said = self._tally.reported
        return None if said is None else self._complete(said)


def is_azure(client: object) -> bool:
    """Whether a client is one of Azure's."""
    # Also behind a gateway, whose address does not tell.
    return any(kind.__name__ == "BaseAzureClient" for kind in type(client).__mro__)


def _body(options: Any) -> Mapping[str, Any]:
    body = options.json_data
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
    if not isinstance(extra, Mapping):
        return body
    return {**body, **extra}


def _was_sending(error: BaseException) -> bool:
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in _SENDING:
            return True
        trace = trace.tb_next
    return False
