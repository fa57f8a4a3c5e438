"""A call whose input is given as a number of tokens."""

from __future__ import annotations

from typing import Any, Final

from budgetguard.engine.projection import Projection, assumed_output_cap, projected
from budgetguard.engine.provider_call import LearnedCap
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.functions import FunctionCall, request_body

CAP: Final = "max_output_tokens"
"""What a block gives a cap to its program as."""


class CountedCall(FunctionCall):
    """A call whose input is given in tokens, not as text.

    Args:
        model: the model.
        input_tokens: of the whole input.
        cap: the output tokens that the call is capped at, if it is.
        sends_cap: its program sends the cap that it is given, if it has none of its own.
        options: see `FunctionCall`.
    """

    def __init__(
        self, model: str, input_tokens: int, cap: int | None, *, sends_cap: bool, **options: Any
    ) -> None:
        row, body = request_body({}, "", cap)
        given = CAP if cap is None and sends_cap else None
        super().__init__("call", model, row, body, None, cap=given, **options)
        self._input_tokens = input_tokens
        self._output_cap = cap

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates = self.rates(book)
        cap = self._output_cap
        if cap is None:
            cap = learned_cap(self.model) or assumed_output_cap(self.model)
        projection = projected(
            self.model,
            rates,
            {"input_tokens": self._input_tokens},
            {"output_tokens": cap},
            cap_assumed=self._output_cap is None,
            output_cap=cap,
        )
        return rates, projection

    def input_tokens(self) -> int:
        return self._input_tokens
