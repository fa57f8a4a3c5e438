"""What the test server answers and what that bills: replies, token counts, and drafts of answers."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from budgetguard.testing.openai_server import (
    CHAT,
    DEFAULT_TEXT,
    TokenCounter,
    chat_prompt_tokens,
    text_of,
    to_json,
)
from tests.provider.schema_sample import sample

COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
COMPACT = "/v1/responses/compact"
INPUT_COUNTS = "/v1/responses/input_tokens"
EMBEDDINGS = "/v1/embeddings"
MODERATIONS = "/v1/moderations"

_CAPS = {
    CHAT: ("max_completion_tokens", "max_tokens"),
    COMPLETIONS: ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
}
# The completions API stops after 16 tokens unless told otherwise:
# https://platform.openai.com/docs/api-reference/completions/create
_COMPLETIONS_DEFAULT_CAP = 16


class Gate(Protocol):
    """What a reply may wait for: a `threading.Event` or a `multiprocessing.Event`."""

    def wait(self, timeout: float) -> bool:
        """Return whether the gate is open, after at most `timeout` seconds."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to one request.

    Attributes:
        text: the answer's text, or an error's message. None is `DEFAULT_TEXT`, or with structured output
            a JSON text that fits the schema; there a text that is not JSON is replaced in the same way.
        tool_calls: (name, arguments) of each tool call to answer with, instead of a text.
        model: the model named in the answer; None is the one asked for.
        prompt_tokens: billed input tokens; None counts them.
        completion_tokens: billed output tokens of each choice, before a cap in the request; None
            counts the text and adds `reasoning_tokens`.
        cached_tokens: how many of the input tokens were read from the provider's cache.
        reasoning_tokens: how many of each choice's output tokens are hidden reasoning.
        service_tier: the tier in the answer; None is the one asked for, or `default`.
        omit_usage: leave the usage out of the answer. It is billed all the same.
        hosted: calls of hosted tools that a response has before its text, as its items; each is billed.
        tool_usage: what a response says of its hosted tools apart.
        ends: how a response ends: `completed`, `failed` (billed nothing) or `cancelled`; None is
            `completed`, or `incomplete` where a cap cut it.
        polls: how often a response in the background is asked for before it has ended.
        status: 200, or the status of an error; an error bills nothing.
        error_code: the `code` of the error; None is OpenAI's usual one for the status.
        retry_after: seconds the client is told to wait before a retry.
        headers: more response headers.
        delay: seconds to wait before answering.
        gate: wait until it is set before answering.
        hang: accept, and never answer until the server stops or the client hangs up.
        pause_after: in a stream, `delay`, `gate` and `hang` come after so many content chunks.
        chunks: how many content chunks a streamed choice has; None is one per word.
        drop_after: break the connection after so many content chunks, or for 0 before any answer. An
            answer that is not streamed breaks off in the middle of its body if this is above 0.
    """

    text: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    delay: float = 0.0
    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    model: str | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    service_tier: str | None = None
    omit_usage: bool = False
    hosted: Sequence[Mapping[str, Any]] = ()
    tool_usage: Mapping[str, Any] | None = None
    ends: str | None = None
    polls: int = 1
    status: int = 200
    error_code: str | None = None
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    gate: Gate | None = None
    hang: bool = False
    pause_after: int = 0
    chunks: int | None = None
    drop_after: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """Hold an answer before it takes an endpoint's shape.

    Attributes:
        path: the endpoint.
        number: makes the ids in the answer.
        model: the model that answers.
        tier: the service tier of the answer.
        choices: how many equal choices the answer has.
        text: each choice's text, or None with tool calls.
        tool_calls: (name, arguments as JSON text) of each choice.
        finish: `stop`, `length` or `tool_calls`.
        pieces: (index of the tool call or None for text, a part of it), one per content chunk.
        prompt_tokens: billed input tokens of the request.
        cached_tokens: the part of them read from a cache.
        visible_tokens: output tokens of one choice without reasoning.
        reasoning_tokens: reasoning tokens of one choice.
        counted: output tokens come from counting, so those of a part do too.
        omit_usage: do not report the usage.
        count: the token counter.
        hosted: items of hosted tools.
        tool_usage: what is said of them apart.
        ends: how a response ends.
        unseen: how many more answers were made to choose the best from.
        tools: what the request offered.
        background: the response goes on when nobody listens.
    """

    path: str
    number: int
    model: str
    tier: str
    choices: int
    text: str | None
    tool_calls: tuple[tuple[str, str], ...]
    finish: str
    pieces: tuple[tuple[int | None, str], ...]
    prompt_tokens: int
    cached_tokens: int
    visible_tokens: int
    reasoning_tokens: int
    counted: bool
    omit_usage: bool
    count: TokenCounter
    hosted: tuple[Mapping[str, Any], ...] = ()
    tool_usage: Mapping[str, Any] | None = None
    ends: str | None = None
    unseen: int = 0
    tools: tuple[Any, ...] = ()
    background: bool = False

    def bill(self, sent: Sequence[int] | None = None) -> dict[str, Any] | None:
        """Return what is charged: the usage, and the calls of hosted tools by type; None if nothing is.

        Args:
            sent: content chunks sent of each choice; None is all of them.
        """
        if self.ends == "failed":
            return None
        usage = self.usage(None if self.background else sent)
        calls = Counter(str(item["type"]) for item in self.hosted)
        return {**usage, "hosted_calls": dict(calls)} if calls else usage

    def usage(self, sent: Sequence[int] | None = None) -> dict[str, Any]:
        """Return the usage billed, in the endpoint's shape.

        Args:
            sent: content chunks sent of each choice; None is all of them.
        """
        if sent is None:
            made = self.choices + self.unseen
            output = made * (self.visible_tokens + self.reasoning_tokens)
            reasoning = self.choices * self.reasoning_tokens
        else:
            output = sum(self._output_after(chunks) for chunks in sent)
            output += self.unseen * (self.visible_tokens + self.reasoning_tokens)
            reasoning = sum(self.reasoning_tokens for chunks in sent if chunks)
        return usage_dict(self.path, self.prompt_tokens, self.cached_tokens, output, reasoning)

    def _output_after(self, chunks: int) -> int:
        if chunks == 0:
            return 0
        if chunks >= len(self.pieces):
            return self.visible_tokens + self.reasoning_tokens
        if self.counted:
            parts: dict[int | None, str] = {}
            for slot, part in self.pieces[:chunks]:
                parts[slot] = parts.get(slot, "") + part
            names = [self.tool_calls[slot][0] for slot in parts if slot is not None]
            visible = sum(map(self.count, [*parts.values(), *names]))
        else:
            visible = -(-self.visible_tokens * chunks // len(self.pieces))
        return min(visible, self.visible_tokens) + self.reasoning_tokens


def usage_dict(path: str, prompt: int, cached: int, output: int, reasoning: int) -> dict[str, Any]:
    """Return token counts in the shape in which the endpoint reports them."""
    if path == EMBEDDINGS:
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    if path in (RESPONSES, COMPACT):
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": prompt + output,
        }
    counts: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }
    if path == CHAT:
        counts["prompt_tokens_details"] = {"cached_tokens": cached, "audio_tokens": 0}
        counts["completion_tokens_details"] = {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        }
    return counts


def draft(path: str, number: int, body: Mapping[str, Any], reply: Reply, count: TokenCounter) -> Draft:
    """Work out what the reply says to the request and what it bills."""
    forced = _forced_tools(body) if reply.text is None else []
    calls = [(name, _compact(arguments)) for name, arguments in reply.tool_calls or forced]
    text = None if calls else _text(body, reply)
    names = sum(count(name) for name, _ in calls)
    reasoning = reply.reasoning_tokens
    full = (
        names + sum(count(part) for part in _strings(text, calls)) + reasoning
        if reply.completion_tokens is None
        else reply.completion_tokens
    )
    cap = _cap(path, body)
    output = full if cap is None else min(full, cap)
    reasoning = min(reasoning, output)
    if cap is not None and full > cap:
        left = max(0, cap - reasoning - names)
        cut: list[str] = []
        for part in _strings(text, calls):
            cut.append(_prefix(part, left, count))
            left -= count(cut[-1])
        text = None if calls else cut[0]
        calls = [(name, part) for (name, _), part in zip(calls, cut, strict=False)]
    prompts = body.get("prompt") if path == COMPLETIONS else None
    several = len(prompts) if isinstance(prompts, list) and prompts and not _is_tokens(prompts) else 1
    return Draft(
        path=path,
        number=number,
        model=reply.model or str(body["model"]),
        tier=reply.service_tier or _tier(body),
        choices=several * (int(body.get("n") or 1) if path in (CHAT, COMPLETIONS) else 1),
        unseen=several * max(0, int(body.get("best_of") or 1) - int(body.get("n") or 1))
        if path == COMPLETIONS
        else 0,
        text=text,
        tool_calls=tuple(calls),
        finish="length" if output < full else "tool_calls" if calls else "stop",
        pieces=tuple(_pieces(text, calls, reply.chunks)),
        prompt_tokens=prompt_tokens(path, body, count)
        if reply.prompt_tokens is None
        else reply.prompt_tokens,
        cached_tokens=reply.cached_tokens,
        visible_tokens=output - reasoning,
        reasoning_tokens=reasoning,
        counted=reply.completion_tokens is None,
        omit_usage=reply.omit_usage,
        count=count,
        hosted=tuple(reply.hosted),
        tool_usage=reply.tool_usage,
        ends=reply.ends,
        tools=tuple(body.get("tools") or ()) if path == RESPONSES else (),
    )


def prompt_tokens(path: str, body: Mapping[str, Any], count: TokenCounter) -> int:
    """Count the input tokens of a request.

    Responses are counted as a chat whose messages are the input's, instructions being one of them.
    """
    if path in (EMBEDDINGS, MODERATIONS, COMPLETIONS):
        given = body.get("prompt" if path == COMPLETIONS else "input")
        several = given if isinstance(given, list) and not _is_tokens(given) else [given]
        return sum(len(one) if isinstance(one, list) else count(text_of(one)) for one in several)
    return chat_prompt_tokens(body if path == CHAT else {**body, "messages": _input_messages(body)}, count)


def _input_messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = body.get("input")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    return messages


def _text(body: Mapping[str, Any], reply: Reply) -> str:
    text = DEFAULT_TEXT if reply.text is None else reply.text
    wanted = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    if wanted.get("type") not in ("json_schema", "json_object") or _is_json(text):
        return text
    if wanted["type"] == "json_object":
        return _compact({"text": text})
    return _compact(sample((wanted.get("json_schema") or wanted).get("schema") or {}))


def _forced_tools(body: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the tool call that `tool_choice` leaves the model no way around, with fitting arguments."""
    functions = [
        tool.get("function", tool) for tool in body.get("tools") or () if tool.get("type") == "function"
    ]
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping):
        name = (choice.get("function") or choice).get("name")
        functions = [function for function in functions if function.get("name") == name]
    elif choice != "required":
        return []
    return [(function["name"], sample(function.get("parameters") or {})) for function in functions[:1]]


