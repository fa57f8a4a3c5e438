"""The test server with images, audio and video: it answers, bills, and keeps what was uploaded."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from budgetguard.testing.openai_server import to_json
from tests.provider import shapes
from tests.provider.connection import Connection, HTTPRequest
from tests.provider.exchange import Exchange
from tests.provider.journal import RecordedRequest
from tests.provider.server import OpenAIServer

IMAGES: Final = ("/v1/images/generations", "/v1/images/edits", "/v1/images/variations")
_GATE_TIMEOUT: Final = 10.0
SPEECH: Final = "/v1/audio/speech"
WRITTEN: Final = ("/v1/audio/transcriptions", "/v1/audio/translations")
VIDEOS: Final = "/v1/videos"

_RATE: Final = 8_000
_IMAGE_IN: Final = 194


@dataclass(frozen=True, slots=True)
class Upload:
    """Hold one file of a form, as it arrived."""

    field: str
    name: str | None
    content_type: str
    content: bytes


def silence(seconds: float) -> bytes:
    """Return a WAV file of so many seconds: 8 kHz, mono, 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(_RATE)
        recording.writeframes(b"\0\0" * round(seconds * _RATE))
    return file.getvalue()


class MediaServer(OpenAIServer):
    """Serve images, speech, transcriptions, translations and videos too, and bill them as OpenAI does.

    What is billed is in the record: `{"images": n, "size": ..., "quality": ...}`, `{"characters": n}`,
    `{"seconds": n}`, for videos with the size, or a usage in tokens.

    Attributes:
        uploads: the files of each request with a form, in order of arrival.
        image_tokens: billed for one image, where images are billed in tokens.
        thought_tokens: text tokens billed with it.
        spoken_seconds: how long every speech lasts.
        transcript: what every recording says.
        status: answer with this error status instead, if it is one.
        gate: streams wait for it after their first event, if there is one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.uploads: list[list[Upload]] = []
        self.image_tokens = 1_056
        self.thought_tokens = 0
        self.spoken_seconds = 2.0
        self.transcript = "Hello to all the people in the room."
        self.status = 200
        self.gate: threading.Event | None = None
        self._jobs: dict[str, dict[str, Any]] = {}

    def _handle(self, connection: Connection, request: HTTPRequest) -> None:
        path = unquote(urlsplit(request.target).path)
        if path not in (*IMAGES, SPEECH, *WRITTEN, VIDEOS) and not path.startswith(VIDEOS + "/"):
            super()._handle(connection, request)
            return
        fields, files = _form(request)
        self.uploads.append(files)
        record = self._journal.arrive(request.method, path, fields, request.headers)
        answer = _Answer(connection, Exchange(connection, self._journal, record, self._stopping), self)
        try:
            if self.status >= 400:
                answer.exchange.send(self.status, shapes.error_body(self.status, "no"))
            elif path in IMAGES:
                answer.images(fields, files)
            elif path == SPEECH:
                answer.speech(fields)
            elif path in WRITTEN:
                answer.transcription(fields, files)
            else:
                answer.video(self._jobs, fields)
        finally:
            self._journal.leave()

    def bill(self, number: int, billed: Mapping[str, Any]) -> None:
        """Note what a request costs."""
        self._journal.update(number, status=200, billed=billed, completed=True)

    def tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return self._count_tokens(text)


class _Answer:
    def __init__(self, connection: Connection, exchange: Exchange, server: MediaServer) -> None:
        self._connection = connection
        self._server = server
        self._record: RecordedRequest = exchange.record
        self.exchange = exchange

    def _send(self, data: bytes, kind: str) -> None:
        self._connection.send_response(200, {"content-type": kind}, data)

    def _json(self, payload: Mapping[str, Any]) -> None:
        self._send(to_json(payload), "application/json")

    def _stream(self, events: Iterator[Mapping[str, Any]]) -> None:
        self._connection.start_stream({"content-type": "text/event-stream"})
        for event in events:
            self._connection.send_chunk(b"data: " + to_json(event) + b"\n\n")
            if self._server.gate is not None:
                self._server.gate.wait(_GATE_TIMEOUT)
        self._connection.send_chunk(b"data: [DONE]\n\n", last=True)

    def _bill(self, billed: Mapping[str, Any]) -> None:
        self._server.bill(self._record.number, billed)

    def images(self, fields: Mapping[str, Any], files: list[Upload]) -> None:
        n = int(fields.get("n") or 1)
        if fields["model"].startswith("dall-e"):
            self._bill(
                {
                    "images": n,
                    "size": fields.get("size") or "1024x1024",
                    "quality": fields.get("quality") or "standard",
                }
            )
            self._json({"created": 1, "data": [{"url": "http://127.0.0.1/image.png"}] * n})
            return
        words, seen = self._server.tokens(str(fields.get("prompt") or "")), _IMAGE_IN * len(files)
        partial = int(fields.get("partial_images") or 0)
        drawn = (self._server.image_tokens + 100 * partial) * n
        thought = self._server.thought_tokens * n
        usage = {
            "input_tokens": words + seen,
            "input_tokens_details": {"text_tokens": words, "image_tokens": seen},
            "output_tokens": drawn + thought,
            "output_tokens_details": {"image_tokens": drawn, "text_tokens": thought},
            "total_tokens": words + seen + drawn + thought,
        }
        self._bill(usage)
        image = base64.b64encode(b"an image").decode()
        if str(fields.get("stream")).lower() != "true":
            self._json({"created": 1, "data": [{"b64_json": image}] * n, "usage": usage})
            return
        kind = "image_edit" if files else "image_generation"
        common = {
            "b64_json": image,
            "background": "opaque",
            "created_at": 1,
            "output_format": "png",
            "quality": "medium",
            "size": "1024x1024",
        }

        def events() -> Iterator[Mapping[str, Any]]:
            for index in range(partial):
                yield {"type": f"{kind}.partial_image", "partial_image_index": index, **common}
            yield {"type": f"{kind}.completed", "usage": usage, **common}

        self._stream(events())

    def speech(self, fields: Mapping[str, Any]) -> None:
        server = self._server
        if fields["model"].startswith("tts-"):
            self._bill({"characters": len(fields["input"])})
        else:
            heard = server.tokens(fields["input"]) + server.tokens(fields.get("instructions") or "")
            spoken = math.ceil(server.spoken_seconds * 20)
            usage = {"input_tokens": heard, "output_tokens": spoken, "total_tokens": heard + spoken}
            self._bill(usage)
            if fields.get("stream_format") == "sse":
                audio = base64.b64encode(silence(server.spoken_seconds)).decode()
                self._stream(
                    iter(
                        [
                            {"type": "speech.audio.delta", "audio": audio},
                            {"type": "speech.audio.done", "usage": usage},
                        ]
                    )
                )
                return
        data = silence(server.spoken_seconds)
        if fields.get("response_format") == "pcm":
            data = data[44:]
        self._send(data, "audio/wav")

    def transcription(self, fields: Mapping[str, Any], files: list[Upload]) -> None:
        with wave.open(io.BytesIO(files[0].content)) as recording:
            length = recording.getnframes() / recording.getframerate()
        text, wanted = self._server.transcript, fields.get("response_format") or "json"
        usage: dict[str, Any]
        if fields["model"] == "whisper-1":
            usage = {"type": "duration", "seconds": math.ceil(length)}
            self._bill({"seconds": math.ceil(length)})
        else:
            told = self._server.tokens(fields.get("prompt") or "")
            heard, written = math.ceil(length * 10), self._server.tokens(text)
            usage = {
                "type": "tokens",
                "input_tokens": heard + told,
                "input_token_details": {"audio_tokens": heard, "text_tokens": told},
                "output_tokens": written,
                "total_tokens": heard + told + written,
            }
            self._bill(usage)
        if str(fields.get("stream")).lower() == "true":
            words = [{"type": "transcript.text.delta", "delta": word + " "} for word in text.split()]
            self._stream(iter([*words, {"type": "transcript.text.done", "text": text, "usage": usage}]))
        elif wanted == "text":
            self._send(text.encode(), "text/plain")
        elif wanted == "verbose_json":
            self._json({"text": text, "language": "english", "duration": length, "usage": usage})
        elif self._record.path == WRITTEN[1]:
            self._json({"text": text})
        else:
            self._json({"text": text, "usage": usage})

    def video(self, jobs: dict[str, dict[str, Any]], fields: Mapping[str, Any]) -> None:
        parts = self._record.path.removeprefix(VIDEOS).strip("/").split("/")
        if self._record.method == "POST" and parts == [""]:
            job = {
                "id": f"video_{self._record.number}",
                "object": "video",
                "created_at": 1,
                "model": fields["model"],
                "progress": 0,
                "seconds": str(fields.get("seconds") or "4"),
                "size": fields.get("size") or "720x1280",
                "status": "queued",
            }
            jobs[job["id"]] = job
            self._bill({"seconds": int(job["seconds"]), "size": job["size"]})
            self._json(job)
        elif parts[1:] == ["content"]:
            self._send(b"a video", "video/mp4")
        else:
            self._json({**jobs[parts[0]], "status": "completed", "progress": 100})


def _form(request: HTTPRequest) -> tuple[dict[str, Any], list[Upload]]:
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return json.loads(request.body) if request.body else {}, []
    head = f"Content-Type: {kind}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    fields: dict[str, Any] = {}
    files: list[Upload] = []
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename() is None:
            fields[name] = content.decode()
        else:
            files.append(Upload(name, part.get_filename(), part.get_content_type(), content))
    return fields, files
