"""Anthropic's messages: `/messages`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import HiddenInput, Reported
from budgetguard.engine.outcomes import NotCharged
from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.rates import FAST, Rates
from budgetguard.providers.answers import Piece, warn_once
from budgetguard.providers.anthropic.answers import (
    CONTAINER,
    UNBILLED,
    UNREAD,
    MessageAccumulator,
    is_refused_unwritten,
    message_texts,
    read_message,
    with_container,
)
from budgetguard.providers.anthropic.input_tokens import claude_input
from budgetguard.providers.base import Asked, Body, Endpoint, Fetching, Prepared, Preparing
from budgetguard.providers.fees import marked_for_cache
from budgetguard.providers.hidden_input import UNSEEN, UNSEEN_FILE, input_beyond
from budgetguard.providers.json import field, is_absent, items, mapping, parsed, text, whole
from budgetguard.providers.thinking import thinking_tokens

# Tools that run in the caller's program; their definitions are counted.
_CALLERS_TOOLS: Final = ("custom", "bash", "text_editor", "computer", "browser", "memory")
# Input tokens of what tools find that run at Anthropic, of each use and for how many uses to allow at first,
# from recorded requests (median, most): one search 12 000, 16 100; three 38 600, 40 600; ten 404 500; a page
# that is fetched 5 300; code execution 4 000, 15 000; MCP 2 600, 14 200; tool search 1 000.
_ALLOWANCES: Final[Mapping[str, tuple[int, int]]] = {
    "web_search": (14_000, 3),
    "web_fetch": (8_000, 2),
    "code_execution": (8_000, 1),
    "mcp": (6_000, 1),
    "tool_search": (1_500, 1),
}
# An earlier turn is seldom long, but a conversation can be.
_THREAD: Final = 8_000
# What skills say, which is read from the container.
_SKILLS: Final = 8_000
# A context of as many tokens is made shorter, unless the request says otherwise: it is read once more.
_COMPACTED_AT: Final = 150_000
# https://platform.claude.com/docs/en/api/messages-count-tokens: of what a message asks, it takes these.
_COUNT_PATH: Final = "/v1/messages/count_tokens"
_COUNT_TAKES: Final = (
    "cache_control",
    "context_management",
    "mcp_servers",
    "messages",
    "model",
    "output_config",
    "output_format",
    "system",
    "thinking",
    "tool_choice",
    "tools",
)
# That page calls its count an estimate, which may be off by a few tokens.
_COUNT_MARGIN: Final = 8
# Seconds. A count that takes longer than this holds up the call more than it is worth.
_PATIENCE: Final = 10.0


class MessagesEndpoint(Endpoint):
    """Messages."""

    streams = True
    counts_input = True

    def project(self, asked: Asked) -> Projection:
        """Project a message.

        Input is priced as written into the cache where `cache_control` asks for that, for the longest time
        that it asks for. What a model thinks is output. `web_search` is taken to be used as often as it may
        be. Each of `fallbacks` is taken to be tried, since what a model wrote before it refused is billed.
        The provider's own count, where there is one, does not know what tools will find that run there.

        Raises:
            ConfigurationError: bad `messages` or `max_tokens`.
            UnknownModelError: the call would use a unit that has no price.
        """
        body, model = mapping(asked.body), asked.model
        cap = whole(body, "max_tokens")
        if cap is None:
            raise ConfigurationError("max_tokens is missing: Anthropic's messages need a cap on their output")
        thinking = thinking_tokens(body)
        allowances, fees = _of_hosted_tools(body)
        tokens, hidden = _input(asked, body, allowances)
        fallbacks = _fallbacks(body)
        output = max(cap, thinking or 0, *(whole(one, "max_tokens") or 0 for one in fallbacks))
        times = (1 + len(fallbacks)) * (2 if _may_compact(body, tokens) else 1)
        tokens, output = times * tokens, times * output
        return projected(
            model,
            asked.rates,
            {"input_tokens": tokens, **fees},
            {"output_tokens": output},
            output_cap=output,
            asked_tier=_asked_speed((body, *fallbacks), model, asked.rates),
            hidden=hidden,
            fees=fees,
            marked=marked_for_cache(body),
            asked_to_think=thinking is not None,
            region=text(body.get("inference_geo")),
        )

    def input_tokens(self, body: Body, model: str) -> int:
        return claude_input(body, model).tokens

    def prepare(self, preparing: Preparing) -> Fetching:
        """Have the provider count the input. Where it cannot, the input is counted here."""
        body = preparing.body
        model = field(body, "model") or preparing.model or ""
        asked = {name: body[name] for name in _COUNT_TAKES if name in body and not is_absent(body[name])}
        asked["model"] = model
        try:
            answer = yield preparing.fetch.post(_COUNT_PATH, asked, timeout=_PATIENCE, max_retries=0)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, there is a count of our own
            return _uncounted(model, body, type(error).__name__)
        counted = field(answer, "input_tokens")
        if not isinstance(counted, int) or isinstance(counted, bool) or counted < 0:
            return _uncounted(model, body, "an answer without input_tokens")
        return Prepared(model, body, counted=counted)

    def read(self, answer: object) -> Reported | NotCharged:
        answer = parsed(answer)
        if is_refused_unwritten(answer):
            return NotCharged(UNBILLED)
        said = read_message(answer)
        if len(said.unsaid) > 1:
            warn_once(UNREAD)
            said = replace(said, usage=None, unsaid=frozenset())
        return with_container(said, field(answer, "container"))

    def texts(self, answer: Any) -> Iterable[Piece]:
        return message_texts(answer)

    def accumulator(self, model: str) -> MessageAccumulator:
        return MessageAccumulator(model)


def _input(asked: Asked, body: Body, allowances: dict[str, int]) -> tuple[int, HiddenInput | None]:
    """Return the input tokens of a request, and what may be learned of them.

    Args:
        asked: the request, and who has counted it.
        body: its body.
        allowances: tokens for what tools find that run at the provider.
    """
    if asked.counted is not None:
        counted = asked.counted + asked.counted // 100 + _COUNT_MARGIN
        found = {kind: tokens for kind, tokens in allowances.items() if kind != UNSEEN}
        if not found:
            return counted, None
        hidden, more = input_beyond("counted messages", body, asked.model, [], found, counted, asked.learned)
        return counted + more, hidden
    shown = claude_input(body, asked.model)
    if shown.unseen:
        allowances = {**allowances, UNSEEN: shown.unseen * UNSEEN_FILE}
    tokens, kinds = with_margin(shown.tokens), sorted(shown.kinds)
    hidden, more = input_beyond("messages", body, asked.model, kinds, allowances, tokens, asked.learned)
    return tokens + more, hidden


def _fallbacks(body: Body) -> list[Mapping[str, Any]]:
    """Return what a request says of the models that are asked next where one refuses."""
    asked = body.get("fallbacks")
    if isinstance(asked, str):
        return [{}]  # the provider chooses one
    return [{} if isinstance(one, str) else mapping(one) for one in items(asked)]


def _uncounted(model: str, body: Body, why: str) -> Prepared:
    warn_once(
        f"the provider did not count the input of a message ({why}), so it was counted here; "
        "with count='local' it is not asked"
    )
    return Prepared(model, body)


def _asked_speed(bodies: Iterable[Body], model: str, rates: Rates) -> str | None:
    """Return the tier that fast mode is priced as, None where it is not asked for.

    Raises:
        UnknownModelError: it is, and nobody knows its price for this model.
    """
    if not any(body.get("speed") == FAST for body in bodies):
        return None
    if not rates.asks_more_in(FAST):
        raise UnknownModelError(
            f"no price is known for fast mode of {model!r}, so the call was not made. Leave `speed` out, or "
            f"set one for the model: register_price({model!r}, input=..., output=...)",
            model=model,
        )
    return FAST


def _of_hosted_tools(body: Body) -> tuple[dict[str, int], dict[str, int]]:
    """Return the input tokens to allow for what tools find that run at Anthropic, and their fees' units."""
    allowances: dict[str, int] = {}
    fees: dict[str, int] = {}
    for tool in map(mapping, items(body.get("tools"))):
        kind = str(field(tool, "type") or "custom")
        if kind.startswith(_CALLERS_TOOLS):
            continue
        name = next((name for name in _ALLOWANCES if kind.startswith(name)), None)
        if name is None:
            # Such as one that asks another model: what it costs is priced nowhere.
            fees[f"tool_uses_{kind.rstrip('_0123456789')}"] = 1
            continue
        each, uses = _ALLOWANCES[name]
        most = whole(tool, "max_uses")
        uses = uses if most is None else most
        allowances[name] = each * min(uses, _ALLOWANCES[name][1])
        if name == "web_search":
            fees["web_searches"] = uses
        elif name == "code_execution":
            fees[CONTAINER] = 1
    if body.get("mcp_servers"):
        allowances["mcp"] = _ALLOWANCES["mcp"][0]
    if body.get("thread"):
        allowances["thread"] = _THREAD
    if field(mapping(body.get("container")), "skills"):
        allowances["skills"] = _SKILLS
    return {kind: tokens for kind, tokens in allowances.items() if tokens}, {
        unit: count for unit, count in fees.items() if count
    }


def _may_compact(body: Body, tokens: int) -> bool:
    """Whether a context may be shortened on the way, which reads all of it once more."""
    edits = items(field(mapping(body.get("context_management")), "edits"))
    asked = [mapping(edit) for edit in edits if str(field(mapping(edit), "type")).startswith("compact")]
    if (compaction := body.get("compaction")) is not None:
        asked.append(mapping(compaction))
    triggers = (field(mapping(field(one, "trigger")), "value") for one in asked)
    return any(tokens >= (one if isinstance(one, int) else _COMPACTED_AT) for one in triggers)


MESSAGES: Final = MessagesEndpoint("messages", "/messages")
# As they are sent to other clouds, which name the model in the address. An ARN has a slash in it.
MESSAGES_ELSEWHERE: Final = tuple(
    MessagesEndpoint("messages", path)
    for path in (
        "/model/{}/invoke",
        "/model/{}/{}/invoke",
        "/model/{}/invoke-with-response-stream",
        "/model/{}/{}/invoke-with-response-stream",
        "/projects/{}/locations/{}/publishers/anthropic/models/{}:rawPredict",
        "/projects/{}/locations/{}/publishers/anthropic/models/{}:streamRawPredict",
    )
)
