"""A realtime API on loopback: real websockets, the events of sessions, and a log of what it bills.

It needs the package `websockets`. What it answers is set by its attributes; what it was sent and what it
billed is in its logs, by which tests judge.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from itertools import count
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

_PCM_RATE = 48_000


class RealtimeServer:
    """Serve sessions until closed.

    Attributes:
        base_url: what a client's `websocket_base_url` is to be.
        text: what a text response says, a delta a word.
        spoken_ms: how much sound a spoken response is, sent 200 ms a delta.
        output_tokens: what a response is billed; None is what its words and sound are.
        usage_more: what is put on top of the usage that responses report.
        status: how responses end: `completed`, `cancelled`, `failed` or `incomplete`.
        reports: responses say their usage.
        hang_after: deltas after which a response stands still until the client goes; None never.
        kill_after: deltas after which the connection is cut; None never.
        refuse: code of the error that `response.create` is answered with; None makes responses.
        received: every client event, in the order of arrival.
        billed: (model, usage) of every response that was begun, and of every transcript.
        begun: responses that were begun, those that never ended included.
    """

    def __init__(self) -> None:
        self.text = "Hello to all of you"
        self.spoken_ms = 1_000
        self.output_tokens: int | None = None
        self.usage_more: dict[str, Any] = {}
        self.status = "completed"
        self.reports = True
        self.hang_after: int | None = None
        self.kill_after: int | None = None
        self.refuse: str | None = None
        self.received: list[dict[str, Any]] = []
        self.billed: list[tuple[str, dict[str, Any]]] = []
        self.begun = 0
        self.closed = threading.Semaphore(0)
        self._ids = count(1)
        self._lock = threading.Lock()
        self._server = serve(self._serve, "127.0.0.1", 0, max_size=None, compression=None)
        self.base_url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="realtime-server", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)

    def count(self, kind: str) -> int:
        """Return how many client events of a type arrived."""
        with self._lock:
            return sum(event.get("type") == kind for event in self.received)

    def new_id(self, prefix: str) -> str:
        """Return an id that no other thing has."""
        return f"{prefix}_{next(self._ids)}"

    def log(self, event: dict[str, Any]) -> None:
        """Take note of a client event."""
        with self._lock:
            self.received.append(event)

    def bill(self, model: str, usage: dict[str, Any]) -> None:
        """Take note of what something costs."""
        with self._lock:
            self.billed.append((model, usage))

    def begin(self) -> None:
        """Take note that a response begins."""
        with self._lock:
            self.begun += 1

    def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        try:
            _Conversation(self, socket, query.get("model", [""])[0]).run()
        except ConnectionClosed:
            pass
        finally:
            self.closed.release()


class _Conversation:
    """One session."""

    def __init__(self, server: RealtimeServer, socket: ServerConnection, model: str) -> None:
        self.server = server
        self.socket = socket
        self.session: dict[str, Any] = {
            "id": server.new_id("sess"),
            "object": "realtime.session",
            "type": "realtime",
            "model": model,
            "output_modalities": ["audio"],
            "instructions": "Be kind and brief.",
            "tools": [],
            "max_output_tokens": "inf",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24_000},
                    "transcription": None,
                    "turn_detection": {"type": "server_vad", "create_response": True},
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "marin"},
            },
        }
        self.text_tokens = 0
        self.audio_tokens = 0
        self.buffer = b""
        self.heard_ms = 0

    def run(self) -> None:
        self.send("session.created", session=self.session)
        for message in self.socket:
            event = json.loads(message)
            self.server.log(event)
            handle = getattr(self, "on_" + event["type"].replace(".", "_"), None)
            if handle is None:
                self.fail("invalid_value", event)
            else:
                handle(event)

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, "event_id": self.server.new_id("event"), **fields}))

    def fail(self, code: str, event: Mapping[str, Any]) -> None:
        told = {"type": "invalid_request_error", "code": code, "message": code, "param": None}
        self.send("error", error={**told, "event_id": event.get("event_id")})

    def on_session_update(self, event: dict[str, Any]) -> None:
        if event["session"].get("voice") == "nobody":
            self.fail("invalid_value", event)
            return
        _merge(self.session, event["session"])
        self.send("session.updated", session=self.session)

    def on_conversation_item_create(self, event: dict[str, Any]) -> None:
        item: dict[str, Any] = {"id": self.server.new_id("item"), "object": "realtime.item"}
        item |= {"status": "completed", **event["item"]}
        for part in item.get("content", ()):
            self.text_tokens += len(part.get("text", "").split()) + 2
            if "audio" in part:
                self.audio_tokens += _ms(base64.b64decode(part.pop("audio"))) // 100
        self.send("conversation.item.added", previous_item_id=None, item=item)
        self.send("conversation.item.done", previous_item_id=None, item=item)

    def on_input_audio_buffer_append(self, event: dict[str, Any]) -> None:
        self.buffer += base64.b64decode(event["audio"])
        detection = self.session["audio"]["input"]["turn_detection"]
        # Speech is any sound; a whole second of silence after it ends a turn.
        silence = bytes(_PCM_RATE)
        while detection is not None and (at := self.buffer.find(silence, 0)) >= 0:
            said, self.buffer = self.buffer[:at], self.buffer[at + len(silence) :]
            start = self.heard_ms
            self.heard_ms += _ms(said) + 1_000
            if not said:
                continue
            item = self.server.new_id("item")
            end = self.heard_ms - 1_000
            self.send("input_audio_buffer.speech_started", audio_start_ms=start, item_id=item)
            self.send("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=item)
            self.commit(said, item)
            if detection.get("create_response", True):
                self.respond({})

    def on_input_audio_buffer_commit(self, event: dict[str, Any]) -> None:
        if not self.buffer:
            self.fail("input_audio_buffer_commit_empty", event)
            return
        said, self.buffer = self.buffer, b""
        self.heard_ms += _ms(said)
        self.commit(said, self.server.new_id("item"))

    def on_input_audio_buffer_clear(self, event: dict[str, Any]) -> None:
        self.buffer = b""
        self.send("input_audio_buffer.cleared")

    def commit(self, said: bytes, item: str) -> None:
        self.audio_tokens += _ms(said) // 100
        self.send("input_audio_buffer.committed", previous_item_id=None, item_id=item)
        part = {"type": "input_audio", "transcript": None}
        told = {"id": item, "object": "realtime.item", "type": "message", "role": "user", "content": [part]}
        self.send("conversation.item.added", previous_item_id=None, item=told)
        if (chosen := self.session["audio"]["input"]["transcription"]) is not None:
            self.transcribe(chosen["model"], said, item)

    def transcribe(self, model: str, said: bytes, item: str) -> None:
        name = "conversation.item.input_audio_transcription"
        usage: dict[str, Any] = {"type": "duration", "seconds": _ms(said) / 1_000}
        if model.startswith("gpt-4o"):
            heard = _ms(said) // 100
            usage = {"type": "tokens", "input_tokens": heard, "output_tokens": 7, "total_tokens": heard + 7}
            usage["input_token_details"] = {"audio_tokens": heard, "text_tokens": 0}
        self.server.bill(model, usage)
        self.send(f"{name}.delta", item_id=item, content_index=0, delta="so it was")
        self.send(f"{name}.completed", item_id=item, content_index=0, transcript="so it was", usage=usage)

    def on_response_cancel(self, event: dict[str, Any]) -> None:
        self.fail("response_cancel_not_active", event)

    def on_response_create(self, event: dict[str, Any]) -> None:
        if self.server.refuse is not None:
            self.fail(self.server.refuse, event)
            return
        self.respond(event.get("response") or {})

    def respond(self, asked: Mapping[str, Any]) -> None:
        server = self.server
        server.begin()
        apart = asked.get("conversation") == "none"
        response: dict[str, Any] = {
            "object": "realtime.response",
            "id": server.new_id("resp"),
            "status": "in_progress",
            "conversation_id": None if apart else "conv_1",
            "output": [],
            "metadata": asked.get("metadata"),
        }
        self.send("response.created", response=response)
        spoken = "audio" in asked.get("output_modalities", self.session["output_modalities"])
        words = server.text.split()
        usage = self.usage(asked, words, server.spoken_ms // 50 if spoken else 0)
        server.bill(self.session["model"], usage)
        place = {"response_id": response["id"], "item_id": server.new_id("item")}
        place |= {"output_index": 0, "content_index": 0}
        for at in range(max(len(words), server.spoken_ms // 200 if spoken else 0)):
            self.interrupt(at)
            if at < len(words):
                kind = "response.output_audio_transcript.delta" if spoken else "response.output_text.delta"
                self.send(kind, delta=words[at] + " ", **place)
            if spoken and at < server.spoken_ms // 200:
                sound = base64.b64encode(b"\1\2" * (_PCM_RATE // 10)).decode()
                self.send("response.output_audio.delta", delta=sound, **place)
        self.interrupt(None)
        if not apart:
            self.text_tokens += usage["output_token_details"]["text_tokens"]
            self.audio_tokens += usage["output_token_details"]["audio_tokens"]
        said = {"type": "output_text", "text": server.text}
        item = {"id": place["item_id"], "type": "message", "role": "assistant", "content": [said]}
        response |= {"status": server.status, "output": [item], "usage": usage if server.reports else None}
        self.send("response.done", response=response)

    def interrupt(self, at: int | None) -> None:
        """Stand still or cut the line, if this is where it is to happen."""
        if self.server.hang_after is not None and (at is None or at == self.server.hang_after):
            for _ in self.socket:
                pass  # whatever is sent meanwhile, until the client goes
            raise ConnectionClosed(None, None)
        if self.server.kill_after is not None and (at is None or at == self.server.kill_after):
            self.socket.close_socket()
            raise ConnectionClosed(None, None)

    def usage(self, asked: Mapping[str, Any], words: list[str], spoken: int) -> dict[str, Any]:
        told = len(asked.get("instructions", self.session["instructions"]).split())
        text, audio = self.text_tokens + told + 4, self.audio_tokens
        written = len(words)
        if self.server.output_tokens is not None:
            written = max(0, self.server.output_tokens - spoken)
        usage = {
            "input_tokens": text + audio,
            "output_tokens": written + spoken,
            "total_tokens": text + audio + written + spoken,
            "input_token_details": {"text_tokens": text, "audio_tokens": audio, "cached_tokens": 0},
            "output_token_details": {"text_tokens": written, "audio_tokens": spoken},
        }
        return _merge(usage, self.server.usage_more)


def _ms(sound: bytes) -> int:
    return len(sound) * 1_000 // _PCM_RATE


def _merge(old: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in change.items():
        if isinstance(value, Mapping) and isinstance(old.get(name), dict):
            _merge(old[name], value)
        else:
            old[name] = value
    return old
