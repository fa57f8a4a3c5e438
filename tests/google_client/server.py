"""A Gemini API on loopback: the Developer API's paths, and Vertex'."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tests.sdks.server import Answer, Arrived, sse

MODEL = "gemini-2.5-flash"
TEXT = ("Hello", " to", " everybody", ".")
# What every answer reports; thinking is output, and counted beside it.
USAGE = {
    "promptTokenCount": 12,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 30,
    "cachedContentTokenCount": 4,
    "totalTokenCount": 47,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
    "serviceTier": "standard",
}
# Nanos at gemini-2.5-flash's prices in USD a million tokens: 0.30 in, 0.03 of a cache, 2.50 out.
COST = 8 * 300 + 4 * 30 + 35 * 2_500
EMBEDDED = 9
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def content(text: str, **more: Any) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}


def whole(model: str = MODEL, **more: Any) -> dict[str, Any]:
    said = content("".join(TEXT), finishReason="STOP")
    return {"candidates": [said], "usageMetadata": USAGE, "modelVersion": model, "responseId": "r1", **more}


def chunks(model: str = MODEL) -> list[dict[str, Any]]:
    """Return the pieces of a stream: each tells how much it was until then."""
    found = []
    for number, text in enumerate(TEXT, 1):
        last = number == len(TEXT)
        usage = (
            USAGE if last else {"promptTokenCount": 12, "cachedContentTokenCount": 4, "totalTokenCount": 12}
        )
        more = {"finishReason": "STOP"} if last else {}
        found.append(
            {
                "candidates": [content(text, **more)],
                "usageMetadata": usage,
                "modelVersion": model,
                "responseId": "r1",
            }
        )
    return found


def interaction(**more: Any) -> dict[str, Any]:
    """Return an interaction that is over; its usage is that of `USAGE`, in other words."""
    usage = {
        "total_input_tokens": 12,
        "total_output_tokens": 5,
        "total_thought_tokens": 30,
        "total_cached_tokens": 4,
        "total_tokens": 47,
    }
    steps = [{"type": "model_output", "content": [{"type": "text", "text": "".join(TEXT)}]}]
    head = {"id": "v1_interaction1", "object": "interaction", "model": MODEL, "role": "model"}
    times = {"created": "2030-01-01T00:00:00Z", "updated": "2030-01-01T00:00:01Z"}
    return {**head, **times, "status": "completed", "steps": steps, "usage": usage, **more}


def interaction_events() -> list[dict[str, Any]]:
    """Return the events of an interaction's stream."""
    begun = interaction(status="in_progress", steps=[])
    del begun["usage"]
    deltas = [
        {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": text}} for text in TEXT
    ]
    return [
        {"event_type": "interaction.created", "interaction": begun},
        {"event_type": "step.start", "index": 0, "step": {"type": "model_output", "content": []}},
        *deltas,
        {"event_type": "step.stop", "index": 0},
        {"event_type": "interaction.completed", "interaction": interaction()},
    ]


@dataclass
class Gemini:
    """What the server answers.

    Attributes:
        batch: the state of its one batch.
        operation: the state of its one operation.
        call: whether it calls a function before it answers.
        kept: tokens of what is in its cache.
        file: the content of its one file.
    """

    batch: dict[str, Any] = field(default_factory=lambda: {"state": "BATCH_STATE_PENDING"})
    operation: dict[str, Any] = field(default_factory=dict)
    call: bool = False
    kept: int = 5_000
    file: bytes = b""

    def __call__(self, arrived: Arrived) -> Answer:
        path = re.sub(r"^/(?:upload/)?v1\w*", "", arrived.path)
        path = re.sub(r"^/projects/[^/]+/locations/[^/]+", "", path).replace("/publishers/google", "")
        verb = path.rpartition(":")[2] if ":" in path else ""
        model = path.partition("/models/")[2].partition(":")[0]
        body = arrived.body or {}
        if verb == "generateContent":
            return Answer(self._generated(body, model))
        if verb == "streamGenerateContent":
            return Answer(sse([self._generated(body, model)] if self._calls(body) else chunks(model)))
        if verb == "countTokens":
            return Answer({"totalTokens": 1_000})
        if verb == "batchEmbedContents":
            vectors = [{"values": [0.1, 0.2]} for _ in body["requests"]]
            return Answer({"embeddings": vectors, "usageMetadata": {"promptTokenCount": EMBEDDED}})
        if verb == "embedContent":
            return Answer({"embedding": {"values": [0.1]}, "usageMetadata": {"promptTokenCount": EMBEDDED}})
        if verb == "predict":
            return Answer(self._predicted(body))
        if verb in ("predictLongRunning", "fetchPredictOperation"):
            name = f"models/{model}/operations/op1"
            return Answer({"name": name, **(self.operation if verb == "fetchPredictOperation" else {})})
        if verb in ("batchGenerateContent", "asyncBatchEmbedContent"):
            return Answer(
                {"name": "batches/b1", "metadata": {"state": "BATCH_STATE_PENDING", "name": "batches/b1"}}
            )
        return self._more(arrived, path, verb)

    def _more(self, arrived: Arrived, path: str, verb: str) -> Answer:
        if verb == "download":
            return Answer(self.file)
        if "/operations/" in path:
            return Answer({"name": path.lstrip("/"), **self.operation})
        if path == "/interactions":
            stream = (arrived.body or {}).get("stream")
            return Answer(sse(interaction_events(), done=True)) if stream else Answer(interaction())
        if path.startswith("/batches/"):
            return Answer({"name": "batches/b1", "metadata": {"model": f"models/{MODEL}", **self.batch}})
        if path.startswith("/cachedContents"):
            kept = {"totalTokenCount": self.kept}
            begun, ends = "2030-01-01T00:00:00Z", "2030-01-01T02:00:00Z"
            more = {
                "createTime": begun,
                "expireTime": ends,
                "model": f"models/{MODEL}",
                "usageMetadata": kept,
            }
            return Answer({"name": "cachedContents/c1" if arrived.method == "POST" else path[1:], **more})
        if path.startswith("/files"):
            return Answer({"name": "files/f1", "mimeType": "audio/wav", "sizeBytes": "32044"})
        if path.startswith("/models"):
            return Answer({"models": []} if path == "/models" else {"name": f"models/{MODEL}"})
        return Answer({"error": {"code": 404, "message": "no such path", "status": "NOT_FOUND"}}, status=404)

    def _generated(self, body: Any, model: str) -> dict[str, Any]:
        if self._calls(body):
            called = {"functionCall": {"name": "weather", "args": {"city": "Paris"}}}
            candidate = {"content": {"role": "model", "parts": [called]}, "finishReason": "STOP", "index": 0}
            return {**whole(model), "candidates": [candidate]}
        return whole(model)

    def _calls(self, body: Any) -> bool:
        last = body["contents"][-1]["parts"]
        return self.call and not any("functionResponse" in part for part in last)

    def _predicted(self, body: Any) -> dict[str, Any]:
        if "content" in body["instances"][0]:
            told = {"values": [0.1], "statistics": {"token_count": EMBEDDED, "truncated": False}}
            return {"predictions": [{"embeddings": told} for _ in body["instances"]]}
        number = (body.get("parameters") or {}).get("sampleCount") or 1
        return {"predictions": [{"bytesBase64Encoded": PNG, "mimeType": "image/png"}] * number}
