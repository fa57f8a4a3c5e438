"""Bedrock's Converse, whole and as a stream: `/model/{}/converse`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.errors import UnknownModelError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.answers import Piece
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.bedrock.answers import CONVERSE
from budgetguard.providers.bedrock.input_tokens import converse_input
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.hidden_input import UNSEEN, UNSEEN_FILE, input_beyond
from budgetguard.providers.json import field, items, mapping, whole
from budgetguard.providers.thinking import thinking_tokens

_PRIORITY: Final = "priority"


class ConverseEndpoint(Endpoint):
    """Converse."""

    streams = True

    def project(self, asked: Asked) -> Projection:
        """Project a Converse call of any model family.

        Input is priced as written into the cache where a `cachePoint` asks for that.

        Raises:
            ConfigurationError: bad `messages` or `maxTokens`.
            UnknownModelError: the call would use what has no price: a guardrail, optimized latency.
        """
        body, model = mapping(asked.body), asked.model
        found = converse_input(body, model)
        shown = with_margin(found.tokens)
        allowances = dict(found.allowances)
        if found.unseen:
            allowances[UNSEEN] = found.unseen * UNSEEN_FILE
        hidden, more = input_beyond(
            "converse", body, model, sorted(found.kinds), allowances, shown, asked.learned
        )
        config = mapping(body.get("inferenceConfig"))
        cap = whole(config, "maxTokens")
        thinking = thinking_tokens(mapping(body.get("additionalModelRequestFields")))
        assumed = cap is None
        if cap is None:
            cap = assumed_output_cap(model, asked.learned(model), thinking)
        fees = fees_of(body, model)
        return projected(
            model,
            asked.rates,
            {"input_tokens": shown + more, **fees},
            {"output_tokens": max(cap, thinking or 0)},
            cap_assumed=assumed,
            output_cap=cap,
            asked_tier=asked_tier(body, model, asked.rates),
            hidden=hidden,
            fees=fees,
            marked=_marked(body),
            asked_to_think=thinking is not None,
        )

    def input_tokens(self, body: Body, model: str) -> int:
        return converse_input(mapping(body), model).tokens

    def read(self, answer: object) -> Reported:
        return CONVERSE.read(answer) if CONVERSE.knows(answer) else Reported(usage=None)

    def texts(self, answer: Any) -> Iterable[Piece]:
        return CONVERSE.texts(answer)

    def accumulator(self, model: str) -> ConverseAccumulator:
        return ConverseAccumulator(model)


class ConverseAccumulator(TextAccumulator):
    """What the events of a Converse stream have said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._stopped = False

    @property
    def ended(self) -> bool:
        return self._stopped

    @property
    def told(self) -> bool:
        # `metadata` is the last event, and has the usage of all of it.
        return self._said.usage is not None

    def feed(self, chunk: object) -> None:
        if not isinstance(chunk, Mapping):
            return
        if "messageStop" in chunk:
            self._stopped = True
        if any(str(name).endswith("Exception") for name in chunk):
            self.failed = True
        if "metadata" in chunk:
            self._merge(CONVERSE.read(chunk))
        for slot, piece in CONVERSE.texts(chunk):
            self._keep(slot, piece)


def is_claude(model: str) -> bool:
    """Whether a model of Bedrock's is Anthropic's."""
    return "anthropic." in model.lower() or model.lower().startswith("claude")


def claude_name(model: str) -> str:
    """Return the name that Anthropic gives to a model, by Bedrock's: without region, maker and revision."""
    return model.lower().rpartition("anthropic.")[2].partition(":")[0].removesuffix("-v1").removesuffix("-v2")


def _marked(body: Body) -> str | None:
    """Return the unit of input that is written into the cache, None if no `cachePoint` asks for that."""
    found: str | None = None
    places = [body.get("system"), field(mapping(body.get("toolConfig")), "tools")]
    places += [field(mapping(one), "content") for one in items(body.get("messages"))]
    for place in places:
        for block in map(mapping, items(place)):
            if (point := block.get("cachePoint")) is not None:
                if field(mapping(point), "ttl") == "1h":
                    return "cache_write_1h_tokens"
                found = "cache_write_tokens"
    return found


def asked_tier(body: Body, model: str, rates: Rates) -> str | None:
    """Return the tier that a request asks for, None for the standard one and for cheaper ones.

    Raises:
        UnknownModelError: it is dearer, and nobody knows its price for this model.
    """
    if field(mapping(body.get("serviceTier")), "type") != _PRIORITY:
        return None
    if not rates.asks_more_in(_PRIORITY):
        raise UnknownModelError(
            f"no price is known for the priority tier of {model!r}, so the call was not made. Leave "
            f"`serviceTier` out, or set one for the model: register_price({model!r}, input=..., output=...)",
            model=model,
        )
    return _PRIORITY


def fees_of(body: Body, model: str) -> dict[str, int]:
    """Return the units that are billed beside tokens: those that nobody has a price for refuse the call."""
    if field(mapping(body.get("performanceConfig")), "latency") == "optimized":
        raise UnknownModelError(
            f"no price is known for optimized latency of {model!r}, so the call was not made. Leave "
            "`performanceConfig` out",
            model=model,
        )
    fees: dict[str, int] = {}
    if body.get("guardrailConfig"):
        fees["tool_uses_guardrail"] = 1
    for tool in map(mapping, items(field(mapping(body.get("toolConfig")), "tools"))):
        if (hosted := mapping(tool.get("systemTool"))) != {}:
            fees[f"tool_uses_{str(hosted.get('name')).removeprefix('nova_')}"] = 1
    return fees


CONVERSE_ENDPOINT: Final = ConverseEndpoint("converse", "/converse")
CONVERSE_STREAM: Final = ConverseEndpoint("converse", "/converse-stream")
