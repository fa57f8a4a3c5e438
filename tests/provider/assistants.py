"""Assistants, threads and runs: just enough of them to see what a run reads, and to end it in every way."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from budgetguard.testing._journal import Journal
from budgetguard.testing.openai_server import CREATED
from tests.provider import shapes
from tests.provider.exchange import Exchange
from tests.provider.reply import CHAT, Draft, Reply, TokenCounter, draft
from tests.provider.sse import Event, sse

_ASSISTANTS = "/v1/assistants"
_THREADS = "/v1/threads"
_WAITING = ("queued", "in_progress", "requires_action")


@dataclass
class _Run:
    shape: dict[str, Any]
    record: int
    planned: Draft
    polls: int
    ends: str
    calls: bool


class Assistants:
    """Keep assistants, threads and runs. A run ends when it was asked for `Reply.polls` times.

    With `Reply.tool_calls` it waits for their outputs first. It ends as `Reply.ends` says, `completed` by
    default; one that failed bills nothing.

    Args:
        reply: request body -> what a run is answered with.
        count: counts tokens.
        journal: where what a run bills is recorded, at the request that created it.
    """

    def __init__(
        self, reply: Callable[[dict[str, Any]], Reply], count: TokenCounter, journal: Journal
    ) -> None:
        self._reply = reply
        self._count = count
        self._journal = journal
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._assistants: dict[str, dict[str, Any]] = {}
        self._threads: dict[str, list[dict[str, Any]]] = {}
        self._runs: dict[str, _Run] = {}

    def knows(self, path: str) -> bool:
        """Whether a path is one of assistants or threads."""
        return path.startswith((_ASSISTANTS, _THREADS))

    def serve(self, exchange: Exchange, body: dict[str, Any] | None, query: str) -> None:
        """Answer a request.

        Raises:
            OSError: the client is gone.
        """
        record, asked = exchange.record, body or {}
        events: list[Event] = []
        try:
            with self._lock:
                answer = self._answer(record.method, record.path.split("/")[2:], record.number, asked, query)
                if asked.get("stream") is True:
                    events = self._events(self._runs[answer["id"]])
        except KeyError as missing:
            text = f"No {missing.args[0]} found."
            exchange.send(404, shapes.error_body(404, text, code=None))
            return
        if events:
            exchange.replay(events, 0)
        else:
            exchange.send(200, answer)

    def _answer(
        self, method: str, path: list[str], number: int, body: Mapping[str, Any], query: str
    ) -> dict[str, Any]:
        match method, path:
            case "POST", ["assistants"]:
                made = {"object": "assistant", "created_at": CREATED, "tools": [], "metadata": {}, **body}
                return self._keep(self._assistants, "asst", made)
            case "GET", ["assistants", name]:
                return self._assistants[name]
            case "POST", ["threads"]:
                return self._thread(body)
            case "POST", ["threads", "runs"]:
                thread = self._thread(body.get("thread") or {})
                return self._begin(thread["id"], number, body)
            case "POST", ["threads", thread, "messages"]:
                return self._say(thread, body)
            case "GET", ["threads", thread, "messages"]:
                return self._page(thread, query)
            case "POST", ["threads", thread, "runs"]:
                for message in body.get("additional_messages") or ():
                    self._say(thread, message)
                return self._begin(thread, number, body)
            case "GET", ["threads", thread, "runs"]:
                found = [run.shape for run in self._runs.values() if run.shape["thread_id"] == thread]
                return shapes.page(found[::-1])
            case "GET", ["threads", _, "runs", name]:
                return self._asked_for(self._runs[name])
            case "POST", ["threads", _, "runs", name, "cancel"]:
                return self._end(self._runs[name], "cancelled")
            case "POST", ["threads", _, "runs", name, "submit_tool_outputs"]:
                run = self._runs[name]
                run.calls = False
                run.shape.update(status="queued", required_action=None)
                return run.shape
        raise KeyError("/".join(path))

    def _thread(self, body: Mapping[str, Any]) -> dict[str, Any]:
        name = f"thread_{next(self._numbers):06d}"
        self._threads[name] = []
        for message in body.get("messages") or ():
            self._say(name, message)
        return {"id": name, "object": "thread", "created_at": CREATED, "metadata": {}, "tool_resources": None}

    def _say(self, thread: str, message: Mapping[str, Any]) -> dict[str, Any]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        made = {
            "id": f"msg_{next(self._numbers):06d}",
            "object": "thread.message",
            "created_at": CREATED,
            "thread_id": thread,
            "role": message["role"],
            "content": [
                {"type": "text", "text": {"value": part["text"], "annotations": []}}
                if part["type"] == "text"
                else part
                for part in parts
            ],
        }
        self._threads[thread].append(made)
        return made

    def _page(self, thread: str, query: str) -> dict[str, Any]:
        asked = parse_qs(query)
        messages = self._threads[thread]
        if asked.get("order", ["desc"]) == ["desc"]:
            messages = messages[::-1]
        if "after" in asked:
            ids = [message["id"] for message in messages]
            messages = messages[ids.index(asked["after"][0]) + 1 :]
        most = int(asked.get("limit", ["20"])[0])
        return {**shapes.page(messages[:most]), "has_more": len(messages) > most}

    def _begin(self, thread: str, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
        assistant = {**self._assistants[str(body["assistant_id"])]}
        assistant |= {name: value for name, value in body.items() if value is not None}
        reply = self._reply(dict(body))
        messages = [{"role": "system", "content": assistant.get("instructions") or ""}]
        for message in self._threads[thread]:
            said = [part["text"]["value"] for part in message["content"] if part["type"] == "text"]
            messages.append({"role": message["role"], "content": " ".join(said)})
        chat = {"model": assistant["model"], "messages": messages}
        if (cap := body.get("max_completion_tokens")) is not None:
            chat["max_completion_tokens"] = cap
        shape = {
            "object": "thread.run",
            "created_at": CREATED,
            "assistant_id": body["assistant_id"],
            "thread_id": thread,
            "status": "queued",
            "model": assistant["model"],
            "instructions": assistant.get("instructions") or "",
            "tools": assistant["tools"],
            "metadata": {},
            "parallel_tool_calls": True,
            "required_action": None,
            "usage": None,
        }
        made = self._keep({}, "run", shape)
        planned = draft(CHAT, number, chat, reply, self._count)
        run = _Run(made, number, planned, reply.polls, reply.ends or "completed", bool(reply.tool_calls))
        self._runs[made["id"]] = run
        return made

    def _asked_for(self, run: _Run) -> dict[str, Any]:
        if run.shape["status"] not in ("queued", "in_progress"):
            return run.shape
        if run.polls > 0:
            run.polls -= 1
            run.shape["status"] = "in_progress"
            return run.shape
        return self._go_on(run)

    def _go_on(self, run: _Run) -> dict[str, Any]:
        if not run.calls:
            return self._end(run, run.ends)
        calls = [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(run.planned.tool_calls)
        ]
        run.shape["status"] = "requires_action"
        run.shape["required_action"] = {
            "type": "submit_tool_outputs",
            "submit_tool_outputs": {"tool_calls": calls},
        }
        return run.shape

    def _end(self, run: _Run, status: str) -> dict[str, Any]:
        if run.shape["status"] not in _WAITING:
            return run.shape
        run.shape["status"] = status
        if status != "failed":
            used = run.planned.usage()
            billed = {name: used[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
            run.shape["usage"] = None if run.planned.omit_usage else billed
            self._journal.update(run.record, billed=billed)
        return run.shape

    def _events(self, run: _Run) -> list[Event]:
        events = [] if run.shape["status"] != "queued" else [sse(run.shape, name="thread.run.created")]
        if not run.calls:
            events += self._message_events(run)
        status = self._go_on(run)["status"]
        return [*events, sse(run.shape, name=f"thread.run.{status}"), Event(b"event: done\ndata: [DONE]\n\n")]

    def _message_events(self, run: _Run) -> list[Event]:
        name = f"msg_{next(self._numbers):06d}"
        message = {
            "id": name,
            "object": "thread.message",
            "created_at": CREATED,
            "thread_id": run.shape["thread_id"],
            "run_id": run.shape["id"],
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        part = {"index": 0, "type": "text", "text": {"value": run.planned.text or "", "annotations": []}}
        delta = {"id": name, "object": "thread.message.delta", "delta": {"content": [part]}}
        whole = {**message, "status": "completed", "content": [{"type": "text", "text": part["text"]}]}
        return [
            sse(message, name="thread.message.created"),
            sse(delta, name="thread.message.delta"),
            sse(whole, name="thread.message.completed"),
        ]

    def _keep(self, where: dict[str, dict[str, Any]], kind: str, shape: dict[str, Any]) -> dict[str, Any]:
        name = f"{kind}_{next(self._numbers):06d}"
        where[name] = {"id": name, **shape}
        return where[name]
