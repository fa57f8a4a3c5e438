"""One attempt of a function of LiteLLM's: what it asks, what it costs, and how its answers are read."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.outcomes import Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import LearnedCap
from budgetguard.errors import BudgetGuardError, UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.answers import reported
from budgetguard.providers.base import Endpoint
from budgetguard.providers.body import EventReader
from budgetguard.providers.failures import causes_of, was_refused, was_sending
from budgetguard.providers.frameworks import LITELLM
from budgetguard.providers.iterators import guard_awaitable
from budgetguard.providers.json import field
from budgetguard.providers.litellm.prices import listed_rates, rates_of
from budgetguard.providers.litellm.target import LiteLLMTarget
from budgetguard.providers.live import attach_live
from budgetguard.providers.openai.chat import ChatAccumulator, ChatEndpoint
from budgetguard.providers.request import HttpRequest
from budgetguard.providers.sent_call import PieceReader, SentCall, outcome_of_sdk_error
from budgetguard.tokens.models import is_reasoning

if TYPE_CHECKING:
    from budgetguard.config import Settings
    from budgetguard.engine.call import GuardedCall

# Prices that a call, or a deployment of a router's, brings along.
_BROUGHT: Final = (
    "input_cost_per_token",
    "output_cost_per_token",
    "input_cost_per_second",
    "output_cost_per_second",
)
# The names that HTTP libraries and clients have for: sent, perhaps, and never answered.
_LOST: Final = frozenset(
    {
        "TransportError",
        "TimeoutException",
        "APIConnectionError",
        "APITimeoutError",
        "ClientError",
        "TimeoutError",
    }
)
# What was billed, on a stream's iterator whose chunks do not tell it; see `cohere`.
TOLD: Final = "_budgetguard_told"
_BESIDE_USAGE: Final = ("choices", "id", "model", "service_tier")
# What a stream of LiteLLM's reads from.
_SOURCE: Final = "completion_stream"
# By this LiteLLM's streams decide whether to hand on what usage was reported.
_SENDS_USAGE: Final = "send_stream_usage"
# Noted on an error that an attempt has raised: the next attempt's error may have it as its context.
_CLASSIFIED: Final = "_budgetguard_classified"
_LIBRARIES: Final = frozenset(
    {"httpx", "httpx2", "httpcore", "httpcore2", "openai", "aiohttp", "asyncio", "builtins"}
)


class LiteLLMChatEndpoint(ChatEndpoint):
    """Chat completions as LiteLLM hands them on, whichever provider made them."""

    def asks_usage(self, body: Mapping[str, Any]) -> Mapping[str, object]:
        return {}

    def read(self, answer: object) -> Reported | NotCharged:
        return LITELLM.read(answer) if LITELLM.knows(answer) else super().read(answer)

    def accumulator(self, model: str) -> LiteLLMAccumulator:
        return LiteLLMAccumulator(model)


class LiteLLMAccumulator(ChatAccumulator):
    """What the chunks of a stream of LiteLLM's have said so far.

    Attributes:
        billed: what was billed, where the chunks do not tell it.
    """

    billed: Reported | None = None

    @property
    def reported(self) -> Reported | None:
        return self.billed or super().reported

    @property
    def told(self) -> bool:
        return self.billed is not None or super().told

    def take_usage(self, chunk: object) -> None:
        """Take the usage that a provider reported with a chunk."""
        self._merge(LITELLM.read(chunk) if LITELLM.knows(chunk) else reported(chunk))


CHAT: Final = LiteLLMChatEndpoint("chat", "/chat/completions")


class LiteLLMCall(SentCall):
    """One attempt: what is retried, or falls back to another model, is another.

    Args:
        target: whom it asks.
        endpoint: how the request is read.
        body: the request, as that endpoint's API has it.
        brought: the prices that the call itself names, by LiteLLM's names.
        settings: say which model a name stands for, and what is free.
        content: an answer -> what is read of it.
        rewrite: has the function called with another cap.
    """

    covers = "litellm"
    is_sent = False
    """Whether LiteLLM has said that it is about to send."""
    told: Reported | None = None
    """What was billed, where LiteLLM's answer does not tell it."""
    hides_usage = False
    """Whether its stream reports its usage because we have asked for it."""

    def __init__(
        self,
        target: LiteLLMTarget,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        brought: Mapping[str, Any],
        settings: Settings,
        *,
        content: Callable[[Any], object] = lambda answer: answer,
        rewrite: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._target = target
        self._brought = {name: brought[name] for name in _BROUGHT if brought.get(name) is not None}
        address = target.address
        model = _mapped(target, settings)
        super().__init__(
            HttpRequest(
                method="POST",
                base_url=address,
                address=address + endpoint.path,
                path=endpoint.path,
                body=body,
            ),
            endpoint,
            provider=target.at,
            default_provider="openai" if target.at is None else None,
            model=model,
            model_of=settings.model_of,
            free=bool(address) and settings.is_free(address),
            fetcher=None,
            row_of=lambda _path: None,
            content=content,
            rewrite=rewrite,
        )
        self.streams = bool(body.get("stream")) and endpoint.streams
        self._asked = str(self._written), self.model

    @property
    def takes_model(self) -> bool:
        # Prices that the call names are its own model's.
        return self._rewrite is not None and not self._brought and "model" in self._sent.body

    def use_model(self, model: str) -> None:
        provider, slash, _ = self._asked[0].partition("/")
        written = model if "/" in model else f"{provider if slash else ''}{slash}{model}"
        super().use_model(written)
        self.model = self._asked[1] if written == self._asked[0] else self._named(model)

    def _rates_of(self, book: PriceBook, model: str) -> Rates:
        if model == self.model != self._asked[1]:  # it came instead of the one that was asked for
            return super()._rates_of(book, model)
        if self._brought and (said := rates_of(self._target, self._brought)) is not None:
            return said
        names = self._target.names if model == self.model else (model,)
        failed: UnknownModelError | None = None
        for name in dict.fromkeys((model, *names)):
            try:
                return super()._rates_of(book, name)
            except UnknownModelError as error:
                failed = failed or error
        listed = listed_rates(self._target) if model == self.model else None
        if listed is None:
            assert failed is not None
            raise failed
        return listed

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        if inspect.iscoroutine(answer):
            return guard_awaitable(answer, call)
        if self.hides_usage and hasattr(answer, _SENDS_USAGE):
            setattr(answer, _SENDS_USAGE, False)
        return super().attach(answer, call) or attach_live(answer, call, self._reader_of_stream)

    def _read(self, answer: object) -> Reported | NotCharged:
        said = super()._read(answer)
        if self.told is None or isinstance(said, NotCharged):
            return said
        return replace(said, usage=self.told.usage, unsaid=self.told.unsaid, seen=0)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        causes = _causes(error)
        if not isinstance(error, BudgetGuardError):
            with contextlib.suppress(AttributeError):
                setattr(error, _CLASSIFIED, True)
        outcome = super().outcome_of_error(error)
        if isinstance(outcome, NotCharged) and not (any(map(_was_lost, causes)) or _was_unreadable(causes)):
            return outcome
        if any(map(was_refused, causes)):
            return NotCharged("no connection")
        if isinstance(error, Exception) and not self.is_sent and not any(map(was_sending, causes)):
            return NotCharged(f"not sent: {type(error).__name__}")
        return outcome if isinstance(outcome, Unknown) else Unknown(type(error).__name__)

    def counted(self, seen: int) -> Outcome:
        """Return the outcome of a stream of which nobody reported a usage: what is counted in it.

        Nobody can see what a model has thought, or what tools of the provider's have read.
        """
        if not seen or self._hides or is_reasoning(self.model):
            return Answered(Reported(usage=None, seen=seen))
        usage = Usage.of(input_tokens=self._shown_tokens, output_tokens=seen)
        return Answered(Reported(usage, measured=frozenset(usage.units)))

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates, projection = super().project(book, learned_cap)
        self._shown_tokens = projection.input_tokens
        self._hides = projection.hidden is not None and projection.hidden.hides
        return rates, projection

    def _reader_of_stream(self, stream: object) -> LiteLLMReader:
        return LiteLLMReader(self, stream)


def _mapped(target: LiteLLMTarget, settings: Settings) -> str:
    """Return the model by the program's own names for models, which may name it in any of its ways."""
    for name in target.names:
        if (mapped := settings.model_of(name)) != name:
            return mapped
    return target.model


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error with those that led to it, but for those of an earlier attempt."""
    found: list[BaseException] = []
    for cause in causes_of(error):
        if found and getattr(cause, _CLASSIFIED, False):
            break
        found.append(cause)
    return found


def _was_lost(cause: BaseException) -> bool:
    """Whether an error means: sent, perhaps, and never answered.

    LiteLLM gives those a status of its own, as if a provider had answered.
    """
    return any(kind.__name__ in _LOST and _library(kind) in _LIBRARIES for kind in type(cause).__mro__)


def _was_unreadable(causes: list[BaseException]) -> bool:
    """Whether errors mean: answered with what is no JSON, such as a body that was cut, and not as an error.

    LiteLLM gives that a status of its own, too.
    """
    return any(type(one).__name__ == "JSONDecodeError" for one in causes) and not any(
        _library(type(one)) in _LIBRARIES and outcome_of_sdk_error(one) != Unknown(type(one).__name__)
        for one in causes
    )


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]


class LiteLLMReader(PieceReader):
    """What the pieces of a stream tell of its cost, and what the stream keeps of what its provider said.

    A stream tells its caller a usage that LiteLLM may have counted itself. What it keeps is the provider's.

    Args:
        request: the call.
        stream: LiteLLM's.
    """

    def __init__(self, request: LiteLLMCall, stream: object) -> None:
        super().__init__(request)
        self._call = request
        self._stream = stream
        self._source = field(stream, _SOURCE)
        self._keeps = isinstance(self._events, LiteLLMAccumulator) and hasattr(stream, "chunks")
        self._bytes: EventReader | None = None

    def feed(self, item: Any) -> None:
        # It may be opened late, and is let go of at the end.
        self._source = field(self._stream, _SOURCE) or self._source
        if isinstance(item, bytes | str):
            if self._bytes is None:
                self._bytes = EventReader(self._events, hide_usage=False)
            self._any = True
            self._bytes.feed(item.encode() if isinstance(item, str) else item)
        elif self._keeps and field(item, "usage") is not None:
            super().feed({name: field(item, name) for name in _BESIDE_USAGE})
        else:
            super().feed(item)

    def _outcome(self, *, over: bool) -> Outcome:
        if self._keeps and isinstance(self._events, LiteLLMAccumulator):
            for chunk in self._kept():
                self._events.take_usage(chunk)
            self._events.billed = getattr(self._source, TOLD, None)
        if over and self._events.reported is None and not self._events.failed:
            return self._call.counted(self._events.seen_tokens())
        return super()._outcome(over=over)

    def _kept(self) -> Iterator[object]:
        for chunk in tuple(field(self._stream, "chunks") or ()):
            if field(chunk, "usage") is not None:
                yield chunk
