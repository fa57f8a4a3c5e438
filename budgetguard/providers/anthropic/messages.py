"""Anthropic's `/messages`: how a request is projected, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, input_beyond, projected, whole_number, with_margin
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.answer_shapes import ItemTally, read_whole
from budgetguard.providers.base import Body, Endpoint
from budgetguard.providers.json import field, parsed, text
from budgetguard.tokens.claude import claude_input
from budgetguard.tokens.requests import as_mapping, given, listed, thinking_tokens
from budgetguard.tokens.shapes import UNSEEN, UNSEEN_FILE

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
_ONE_HOUR: Final = "cache_write_1h_tokens"
_FIVE_MINUTES: Final = "cache_write_tokens"
_CONTAINER: Final = "container_sessions"


def project_message(
    body: Body,
    model: str,
    rates: Rates,
    _learned: int | None,
    learned_input: Callable[[str], int | None],
) -> Projection:
    """Project a message.

    Input is priced as written into the cache where `cache_control` asks for that, for the longest time that
    it asks for. What a model thinks is output. `web_search` is taken to be used as often as it may be.

    Args:
        body: the request.
        model: the model's name.
        rates: what the model costs.
        learned_input: `HiddenInput.key` -> what settled calls suggest to add for what is not counted.

    Raises:
        ConfigurationError: bad `messages` or `max_tokens`.
        UnknownModelError: the call would use a unit that has no price.
    """
    cap = whole_number(body, "max_tokens", least=0)
    if cap is None:
        raise ConfigurationError("max_tokens is missing: Anthropic's messages need a cap on their output")
    thinking = thinking_tokens(body)
    found = claude_input(body, model)
    shown = with_margin(found.tokens)
    allowances, fees = _of_hosted_tools(body)
    if found.unseen:
        allowances[UNSEEN] = found.unseen * UNSEEN_FILE
    hidden, more = input_beyond(
        "messages", body, model, sorted(found.kinds), allowances, shown, learned_input
    )
    tokens, output = shown + more, max(cap, thinking or 0)
    if _may_compact(body, tokens):
        tokens, output = 2 * tokens, 2 * output
    return projected(
        model,
        rates,
        {"input_tokens": tokens, **fees},
        {"output_tokens": output},
        output_cap=output,
        asked_tier=_asked_speed(body, model, rates),
        hidden=hidden,
        fees=fees,
        marked=marked_for_cache(body),
        asked_to_think=thinking is not None,
        region=text(given(body, "inference_geo")),
    )


def _asked_speed(body: Body, model: str, rates: Rates) -> str | None:
    """Return the tier that fast mode is priced as, None where it is not asked for.

    Raises:
        UnknownModelError: it is, and nobody knows its price for this model.
    """
    if given(body, "speed") != "fast":
        return None
    probe = Usage.of(input_tokens=1_000, output_tokens=1_000)
    if not rates.is_free and rates.with_tier("fast").cost(probe) <= rates.cost(probe):
        raise UnknownModelError(
            f"no price is known for fast mode of {model!r}, so the call was not made. Leave `speed` out, or "
            f"set one for the model: register_price({model!r}, input=..., output=...)",
            model=model,
        )
    return "fast"


def _of_hosted_tools(body: Body) -> tuple[dict[str, int], dict[str, int]]:
    """Return the input tokens to allow for what tools find that run at Anthropic, and their fees' units."""
    allowances: dict[str, int] = {}
    fees: dict[str, int] = {}
    for tool in map(as_mapping, listed(given(body, "tools"))):
        kind = str(given(tool, "type") or "custom")
        if kind.startswith(_CALLERS_TOOLS):
            continue
        name = next((name for name in _ALLOWANCES if kind.startswith(name)), None)
        if name is None:
            # Such as one that asks another model: what it costs is priced nowhere.
            fees[f"tool_uses_{kind.rstrip('_0123456789')}"] = 1
            continue
        each, uses = _ALLOWANCES[name]
        most = whole_number(tool, "max_uses", least=0)
        uses = uses if most is None else most
        allowances[name] = each * min(uses, _ALLOWANCES[name][1])
        if name == "web_search":
            fees["web_searches"] = uses
        elif name == "code_execution":
            fees[_CONTAINER] = 1
    if given(body, "mcp_servers"):
        allowances["mcp"] = _ALLOWANCES["mcp"][0]
    if given(body, "thread"):
        allowances["thread"] = _THREAD
    if given(as_mapping(given(body, "container")), "skills"):
        allowances["skills"] = _SKILLS
    return {kind: tokens for kind, tokens in allowances.items() if tokens}, {
        unit: count for unit, count in fees.items() if count
    }


def _may_compact(body: Body, tokens: int) -> bool:
    """Whether a context may be shortened on the way, which reads all of it once more."""
    edits = listed(given(as_mapping(given(body, "context_management")), "edits"))
    asked = [as_mapping(edit) for edit in edits if str(given(as_mapping(edit), "type")).startswith("compact")]
    if (compaction := given(body, "compaction")) is not None:
        asked.append(as_mapping(compaction))
    triggers = (given(as_mapping(given(one, "trigger")), "value") for one in asked)
    return any(tokens >= (one if isinstance(one, int) else _COMPACTED_AT) for one in triggers)


def marked_for_cache(body: Body) -> str | None:
    """Return the unit by which a request's prompt is billed that it asks to be kept, None if it does not."""
    found: str | None = None
    for control in _cache_controls(body):
        if given(as_mapping(control), "ttl") == "1h":
            return _ONE_HOUR
        found = _FIVE_MINUTES
    return found


def _cache_controls(value: Mapping[str, Any]) -> Iterator[Any]:
    """Yield each `cache_control`: of the request itself, and of any part of what it puts before the model."""
    for name in ("cache_control", "system", "messages", "tools", "content"):
        inner = given(value, name)
        if inner is None:
            continue
        if name == "cache_control":
            yield inner
        for one in listed(inner):
            plain = one if isinstance(one, Mapping) else as_mapping(one)
            yield from _cache_controls(plain)


def read_message(answer: object) -> Reported:
    """Return what a message reports.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    answer = parsed(answer)
    return _with_container(read_whole(answer, ""), field(answer, "container"))


def _with_container(said: Reported, container: object) -> Reported:
    """Return a report with the container that code ran in, which `usage` does not count."""
    if container is None or said.usage is None:
        return said
    return said.merged(Reported(usage=Usage.of(**{_CONTAINER: 1})))


class MessageAccumulator(ItemTally):
    """The usage and the text of a streamed message, event by event.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._blocks_ended = False
        self._container: object = None

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""
        said = super().reported
        return None if said is None else _with_container(said, self._container)

    @property
    def nears_end(self) -> bool:
        """Whether the end may be near enough to wait for it, once nobody reads any more.

        A block that is written to its end is mostly the last one, and usage follows.
        """
        return self._blocks_ended

    def feed(self, chunk: object) -> None:
        """Take one event: an SDK object or a mapping."""
        super().feed(chunk)
        match field(chunk, "type"):
            case "content_block_start":
                self._blocks_ended = False
            case "content_block_stop":
                self._blocks_ended = True
            case "message_start" | "message_delta":
                holder = field(chunk, "message") or field(chunk, "delta")
                self._container = field(holder, "container") or self._container


MESSAGES: Final = Endpoint(
    "messages",
    "/messages",
    project_message,
    read=read_message,
    tally=MessageAccumulator,
    learns_input=True,
)
