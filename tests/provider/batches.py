"""Batches: created from an uploaded file, ended when a test says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from budgetguard.errors import ConfigurationError
from budgetguard.testing.openai_server import CREATED
from tests.provider import shapes
from tests.provider.exchange import Exchange
from tests.provider.files import Files
from tests.provider.journal import Journal
from tests.provider.reply import (
    CHAT,
    COMPLETIONS,
    MODERATIONS,
    RESPONSES,
    Draft,
    Reply,
    TokenCounter,
    draft,
)

PATH = "/v1/batches"
_DAY = 24 * 60 * 60


@dataclass
class _Batch:
    record: int
    asked: Mapping[str, Any]
    lines: list[tuple[str, Draft]]
    status: str = "validating"
    completed: int = 0
    failed: int = 0
    asked_for: int = 0
    usage: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)


class Batches:
    """Keep batches. Each waits until `end` is called for it; `cancel` is a client's to ask for.

    Args:
        files: where input files are, and output files go.
        reply: request body -> what a line is answered with.
        count: counts tokens.
        journal: where what a batch bills is recorded, at the request that created it.

    Attributes:
        ends_after: how often a batch is asked for before it ends by itself, completed; None: never.
    """

    def __init__(
        self,
        files: Files,
        reply: Callable[[dict[str, Any]], Reply],
        count: TokenCounter,
        journal: Journal,
    ) -> None:
        self.ends_after: int | None = None
        self._files = files
        self._reply = reply
        self._count = count
        self._journal = journal
        self._lock = threading.Lock()
        self._batches: dict[str, _Batch] = {}
        self._others = 0

    def create(self, asked: Mapping[str, Any]) -> str:
        """Create a batch as another program would, and return its id.

        Args:
            asked: the body of the request that creates it.

        Raises:
            ConfigurationError: there is no such input file.
        """
        with self._lock:
            self._others += 1
            name = f"batch_other{self._others:03d}"
        _, answer = self._create(0, asked, name)
        if "error" in answer:
            raise ConfigurationError(str(answer["error"]["message"]))
        return name

    def progress(self, batch_id: str, completed: int = 0) -> None:
        """Say that a batch is under way."""
        self._batches[batch_id].status = "in_progress"
        self._batches[batch_id].completed = completed

    def end(
        self, batch_id: str, status: str = "completed", *, completed: int | None = None, told: bool = True
    ) -> dict[str, Any]:
        """End a batch, and return the usage that it is billed for.

        Args:
            batch_id: as it was created.
            status: `completed`, `failed` (in validation: nothing was done), `expired` or `cancelled`.
            completed: how many of its requests were done, the first ones; all by default.
            told: report the usage, as newer batches do.
        """
        with self._lock:
            batch = self._batches[batch_id]
            done = len(batch.lines) if completed is None else completed
            if status == "failed":
                done = 0
            elif status == "completed":
                batch.failed = len(batch.lines) - done
            batch.status, batch.completed = status, done
            used = _usage([draft for _, draft in batch.lines[:done]])
            batch.usage = used if told else None
            if done:
                output = "".join(_output(name, draft) for name, draft in batch.lines[:done])
                batch.files["output_file_id"] = self._files.add(output.encode(), purpose="batch_output")
                if batch.record:
                    self._journal.update(batch.record, billed=used)
        return used

    def knows(self, path: str) -> bool:
        """Whether a path is one of batches."""
        return path == PATH or path.startswith(PATH + "/")

    def serve(self, exchange: Exchange, body: dict[str, Any] | None) -> None:
        """Answer a request.

        Raises:
            OSError: the client is gone.
        """
        record = exchange.record
        batch_id, _, verb = record.path.removeprefix(PATH).lstrip("/").partition("/")
        if record.method == "POST" and not batch_id:
            exchange.send(*self._create(record.number, body or {}, f"batch_{record.number:06d}"))
        elif not batch_id:
            exchange.send(200, shapes.page([self._shape(one) for one in reversed(self._batches)]))
        elif batch_id not in self._batches:
            exchange.send(404, shapes.error_body(404, f"No batch found with id '{batch_id}'.", code=None))
        else:
            with self._lock:
                batch = self._batches[batch_id]
                if verb == "cancel" and batch.status in ("validating", "in_progress"):
                    batch.status = "cancelling"
                batch.asked_for += 1
                over = self.ends_after is not None and batch.asked_for > self.ends_after
            if over and batch.status == "validating":
                self.end(batch_id)
            exchange.send(200, self._shape(batch_id))

    def _create(self, number: int, body: Mapping[str, Any], batch_id: str) -> tuple[int, dict[str, Any]]:
        content = self._files.content(str(body.get("input_file_id")))
        if content is None:
            return 400, shapes.error_body(400, "The input file does not exist.", param="input_file_id")
        lines = []
        for text in content.splitlines():
            line = json.loads(text)
            asked = line["body"]
            reply = self._reply(asked)
            lines.append((line["custom_id"], draft(line["url"], number, asked, reply, self._count)))
        with self._lock:
            self._batches[batch_id] = _Batch(number, body, lines)
        return 200, self._shape(batch_id)

    def _shape(self, batch_id: str) -> dict[str, Any]:
        batch = self._batches[batch_id]
        return {
            "id": batch_id,
            "object": "batch",
            "endpoint": batch.asked.get("endpoint"),
            "errors": None,
            "input_file_id": batch.asked.get("input_file_id"),
            "completion_window": batch.asked.get("completion_window"),
            "status": batch.status,
            "output_file_id": None,
            "error_file_id": None,
            "created_at": CREATED,
            "expires_at": CREATED + _DAY,
            "request_counts": {
                "total": len(batch.lines),
                "completed": batch.completed,
                "failed": batch.failed,
            },
            "metadata": batch.asked.get("metadata"),
            **({} if batch.usage is None else {"usage": batch.usage}),
            **batch.files,
        }


def _usage(drafts: list[Draft]) -> dict[str, Any]:
    found = [one.usage() for one in drafts if one.path != MODERATIONS]
    read = sum(one.get("prompt_tokens", one.get("input_tokens", 0)) for one in found)
    written = sum(one.get("completion_tokens", one.get("output_tokens", 0)) for one in found)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in drafts)},
        "output_tokens": written,
        "output_tokens_details": {
            "reasoning_tokens": sum(one.choices * one.reasoning_tokens for one in drafts)
        },
        "total_tokens": read + written,
    }


def _output(name: str, draft: Draft) -> str:
    plain = {"model": draft.model, "usage": draft.usage()}
    body = shapes.answer(draft) if draft.path in (CHAT, COMPLETIONS, RESPONSES) else plain
    answer = {"status_code": 200, "request_id": f"req_{name}", "body": body}
    line = {"id": f"batch_req_{name}", "custom_id": name, "response": answer, "error": None}
    return json.dumps(line) + "\n"
