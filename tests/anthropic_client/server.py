"""A small server of Anthropic's messages protocol, also as other clouds speak it, that records its bills."""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from .batches import Batches

MODEL = "claude-sonnet-4-6"
# Where requests for a message arrive: at Anthropic's own API and those that look like it, Bedrock, Vertex.
MESSAGES = re.compile(
    r"(?:/anthropic)?/v1/messages"
    r"|/model/(?P<bedrock>.+)/invoke(?P<frames>-with-response-stream)?"
    r"|/projects/p/locations/(?P<region>[^/]+)/publishers/anthropic/models/(?P<vertex>[^/:]+)"
    r":(?P<stream>rawPredict|streamRawPredict)"
)
# As Bedrock's ids have it: a region, the vendor, and a version behind the model's own name.
_BEDROCK_ID = re.compile(r"(?:[a-z-]+\.)?anthropic\.(.+?)(?:-v\d+(?::\d+)?)?")


@dataclass(frozen=True)
class Reply:
    """What one request is answered with.

    Attributes:
        text: what the model says.
        usage: as the API reports it; `output_tokens` is its end.
        status: of the answer; an error is billed nothing.
        blocks: content in place of the text.
        events: how many events of a stream are sent before the connection is cut; None for all.
        error: an error event in place of the stream's end.
        hang: nothing is answered until the server is stopped; it is billed all the same.
        more: further fields of the message.
        at_end: further fields of the usage at the end of a stream.
    """

    text: str = "Hello there, everybody."
    usage: Mapping[str, Any] = field(default_factory=lambda: {"input_tokens": 20, "output_tokens": 9})
    status: int = 200
    blocks: Sequence[Mapping[str, Any]] | None = None
    events: int | None = None
    error: str | None = None
    hang: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)
    at_end: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> list[Mapping[str, Any]]:
        return [{"type": "text", "text": self.text}] if self.blocks is None else list(self.blocks)


@dataclass
class Record:
    """One request that arrived, and the usage that it was billed for, None for none."""

    method: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    billed: Mapping[str, Any] | None = None


class MessagesServer:
    """Answer as Anthropic's API does, on loopback.

    Args:
        reply: what every request is answered with, or those in turn.

    Attributes:
        counts: the input tokens that it counts in a request, unless it `refuses_counts`.
        batches: the message batches that it keeps.
        requests: those that arrived.
    """

    def __init__(
        self, reply: Reply | Sequence[Reply] | Callable[[dict[str, Any]], Reply] | None = None
    ) -> None:
        self._reply = Reply() if reply is None else reply
        self._lock = threading.Lock()
        self.counts: object = 20
        self.refuses_counts = False
        self.batches = Batches()
        self.requests: list[Record] = []
        self.stopping = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> MessagesServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def take(self, record: Record) -> Reply:
        with self._lock:
            self.requests.append(record)
            if isinstance(self._reply, Reply):
                return self._reply
            if callable(self._reply):
                return self._reply(record.body)
            return self._reply[min(len(self.requests), len(self._reply)) - 1]

    def count(self, path: str | None = None) -> int:
        """Return how many requests arrived there: by default, those for a message."""
        if path is not None:
            return sum(one.path == path for one in self.requests)
        return sum(is_message(one.path) for one in self.requests)


def is_message(path: str) -> bool:
    return MESSAGES.fullmatch(path) is not None and not path.endswith("/count-tokens:rawPredict")


