"""A call as its adapter reads it: how to project it, and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from budgetguard.engine.outcomes import Outcome
from budgetguard.engine.projection import Projection
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import Rates

if TYPE_CHECKING:
    from budgetguard.engine.call import GuardedCall


@dataclass(frozen=True, slots=True)
class Do:
    """Something that is done in the caller's own way: called, and awaited where the caller is async.

    Attributes:
        run: does it; for an async caller it returns an awaitable.
    """

    run: Callable[[], Any]


Preparation: TypeAlias = Generator[Do, Any, None]
LearnedCap: TypeAlias = Callable[[str], int | None]


class ProviderCall(ABC):
    """One call, as its adapter reads it.

    Attributes:
        endpoint: what is called, such as `chat`.
        model: the model as the call names it.
        least_ttl: milliseconds that its hold must live at least, whatever the settings say.
        strict: its input is to be projected at a bound, and its body kept for a cap to be written into.
        lost_tries: how often it was sent before the try that ended it, and nobody knows what came of that.
    """

    endpoint: str
    model: str
    least_ttl: int = 0
    strict: bool = False
    lost_tries: int = 0

    @property
    def takes_cap(self) -> bool:
        """Whether a cap on the output can be written into it."""
        return False

    def write_cap(self, cap: int) -> None:
        """Write a cap on the output tokens of each choice into what is sent, not into what the caller has."""
        raise NotImplementedError

    @property
    def takes_model(self) -> bool:
        """Whether another model can be written into it."""
        return False

    @property
    def written_model(self) -> str:
        """The model as it is written in the request."""
        return self.model

    def use_model(self, model: str) -> None:
        """Project it from now on as a call of another model, which `write_model` then writes."""
        raise NotImplementedError

    def write_model(self) -> None:
        """Write the model that it is projected for into what is sent, not into what the caller has."""
        raise NotImplementedError

    def forget_input(self) -> None:  # noqa: B027 - nothing is kept, unless a subclass does
        """Let go of its input: it is not projected any more."""

    def rates_if_known(self, book: PriceBook) -> Rates:
        """Return what the call costs by the unit, where it may be made without a price."""
        return book.rates_if_known(self.model)

    def model_named(self, name: str) -> str:
        """Return the model that a name stands for where the call goes: an answer may give a name, too."""
        return name

    def prepare(self, book: PriceBook, learned_cap: LearnedCap) -> Preparation | None:
        """Return the steps to take before it can be projected, None if there are none.

        A preparation yields each `Do` and is sent what came, or thrown what was raised; what it lets
        through is raised to the caller, and the call is not made.
        """
        return None

    @abstractmethod
    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        """Return what the call costs by the unit, and what it will cost at most.

        Raises:
            ConfigurationError: the request cannot be right.
            UnknownModelError: there is no price.
        """

    @abstractmethod
    def outcome(self, answer: Any) -> Outcome:
        """Classify the outcome of a call that returned `answer`.

        Raises:
            UnpricedAnswerError: no cost can be read from it.
        """

    @abstractmethod
    def outcome_of_error(self, error: BaseException) -> Outcome:
        """Classify the outcome of a call that raised `error`."""

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        """Take over an answer that is still running, and return it, guarded; None if it is complete.

        Whoever takes over must finish the call exactly once.
        """
        return None
