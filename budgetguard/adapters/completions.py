"""Any function that answers with a completion: how its arguments and its answer are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from budgetguard.adapters.answers import StreamTally, reported
from budgetguard.adapters.failures import was_never_sent
from budgetguard.adapters.iterators import GuardedAsyncGenerator, GuardedGenerator, guard_awaitable
from budgetguard.counting.input_bounds import input_reserve
from budgetguard.counting.tokens import count_text, encoding_for
from budgetguard.errors import BudgetGuardError, ConfigurationError, UnpricedAnswerError
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.projection import (
    Projection,
    chat_input_tokens,
    embedding_input_tokens,
    project_chat,
    project_embeddings,
)
from budgetguard.request import (
    Abandoned,
    Answered,
    Ending,
    LearnedCap,
    NotCharged,
    Request,
    Unknown,
)
from budgetguard.usage import Reported, Usage

if TYPE_CHECKING:
    from budgetguard.calls import Call

UsageReader: TypeAlias = Callable[[Any], "Usage | tuple[int, int]"]


class FunctionRequest(Request):
    """One call of a guarded function.

    Args:
        name: the function's name, for errors.
        model: the model that it calls.
        body: its arguments that a chat request also has, `messages` or `input` among them.
        usage: reads usage from its answer, where the answer is not one that can be read.
        cap: the function's parameter that a cap on the output can be passed by, if it has one.

    Attributes:
        more: arguments that the function is called with on top of its caller's.
    """

    endpoint = "function"

    def __init__(
        self,
        name: str,
        model: str,
        body: Mapping[str, Any],
        usage: UsageReader | None,
        *,
        cap: str | None = None,
    ) -> None:
        self.model = model
        self.more: dict[str, Any] = {}
        self._cap = cap
        self._name = name
        self._body = body
        self._usage = usage
        self._embeds = "messages" not in body
        n = body.get("n")
        self.choices = n if isinstance(n, int) and n > 0 else 1

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates = book.rates(self.model)
        if self._embeds:
            return rates, project_embeddings(self._body, self.model, rates)
        projection = project_chat(self._body, self.model, rates, learned_cap=learned_cap(self.model))
        if self.strict:
            projection = projection.with_reserve(input_reserve(self._body, self.model))
        return rates, projection

    @property
    def takes_cap(self) -> bool:
        return self._cap is not None

    def write_cap(self, cap: int) -> None:
        assert self._cap is not None
        self.more[self._cap] = cap

    def ending(self, answer: Any) -> Ending:
        if self._usage is not None:
            return Answered(Reported(usage=self._read_usage(self._usage, answer)))
        if isinstance(answer, str):
            return self.text_ending(count_text(answer, encoding_for(self.model)))
        found = reported(answer)
        if found.usage is None:
            raise UnpricedAnswerError(
                f"{self._name}() answered with {type(answer).__name__}, from which no cost can be read, "
                "so its projection was booked. Return the completion itself, a dict of that shape, or its "
                "text; or pass @budgeted(usage=f), where f(answer) returns (input_tokens, output_tokens)"
            )
        return Answered(found)

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

    def text_ending(self, output_tokens: int) -> Ending:
        """Return the ending of an answer that is text: its tokens, and those of the input, are counted."""
        tokens = (embedding_input_tokens if self._embeds else chat_input_tokens)(self._body, self.model)
        return Answered(Reported(Usage.of(input_tokens=tokens, output_tokens=output_tokens)))

    def reader(self) -> ItemReader:
        """Return what reads the cost from the items of a function that yields."""
        return ItemReader(self, told=self._usage is not None)

    def ending_of_error(self, error: BaseException) -> Ending:
        return ending_of_any_error(error)

    def attach(self, answer: Any, call: Call) -> Any | None:
        if inspect.isgenerator(answer):
            return GuardedGenerator(call, lambda: answer, self.reader(), begun=True)
        if inspect.isasyncgen(answer):
            return GuardedAsyncGenerator(call, lambda: answer, self.reader(), begun=True)
        if inspect.isawaitable(answer):
            return guard_awaitable(answer, call)
        from budgetguard.adapters.streams import attach_stream

        return attach_stream(answer, call)


class ItemReader:
    """What a generator's items tell of its cost: text, or chunks of a completion.

    Args:
        request: the call.
        told: the last item says it all, read by the user's `usage=`.
    """

    def __init__(self, request: FunctionRequest, *, told: bool = False) -> None:
        self._request = request
        self._told = told
        self._tally = StreamTally(request.model)
        self._text: list[str] = []
        self._any = False
        self._last: object = None
        self._unread: object = None

    def feed(self, item: object) -> None:
        self._any = True
        if self._told:
            self._last = item
        if isinstance(item, str):
            self._text.append(item)
        elif isinstance(item, Mapping) or hasattr(item, "choices") or hasattr(item, "usage"):
            self._tally.feed(item)
        elif self._unread is None:
            self._unread = item

    def ending(self) -> Ending:
        if self._told and self._any:
            return self._request.ending(self._last)
        if self._tally.reported is not None:
            return Answered(self._tally.reported)
        seen = self._seen()
        if self._unread is not None and not seen:
            return self._request.ending(self._unread)  # raises: this is nothing that can be priced
        return self._request.text_ending(seen)

    def ending_early(self, error: BaseException | None) -> Ending:
        if self._tally.reported is not None:
            return Answered(self._tally.reported)
        if error is not None and not self._any:
            return self._request.ending_of_error(error)
        return Abandoned(self._seen())

    def _seen(self) -> int:
        written = count_text("".join(self._text), encoding_for(self._request.model)) if self._text else 0
        return written + self._tally.seen_tokens()


def ending_of_any_error(error: BaseException) -> Ending:
    """Say how a call ended that raised this, whatever package it comes from."""
    if isinstance(error, BudgetGuardError):
        return NotCharged("a call inside was refused")
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and 400 <= status < 600:
        return NotCharged(f"the provider answered {status}")
    if was_never_sent(error):
        return NotCharged("no connection")
    return Unknown(type(error).__name__)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: object) -> str:
    # Numbers help; text may be the answer's own, and has no place in an error.
    if isinstance(value, tuple) and all(isinstance(one, int | float) for one in value):
        return repr(value)
    return type(value).__name__


CAPS: Final = ("max_completion_tokens", "max_tokens")
INPUTS: Final = ("messages", "prompt", "input")


def chat_body(arguments: Mapping[str, Any], given: object) -> dict[str, Any]:
    """Return a function's arguments as a request body, its input under the name that requests give it.

    Args:
        arguments: by name.
        given: the input: messages, text, or texts to embed.

    Raises:
        ConfigurationError: an input that is none of these.
    """
    body = {name: value for name, value in arguments.items() if name not in INPUTS}
    if isinstance(given, str):
        body["messages"] = [{"role": "user", "content": given}]
    elif isinstance(given, list | tuple) and given and all(isinstance(one, str | int) for one in given):
        body["input"] = list(given)
    elif isinstance(given, list | tuple):
        body["messages"] = given
    else:
        raise ConfigurationError(
            f"the input must be text, a list of messages or a list of texts, not {type(given).__name__}"
        )
    return body
