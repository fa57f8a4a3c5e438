"""Any function that answers with a completion: how its arguments and its answer are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.outcomes import Abandoned, Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import LearnedCap, ProviderCall
from budgetguard.errors import BudgetGuardError, ConfigurationError, UnpricedAnswerError
from budgetguard.pricing.book import FREE_PROVIDER, PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.alternatives import MORE_MODELS, with_alternatives
from budgetguard.providers.answer_shapes import ItemAccumulator, read_whole
from budgetguard.providers.answers import is_api_error
from budgetguard.providers.base import Asked, Endpoint
from budgetguard.providers.failures import was_never_sent
from budgetguard.providers.hidden_input import input_reserve
from budgetguard.providers.iterators import (
    GuardedAsyncGenerator,
    GuardedGenerator,
    ItemReader,
    guard_awaitable,
)
from budgetguard.providers.json import field
from budgetguard.providers.live import attach_live
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.openai.embeddings import EMBEDDINGS
from budgetguard.providers.openai.hosted_tools import offered_tools
from budgetguard.providers.openai.responses import RESPONSES
from budgetguard.tokens.models import is_reasoning
from budgetguard.tokens.text import count_text, encoding_for

if TYPE_CHECKING:
    from budgetguard.engine.call import GuardedCall

_MOST_CAUSES: Final = 8

UsageReader: TypeAlias = Callable[[Any], "Usage | tuple[int, int]"]


class FunctionCall(ProviderCall):
    """One call of a guarded function.

    Args:
        name: the function's name, for errors.
        model: the model that it calls.
        row: the endpoint that such a request is for.
        body: its arguments as a request to that endpoint has them.
        usage: reads usage from its answer, where the answer is not one that can be read.
        cap: the function's parameter that a cap on the output can be passed by, if it has one.
        provider: whose prices count, by genai-prices' id; None: see `PriceBook.rates`.
        base_url: the address that it calls, if it is known.
        free: that address costs nothing, by the user's word.
        names_model: the function can be called with another `model=`.

    Attributes:
        more: arguments that the function is called with on top of its caller's.
        given_cap: the cap on the output that the caller has set, where that is known.
    """

    given_cap: int | None = None

    endpoint = "function"

    def __init__(
        self,
        name: str,
        model: str,
        row: Endpoint,
        body: Mapping[str, Any],
        usage: UsageReader | None,
        *,
        cap: str | None = None,
        provider: str | None = None,
        base_url: str | None = None,
        free: bool = False,
        names_model: bool = False,
    ) -> None:
        self._names_model = names_model
        self.model = model
        self.more: dict[str, Any] = {}
        self._cap = cap
        self._name = name
        self._row = row
        # What clients write into the request beside its own parameters.
        extra = field(body, "extra_body")
        self._body = {**body, **extra} if isinstance(extra, Mapping) else body
        self._usage = usage
        self._provider = provider
        self._base_url = base_url
        self._free = free
        self._hides = False
        self._thinks = is_reasoning(model)

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates = self.rates(book)
        projection = self._row.project(Asked(self._body, self.model, rates, learned_cap))
        if not self._free and not MORE_MODELS.isdisjoint(self._body):
            projection = with_alternatives(
                projection,
                self._body,
                rates,
                lambda name: book.rates(name, provider=self._provider, base_url=self._base_url, bare=True),
                learned_cap,
            )
        self._hides = projection.hidden is not None and projection.hidden.hides
        self._thinks = projection.thinks
        if self.strict and self._row.cap_name(rates.provider) is not None:
            projection = projection.with_reserve(input_reserve(self._body, self.model))
        return rates, projection

    def rates(self, book: PriceBook) -> Rates:
        """Return what the call costs by the unit.

        Raises:
            UnknownModelError: there is no price.
        """
        if self._free:
            return Rates.free(self.model, FREE_PROVIDER)
        return book.rates(self.model, provider=self._provider, base_url=self._base_url, bare=True)

    def input_tokens(self) -> int:
        """Count the tokens of the input."""
        return self._row.input_tokens(self._body, self.model)

    def rates_if_known(self, book: PriceBook) -> Rates:
        return book.rates_if_known(self.model, provider=self._provider, base_url=self._base_url)

    @property
    def takes_cap(self) -> bool:
        return self._cap is not None

    def write_cap(self, cap: int) -> None:
        assert self._cap is not None
        self.more[self._cap] = cap

    @property
    def takes_model(self) -> bool:
        return self._names_model

    def use_model(self, model: str) -> None:
        self.model = model
        self._thinks = is_reasoning(model)
        if "model" in self._body:
            self._body = {**self._body, "model": model}

    def write_model(self) -> None:
        self.more["model"] = self.model

    def outcome(self, answer: Any) -> Outcome:
        if self._usage is not None:
            return Answered(Reported(usage=self._read_usage(self._usage, answer)))
        if isinstance(answer, str):
            return self.text_outcome(count_text(answer, encoding_for(self.model)))
        from budgetguard.providers.streams import stream_outcome

        if (streamed := stream_outcome(answer, self.model)) is not None:
            return streamed
        if is_api_error(answer):
            return NotCharged("the answer was an error")
        found = read_whole(answer, self.model)
        if found.usage is None and not (found.pending or found.total or found.billed):
            raise self._unpriced(type(answer))
        return Answered(self._completed(found))

    def _completed(self, said: Reported) -> Reported:
        """Complete what an answer reports with the units that no answer counts."""
        more = self._row.unreported(self._body)
        if said.usage is None or not more:
            return said
        return replace(said, usage=Usage({**more, **said.usage.units}))

    def _unpriced(self, kind: type) -> UnpricedAnswerError:
        return UnpricedAnswerError(
            f"{self._name}() answered with {kind.__name__}, from which no cost can be read, "
            "so its projection was booked. Return the completion itself, a dict of that shape, or its "
            "text; or pass @budgeted(usage=f), where f(answer) returns (input_tokens, output_tokens). "
            "What it answered is this error's `answer`"
        )

    def _read_usage(self, read: UsageReader, answer: object) -> Usage:
        try:
            found: object = read(answer)
        except Exception as error:
            raise UnpricedAnswerError(
                f"the usage= of {self._name}() failed on the {type(answer).__name__} that it answered with "
                f"({type(error).__name__}), so its projection was booked"
            ) from error
        if isinstance(found, Usage):
            return found
        if isinstance(found, tuple) and len(found) == 2 and all(map(_is_count, found)):
            return Usage.of(input_tokens=found[0], output_tokens=found[1])
        raise UnpricedAnswerError(
            f"the usage= of {self._name}() must return a Usage or (input_tokens, output_tokens), whole "
            f"numbers from 0, not {_shown(found)}; the projection was booked"
        )

    def text_outcome(self, output_tokens: int) -> Outcome:
        """Return the outcome of an answer that is text: its tokens, and those of the input, are counted.

        Text does not tell what hosted tools cost, or turns that the provider keeps; then the projection
        stands in. Nor does it tell what a model has thought.
        """
        if self._hides:
            return Answered(Reported(usage=None))
        usage = Usage.of(input_tokens=self.input_tokens(), output_tokens=output_tokens)
        unsaid = frozenset({"output_tokens"} if self._thinks and output_tokens else ())
        return Answered(self._completed(Reported(usage, unsaid=unsaid)))

    def outcome_of_stream(self, events: ItemAccumulator) -> Outcome:
        """Return the outcome of a stream that was read to its end.

        Raises:
            UnpricedAnswerError: nothing of it could be read.
        """
        said, seen = events.reported, events.seen_tokens()
        if said is not None:
            was_seen = seen and events.unread is None and not self._thinks
            if was_seen and "output_tokens" in said.unsaid:
                said = replace(said, unsaid=said.unsaid - {"output_tokens"}, seen=max(said.seen, seen))
            return Answered(self._completed(said))
        if events.failed and not seen:
            return NotCharged("the answer was an error")
        if events.unread is None:
            return self.text_outcome(seen)
        if not events.understood and not seen:
            raise self._unpriced(events.unread)
        return Answered(Reported(usage=None, seen=seen))

    def outcome_of_partial_stream(self, events: ItemAccumulator) -> Outcome:
        """Return the outcome of a stream that was read no further."""
        said, seen = events.reported, events.seen_tokens()
        if said is not None and events.told:
            return Answered(self._completed(said))
        if events.unread is not None and not events.understood and not seen:
            return Answered(Reported(usage=None))  # what it said, nobody here can tell
        return Abandoned(seen, reported=said)

    def reader(self, answer: object = None) -> ItemReader:
        """Return what reads the cost from the items of a function that yields, or of its answer."""
        return ItemReader(self, answer, told=self._usage is not None)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        return outcome_of_any_error(error)

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        if inspect.isgenerator(answer):
            return GuardedGenerator(call, lambda: answer, self.reader(), begun=True)
        if inspect.isasyncgen(answer):
            return GuardedAsyncGenerator(call, lambda: answer, self.reader(), begun=True)
        if inspect.isawaitable(answer):
            return guard_awaitable(answer, call)
        from budgetguard.providers.streams import attach_stream

        attached = attach_stream(answer, call)
        # Who says how an answer is read reads it as it is.
        if attached is not None or self._usage is not None:
            return attached
        return attach_live(answer, call, self.reader)


def outcome_of_any_error(error: BaseException) -> Outcome:
    """Classify the outcome of a call that raised `error`, whatever package it comes from."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):  # what was raised `from` another is the same, in a framework's words
        if cause is None:
            break
        if isinstance(cause, BudgetGuardError):
            return NotCharged("a call inside was refused")
        if (status := _status_of(cause)) is not None:
            return NotCharged(f"the provider answered {status}")
        cause = cause.__cause__
    if was_never_sent(error):
        return NotCharged("no connection")
    return Unknown(type(error).__name__)