def _pieces(
    text: str | None, calls: Sequence[tuple[str, str]], chunks: int | None
) -> Iterator[tuple[int | None, str]]:
    strings = _strings(text, calls)
    for index, part in enumerate(strings):
        slot = index if calls else None
        if chunks is None:
            yield from ((slot, word) for word in re.findall(r"\s*\S+\s*$|\s*\S+|\s+", part))
        else:
            wanted = min(chunks, len(part))
            edges = [len(part) * step // wanted for step in range(wanted + 1)] if wanted > 0 else []
            yield from ((slot, part[a:b]) for a, b in itertools.pairwise(edges))


def _strings(text: str | None, calls: Sequence[tuple[str, str]]) -> list[str]:
    return [arguments for _, arguments in calls] if calls else [text or ""]


def _cap(path: str, body: Mapping[str, Any]) -> int | None:
    for name in _CAPS.get(path, ()):
        if body.get(name) is not None:
            return int(body[name])
    return _COMPLETIONS_DEFAULT_CAP if path == COMPLETIONS else None


def _prefix(text: str, tokens: int, count: TokenCounter) -> str:
    """Return the longest beginning of the text that is at most so many tokens."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text[:middle]) <= tokens else (low, middle - 1)
    return text[:low]


def _tier(body: Mapping[str, Any]) -> str:
    asked = body.get("service_tier")
    return str(asked) if asked and asked != "auto" else "default"


def _is_tokens(given: list[Any]) -> bool:
    return bool(given) and all(isinstance(token, int) for token in given)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _compact(value: Any) -> str:
    return to_json(value).decode()
