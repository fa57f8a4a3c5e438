"""Message batches as Anthropic's API keeps them, for the tests' server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RESULTS = ("succeeded", "errored", "canceled", "expired")


@dataclass
class Batch:
    """One batch.

    Attributes:
        ident: its id.
        requests: as they were sent.
        results: of each request what came of it, once the batch has ended: a message, or why there is none.
        archived: its results are gone.
    """

    ident: str
    requests: Sequence[Mapping[str, Any]]
    results: list[Mapping[str, Any] | str] = field(default_factory=list)
    archived: bool = False
    canceling: bool = False

    def as_json(self, base_url: str) -> dict[str, Any]:
        counts = dict.fromkeys(("processing", *RESULTS), 0)
        for result in self.results:
            counts[result if isinstance(result, str) else "succeeded"] += 1
        ended = bool(self.results)
        counts["processing"] = 0 if ended else len(self.requests)
        now = "2026-11-20T10:00:00Z"
        return {
            "id": self.ident,
            "type": "message_batch",
            "processing_status": "ended" if ended else "canceling" if self.canceling else "in_progress",
            "request_counts": counts,
            "created_at": now,
            "expires_at": now,
            "ended_at": now if ended else None,
            "archived_at": now if self.archived else None,
            "cancel_initiated_at": now if self.canceling else None,
            "results_url": f"{base_url}/v1/messages/batches/{self.ident}/results"
            if ended and not self.archived
            else None,
        }

    def lines(self) -> bytes:
        """Return the results, in another order than the requests."""
        found = []
        for request, result in zip(self.requests, self.results, strict=True):
            if isinstance(result, str):
                shown: dict[str, Any] = {"type": result}
                if result == "errored":
                    error = {"type": "invalid_request_error", "message": "No."}
                    shown["error"] = {"type": "error", "error": error}
            else:
                shown = {"type": "succeeded", "message": result}
            found.append(json.dumps({"custom_id": request["custom_id"], "result": shown}))
        return "".join(f"{line}\n" for line in reversed(found)).encode()


class Batches:
    """The batches of one server.

    Attributes:
        by_id: those that were created.
        ends_after: how often a batch is asked for before it has ended, all of it succeeded; None where the
            tests end them.
        billed: the usages of the results of those that ended so.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, Batch] = {}
        self.ends_after: int | None = None
        self.billed: list[Mapping[str, Any]] = []
        self._asked = 0

    def answer(
        self, method: str, path: str, body: Mapping[str, Any], base_url: str
    ) -> tuple[int, Any] | None:
        """Return the status and the JSON, or the bytes, that a request is answered with; None if not one."""
        _, found, rest = path.partition("/v1/messages/batches")
        if not found or path.partition(found)[0]:
            return None
        if not rest and method == "POST":
            batch = Batch(f"msgbatch_{len(self.by_id) + 1}", body["requests"])
            self.by_id[batch.ident] = batch
            return 200, batch.as_json(base_url)
        if not rest:
            page = [batch.as_json(base_url) for batch in self.by_id.values()]
            return 200, {"data": page, "has_more": False, "first_id": None, "last_id": None}
        _, ident, *verb = rest.split("/")
        known = self.by_id.get(ident)
        if known is None:
            return 404, {"type": "error", "error": {"type": "not_found_error", "message": ident}}
        self._asked += not verb
        if not known.results and self._asked == self.ends_after:
            self._end(known)
        if verb == ["cancel"]:
            known.canceling = True
        if verb == ["results"]:
            return 200, known.lines()
        return 200, known.as_json(base_url)

    def _end(self, batch: Batch) -> None:
        for number, request in enumerate(batch.requests):
            usage = {"input_tokens": 20 + number, "output_tokens": 9, "service_tier": "batch"}
            self.billed.append(usage)
            batch.results.append(
                {
                    "id": f"msg_{number}",
                    "type": "message",
                    "role": "assistant",
                    "model": request["params"]["model"],
                    "content": [{"type": "text", "text": "Hello."}],
                    "stop_reason": "end_turn",
                    "stop_sequence": None,
                    "usage": usage,
                }
            )