def _status_of(error: BaseException) -> int | None:
    """Return the status of a provider's refusal, or None if an error is none."""
    # HTTP libraries have it on the response, aiohttp and DSPy under another name.
    for holder, name in (
        (error, "status_code"),
        (getattr(error, "response", None), "status_code"),
        (error, "status"),
    ):
        status = getattr(holder, name, None)
        if isinstance(status, int) and 400 <= status < 600:
            return status
    return None


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: object) -> str:
    # Numbers help; text may be the answer's own, and has no place in an error.
    shown = value if isinstance(value, tuple) else (value,)
    if all(isinstance(one, int | float) for one in shown):
        return repr(value)
    return type(value).__name__


def check_target(model: object, provider: object, base_url: object) -> None:
    """Check what a call names: its model, and whose it is if that is given.

    Raises:
        ConfigurationError: one of them cannot be right.
    """
    if not isinstance(model, str) or not model.strip():
        raise ConfigurationError(f"model must be a name such as 'gpt-4o-mini', not {model!r}")
    for name, value in (("provider", provider), ("base_url", base_url)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise ConfigurationError(f"{name} must be text, not {value!r}")


def checked_count(value: object, name: str, number: str = "number") -> int:
    """Return a number of tokens or other units, checked.

    Raises:
        ConfigurationError: it is no whole number from 0.
    """
    if not _is_count(value):
        raise ConfigurationError(f"{name} must be a whole {number} from 0, not {_shown(value)}")
    return value


CAPS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
INPUTS: Final = ("messages", "prompt", "input")
# Names that a request for a response has, and no other.
_OF_RESPONSES: Final = (
    "conversation",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "reasoning",
)


def request_body(
    arguments: Mapping[str, Any], asked: object, cap: int | None
) -> tuple[Endpoint, dict[str, Any]]:
    """Return a function's arguments as a request body, and the endpoint that such a request is for.

    It is a response that is asked for where hosted tools are offered, or arguments have names that only
    such requests have.

    Args:
        arguments: by name.
        asked: the input: messages, text, or texts to embed.
        cap: the output tokens that the function caps at itself, where its arguments do not say.

    Raises:
        ConfigurationError: an input that is none of these.
    """
    body = chat_body(arguments, asked)
    if _is_for_a_response(body):
        most = next((body[name] for name in CAPS if field(body, name) is not None), cap)
        return RESPONSES, {**_without_input(body), "input": asked, "max_output_tokens": most}
    if cap is not None and field(body, "max_completion_tokens") is None:
        body["max_completion_tokens"] = cap
    return (CHAT if "messages" in body else EMBEDDINGS), body


def chat_body(arguments: Mapping[str, Any], asked: object) -> dict[str, Any]:
    """Return a function's arguments as a request body, its input under the name that requests give it.

    Args:
        arguments: by name.
        asked: the input: messages, text, or texts to embed.

    Raises:
        ConfigurationError: an input that is none of these.
    """
    body = _without_input(arguments)
    if isinstance(asked, str):
        body["messages"] = [{"role": "user", "content": asked}]
    elif isinstance(asked, list | tuple) and asked and all(isinstance(one, str | int) for one in asked):
        body["input"] = list(asked)
    elif isinstance(asked, list | tuple):
        body["messages"] = asked
    else:
        raise ConfigurationError(
            f"the input must be text, a list of messages or a list of texts, not {type(asked).__name__}"
        )
    return body


def _without_input(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in INPUTS}


def _is_for_a_response(body: Mapping[str, Any]) -> bool:
    if any(field(body, name) is not None for name in _OF_RESPONSES):
        return True
    # A tool of a chat request has its definition inside, under the name of its type.
    return any(
        isinstance(kind := field(tool, "type"), str) and kind not in tool for tool in offered_tools(body)
    )
