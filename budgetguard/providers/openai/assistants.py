"""Assistants' runs: projected from what can be fetched of assistant and thread, settled by their usage.

OpenAI ends this API in August 2026; other servers speak it still.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.engine.provider_call import Fetch
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.accumulators import StreamTally
from budgetguard.providers.answers import reported
from budgetguard.providers.base import Body, Prepared, Preparing
from budgetguard.providers.json import count, field, items, parsed, text
from budgetguard.tokens.hosted_tools import hidden_input, projected_fees
from budgetguard.tokens.requests import as_mapping, chat_input_tokens, given, listed

_THREAD: Final = re.compile(r"/threads/([^/]+)/runs")
_OVER: Final = frozenset({"completed", "incomplete", "cancelled", "failed", "expired"})
_PAGE: Final = 100


def prepare_run(preparing: Preparing) -> Generator[Fetch, Any, Prepared]:
    """Fetch the assistant, and the messages of its thread unless a cap bounds what the run may read.

    What the provider answers instead is raised as it is: it would refuse the run as well.
    """
    body = preparing.body
    assistant_id = given(body, "assistant_id")
    if not isinstance(assistant_id, str) or not assistant_id:
        raise ConfigurationError(f"assistant_id must be the id of an assistant, not {assistant_id!r}")
    assistant = as_mapping((yield preparing.fetch.get(f"/assistants/{quote(assistant_id, safe='')}")))
    thread = _THREAD.fullmatch(preparing.path)
    if given(body, "max_prompt_tokens") is not None:
        messages: list[Any] = []
    elif thread is None:
        messages = listed(given(as_mapping(given(body, "thread")), "messages"))
    else:
        messages = yield from _messages(preparing, thread[1], _last(body))
    tools = [as_mapping(tool) for tool in listed(_either(body, assistant, "tools"))]
    said = (_either(body, assistant, "instructions"), given(body, "additional_instructions"))
    shown = {
        "messages": [
            {"role": "system", "content": "\n".join(one for one in said if isinstance(one, str))},
            *map(_as_chat, messages),
            *map(_as_chat, listed(given(body, "additional_messages"))),
        ],
        "tools": [tool for tool in tools if given(tool, "type") == "function"],
        "hosted": [tool for tool in tools if given(tool, "type") != "function"],
        "response_format": _either(body, assistant, "response_format"),
        "max_prompt_tokens": given(body, "max_prompt_tokens"),
        "max_completion_tokens": given(body, "max_completion_tokens"),
    }
    return Prepared(_either(body, assistant, "model") or "", shown)


def project_run(body: Body, model: str, rates: Rates, learned: int | None) -> Projection:
    """Project a run from what `prepare_run` returns.

    Input is what the assistant and the thread show, with the allowances and fees of hosted tools, once: a run
    that calls tools reads all of it again each time. `max_prompt_tokens` bounds all of a run's input.

    Raises:
        ConfigurationError: a cap that is no whole number.
        UnknownModelError: the run would use a unit that has no price.
    """
    most, cap = _cap(body, "max_prompt_tokens"), _cap(body, "max_completion_tokens")
    hosted = {"tools": given(body, "hosted")}
    if most is None:
        shown = {name: value for name, value in body.items() if value}
        most = with_margin(chat_input_tokens(shown, model)) + sum(hidden_input(hosted, model).values())
    if cap is None:
        cap = learned if learned is not None else assumed_output_cap(model)
    return projected(
        model,
        rates,
        {"input_tokens": most, **projected_fees(hosted, model)},
        {"output_tokens": cap},
        output_cap=cap,
    )


def read_run(answer: object) -> Reported:
    """Read what a run used; it is `pending` until it ended, also while it waits for the outputs of tools.

    Its usage does not tell the calls of hosted tools: those that it was offered are taken to be used once.
    One that failed without usage costs nothing.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    answer = parsed(answer)
    said = reported(answer)
    if text(field(answer, "status")) not in _OVER:
        return Reported(usage=None, request_id=said.request_id, pending=True)
    if field(answer, "status") != "completed":
        said = replace(said, unsaid=frozenset())  # it may have ended before it read anything
    usage = said.usage
    if usage is None:
        return replace(said, usage=Usage() if field(answer, "status") == "failed" else None)
    cached = count(field(field(field(answer, "usage"), "prompt_token_details"), "cached_tokens")) or 0
    hosted = {"tools": [tool for tool in items(field(answer, "tools")) if field(tool, "type") != "function"]}
    fees = projected_fees(hosted, said.model or "")
    return replace(said, usage=Usage.of(**{**usage.units, "cache_read_tokens": cached, **fees}))


def read_runs(answer: object) -> Iterable[Reported]:
    """Read a page of runs."""
    return [read_run(one) for one in items(field(parsed(answer), "data"))]


class RunTally(StreamTally):
    """Read the events of a streamed run: it goes on if nobody listens, and waits where it needs outputs."""

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._run: Reported | None = None

    @property
    def reported(self) -> Reported | None:
        """What the last event of the run said."""
        return self._run

    @property
    def told(self) -> bool:
        """Whether what it reported is of the whole answer: a run says nothing before."""
        return True

    def feed(self, chunk: object) -> None:
        """Take one event's JSON."""
        if text(field(chunk, "object")) == "thread.run":
            self._run = read_run(chunk)


def _messages(preparing: Preparing, thread: str, most: int | None) -> Generator[Fetch, Any, list[Any]]:
    """Return the messages of a thread, the oldest first; no more than the last `most`."""
    found: list[Any] = []
    query: dict[str, object] = {"order": "desc", "limit": _PAGE}
    while True:
        page = yield preparing.fetch.get(f"/threads/{quote(thread, safe='')}/messages", query)
        new = listed(field(page, "data"))
        found += new
        after = field(page, "last_id") or (field(new[-1], "id") if new else None)
        enough = most is not None and len(found) >= most
        if enough or not new or field(page, "has_more") is not True or query.get("after") == after:
            return found[:most][::-1]
        query["after"] = after


def _last(body: Body) -> int | None:
    kept = as_mapping(given(body, "truncation_strategy"))
    return count(given(kept, "last_messages")) if given(kept, "type") == "last_messages" else None


def _as_chat(message: Any) -> dict[str, Any]:
    plain = as_mapping(message)
    content = given(plain, "content")
    if isinstance(content, list | tuple):
        content = [_part(as_mapping(part)) for part in content]
    return {"role": given(plain, "role"), "content": content}


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if given(part, "type") == "text":
        value = given(part, "text")
        return {"type": "text", "text": value if isinstance(value, str) else field(value, "value")}
    if given(part, "type") == "image_file":
        detail = field(given(part, "image_file"), "detail")
        return {"type": "image_url", "image_url": {"url": "a file of the provider's", "detail": detail}}
    return part


def _either(body: Body, assistant: Mapping[str, Any], name: str) -> Any:
    said = given(body, name)
    return given(assistant, name) if said is None else said


def _cap(body: Body, name: str) -> int | None:
    value = given(body, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{name} must be a whole number of at least 0, not {value!r}")
    return value