def framed(event: Mapping[str, Any]) -> bytes:
    """Return an event in one of AWS' binary frames, as Bedrock sends it."""
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for name, value in (
            (":event-type", "chunk"),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    data = base64.b64encode(json.dumps(event).encode()).decode()
    payload = json.dumps({"bytes": data, "p": "abcdefgh"}).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    head = prelude + struct.pack("!I", binascii.crc32(prelude)) + headers + payload
    return head + struct.pack("!I", binascii.crc32(head))


def events_of(model: str, reply: Reply) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream."""
    usage = dict(reply.usage)
    begun = {**message(model, reply), "content": [], "stop_reason": None}
    begun["usage"] = {name: value for name, value in usage.items() if name not in reply.at_end}
    if "output_tokens" in usage:
        begun["usage"]["output_tokens"] = 1
    begun.pop("container", None)
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(reply.content):
        kind, parts = _DELTAS.get(str(block["type"]), (None, ""))
        said = block.get(parts) or ""
        begin = {**block, parts: {} if parts == "input" else ""} if kind else block
        yield {"type": "content_block_start", "index": index, "content_block": begin}
        if kind is not None:
            text = json.dumps(said) if parts == "input" else str(said)
            name = "partial_json" if parts == "input" else parts
            for start in range(0, len(text), 8):
                delta = {"type": kind, name: text[start : start + 8]}
                yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    if reply.error is not None:
        yield {"type": "error", "error": {"type": reply.error, "message": "It went wrong."}}
        return
    told = {name: usage[name] for name in ("output_tokens", "server_tool_use") if name in usage}
    told.update(reply.at_end)
    delta = {"stop_reason": reply.more.get("stop_reason", "end_turn"), "stop_sequence": None}
    delta |= {name: reply.more[name] for name in ("container", "stop_details") if name in reply.more}
    yield {"type": "message_delta", "delta": delta, "usage": told}
    yield {"type": "message_stop"}


_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "input"),
}


def message(model: str, reply: Reply) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": list(reply.content),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": dict(reply.usage),
        **reply.more,
    }


def _handler(server: MessagesServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True  # whoever asked has gone

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            server.take(Record("GET", path, {}, dict(self.headers)))
            found = server.batches.answer("GET", path, {}, server.base_url)
            if found is not None:
                return self._bytes(*found) if isinstance(found[1], bytes) else self._json(*found)
            return self._json(200, {"data": [], "has_more": False, "first_id": None, "last_id": None})

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = unquote(self.path.partition("?")[0])
            record = Record("POST", path, json.loads(data or b"{}"), dict(self.headers))
            reply = server.take(record)
            if reply.status == 200 and (
                found := server.batches.answer("POST", path, record.body, server.base_url)
            ):
                return self._json(*found)
            if path.endswith(("/v1/messages/count_tokens", "/count-tokens:rawPredict")):
                if server.refuses_counts:
                    error = {"type": "overloaded_error", "message": "Not now."}
                    return self._json(529, {"type": "error", "error": error})
                return self._json(200, {"input_tokens": server.counts})
            if reply.hang:
                record.billed = reply.usage
                server.stopping.wait(30)
                self.close_connection = True
                return None
            if reply.status != 200:
                error = {"type": "rate_limit_error", "message": "Not now."}
                return self._json(reply.status, {"type": "error", "error": error})
            record.billed = reply.usage
            where = MESSAGES.fullmatch(path)
            if where is None:
                return self._json(404, {"type": "error", "error": {"type": "not_found", "message": path}})
            model, frames = str(record.body.get("model")), bool(where["frames"])
            if where["bedrock"] and (vendors := _BEDROCK_ID.fullmatch(where["bedrock"])):
                model = vendors[1]
            elif where["vertex"]:
                model = where["vertex"].replace("@", "-")
            if not frames and not record.body.get("stream"):
                return self._json(200, message(model, reply))
            return self._stream(model, reply, frames=frames)

        def _json(self, status: int, answer: object) -> None:
            self._bytes(status, json.dumps(answer).encode(), "application/json")

        def _bytes(self, status: int, data: bytes, kind: str = "application/x-jsonl") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, model: str, reply: Reply, *, frames: bool) -> None:
            self.send_response(200)
            kind = "application/vnd.amazon.eventstream" if frames else "text/event-stream; charset=utf-8"
            self.send_header("content-type", kind)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                for number, event in enumerate(events_of(model, reply)):
                    if number == reply.events:
                        self.close_connection = True
                        return
                    plain = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                    data = framed(event) if frames else plain
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True  # whoever asked has gone

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
