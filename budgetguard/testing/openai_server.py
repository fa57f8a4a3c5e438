"""A server on loopback that answers chat completions as OpenAI's API does, and records what it billed.

    with OpenAIServer(reply=["Hello!", Reply(completion_tokens=500)]) as server:
        with OpenAI(base_url=server.base_url, api_key="test") as client:
            client.chat.completions.create(model="gpt-4o-mini", messages=[...])
        assert server.billed[-1]["completion_tokens"] == 2

It speaks HTTP over a real socket, so that a client, its retries, its streams and its connection pool
run as they do against the provider. Nothing leaves the machine: it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from budgetguard.errors import ConfigurationError

__all__ = ["OpenAIServer", "RecordedRequest", "Reply", "count_by_length"]

TokenCounter: TypeAlias = Callable[[str], int]

CHAT: Final = "/v1/chat/completions"
DEFAULT_TEXT: Final = "Hello! How can I help you today?"
# 2025-01-01T00:00:00Z: the same in every run, so that recorded answers can be compared.
CREATED: Final = 1_735_689_600
_POLL: Final = 0.02


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to one request.

    Attributes:
        text: the answer's text; None is `DEFAULT_TEXT`.
        prompt_tokens: billed input tokens; None counts them.
        completion_tokens: billed output tokens of each choice, before a cap in the request; None counts
            the text.
        delay: seconds to wait before answering.
    """

    text: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    delay: float = 0.0


Script: TypeAlias = str | Reply | Callable[[dict[str, Any]], str | Reply] | Iterable[str | Reply]


def count_by_length(text: str) -> int:
    """Count one token per 4 characters, rounded up: cheap, the same everywhere, needs no tokenizer."""
    return -(-len(text) // 4)


@dataclass(slots=True)
class RecordedRequest:
    """One request that reached the server.

    Attributes:
        number: 1 for the first request, in order of arrival.
        method: such as `POST`.
        path: such as `/v1/chat/completions`, without a query.
        body: the request's JSON object; empty if it had none.
        status: the HTTP status decided on, or None as long as there is none.
        billed: the usage that the provider charges for; None for a request that costs nothing. It is charged
            whether or not the answer says so.
        completed: the whole answer was handed to the network.
    """

    number: int
    method: str
    path: str
    body: dict[str, Any]
    status: int | None = None
    billed: dict[str, Any] | None = None
    completed: bool = False


class OpenAIServer:
    """Answer `/v1/chat/completions` by a script, plain and streamed, and record what was billed.

    Billing: a plain answer is billed in full before it is sent, so also if nobody waits for it; a stream
    is billed for its input and for the chunks that were sent before it broke off; an error is free. The
    record of a plain answer is final when the client has it; that of a stream when the client has seen
    its end. After hanging up early, wait for it with `wait_idle()`.

    Args:
        reply: what to answer: a text, a `Reply`, a function from the request's body to one of these, or a
            list or iterator of them, used in turn; every valid POST takes one. A request beyond the end
            gets a 400 that says so (see `itertools.repeat` and `cycle`). None answers with a greeting.
        count_tokens: counts the tokens of a text. The default needs no tokenizer.
        port: 0 for any free one.
    """

    def __init__(
        self, reply: Script | None = None, *, count_tokens: TokenCounter = count_by_length, port: int = 0
    ) -> None:
        self.requests: list[RecordedRequest] = []
        """Every request so far, in order of arrival, those in flight too."""
        self.count_tokens = count_tokens
        self.stopping = threading.Event()
        self._script: str | Reply | Callable[[dict[str, Any]], str | Reply] | None = None
        self._replies: Iterator[str | Reply] = iter(())
        if reply is None or isinstance(reply, str | Reply) or callable(reply):
            self._script = Reply() if reply is None else reply
        else:
            self._replies = iter(reply)
        self._wanted_port = port
        self._listener: _Listener | None = None
        self._changed = threading.Condition()
        self._in_flight = 0

    def start(self) -> OpenAIServer:
        """Listen and return; a server starts once.

        Raises:
            ConfigurationError: it was started before.
            OSError: the port is taken.
        """
        if self._listener is not None:
            raise ConfigurationError("this OpenAIServer was started before; make a new one to start again")
        self._listener = _Listener(self, self._wanted_port)
        loop = self._listener.serve_forever
        threading.Thread(target=loop, args=(_POLL,), name="openai-server", daemon=True).start()
        return self

    def stop(self) -> None:
        """Break off every connection and stop listening, at once also with answers that wait."""
        if self._listener is not None and not self.stopping.is_set():
            self.stopping.set()
            self._listener.shutdown()
            self._listener.server_close()

    def __enter__(self) -> OpenAIServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The server's address, such as `http://127.0.0.1:41234`.

        Raises:
            ConfigurationError: it was not started.
        """
        if self._listener is None:
            raise ConfigurationError("this OpenAIServer has no address yet; use `with` or call start()")
        return f"http://127.0.0.1:{self._listener.server_port}"

    @property
    def base_url(self) -> str:
        """What a client takes as its `base_url`."""
        return f"{self.url}/v1"

    @property
    def billed(self) -> list[dict[str, Any]]:
        """The usage of every request that was billed, in order of arrival."""
        return [record.billed for record in list(self.requests) if record.billed is not None]

    def wait_idle(self, *, timeout: float = 10.0) -> bool:
        """Wait until no request is in flight; False if `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._in_flight, timeout)

    @contextlib.contextmanager
    def arrived(self, method: str, path: str, body: dict[str, Any]) -> Iterator[RecordedRequest]:
        """Record a request, which is in flight until the block ends."""
        with self._changed:
            record = RecordedRequest(len(self.requests) + 1, method, path, body)
            self.requests.append(record)
            self._in_flight += 1
        try:
            yield record
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def next_reply(self, body: dict[str, Any]) -> Reply:
        """Return the reply to a request.

        Raises:
            StopIteration: the script has come to its end.
        """
        script = self._script
        if script is None:
            with self._changed:
                script = next(self._replies)
        found = script(body) if callable(script) else script
        return Reply(text=found) if isinstance(found, str) else found


class _Listener(ThreadingHTTPServer):
    request_queue_size = 1024

    def __init__(self, server: OpenAIServer, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.owner = server
        self.open: set[socket.socket] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # else a client has hung up
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it


class _Handler(BaseHTTPRequestHandler):
    """One connection, and the requests that come over it."""

    protocol_version = "HTTP/1.1"
    # Without it the last small chunk of a stream waits for the peer's delayed ACK: 40 ms.
    disable_nagle_algorithm = True
    server: _Listener
    usual: ClassVar = {"openai-version": "2020-10-01", "openai-processing-ms": "1"}

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Write nothing: what was asked is recorded."""

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = _object(self.rfile.read(int(self.headers.get("content-length", 0))))
        path = unquote(urlsplit(self.path).path)
        with self.server.owner.arrived(self.command, path, body or {}) as record:
            try:
                self._answer(record, body)
            except OSError:  # the client is gone, or the server stops: the record says so
                self.close_connection = True

    def _answer(self, record: RecordedRequest, body: dict[str, Any] | None) -> None:
        if record.path != CHAT or record.method != "POST":
            text = f"Invalid URL ({record.method} {record.path})"
            return self._send(record, 404, error_body(text, code="unknown_url"))
        if body is None or not isinstance(body.get("model"), str) or not _are_messages(body.get("messages")):
            text = "A chat completion needs a JSON object with 'model' and 'messages'."
            return self._send(record, 400, error_body(text, code="invalid_request"))
        try:
            reply = self.server.owner.next_reply(body)
        except StopIteration:
            return self._send(record, 400, script_exhausted(record.number))
        except BaseException:
            # A script that fails is a fault of the test: tell the client at once, and stay loud here.
            self._send(record, 500, error_body("the server's script failed"), {"x-should-retry": "false"})
            raise
        return self._send_chat(record, reply, body)

    def _send_chat(self, record: RecordedRequest, reply: Reply, body: Mapping[str, Any]) -> None:
        count = self.server.owner.count_tokens
        text = DEFAULT_TEXT if reply.text is None else reply.text
        full = count(text) if reply.completion_tokens is None else reply.completion_tokens
        names = ("max_completion_tokens", "max_tokens")
        output = min([full, *(body[name] for name in names if isinstance(body.get(name), int))])
        if output < full:
            text = text[: len(text) * output // full]
        prompt = chat_prompt_tokens(body, count) if reply.prompt_tokens is None else reply.prompt_tokens
        choices, finish = int(body.get("n") or 1), "length" if output < full else "stop"
        head = {"id": f"chatcmpl-{record.number:06d}", "created": CREATED, "model": body["model"]}
        usage = _usage(prompt, choices * output)
        # Billed before any pause: the provider works on while nobody listens.
        record.status, record.billed = 200, _usage(prompt, 0) if body.get("stream") is True else usage
        self.server.owner.stopping.wait(reply.delay)
        if body.get("stream") is not True:
            message = {"role": "assistant", "content": text, "refusal": None}
            answers = [{"index": i, "message": message, "finish_reason": finish} for i in range(choices)]
            payload = {**head, "object": "chat.completion", "choices": answers, "usage": usage}
            return self._send(record, 200, payload)
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        head |= {"object": "chat.completion.chunk", **({"usage": None} if asked else {})}
        pieces = re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text)
        self._start(200, record, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for choice in range(choices):
            self._send_delta(head, choice, {"role": "assistant", "content": ""})
        for index, piece in enumerate(pieces):
            for choice in range(choices):
                self._send_delta(head, choice, {"content": piece})
                sent = index * choices + choice + 1
                record.billed = _usage(prompt, -(-output * sent // len(pieces)))
        for choice in range(choices):
            self._send_delta(head, choice, {}, finish)
        if asked:
            self._send_event(to_json({**head, "choices": [], "usage": usage}))
        record.billed, record.completed = usage, True
        self._send_event(b"[DONE]", end=b"0\r\n\r\n")

    def _start(self, status: int, record: RecordedRequest, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        named = {"x-request-id": f"req_{record.number:06d}", **self.usual, **headers}
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(
        self,
        record: RecordedRequest,
        status: int,
        payload: Mapping[str, Any],
        more: Mapping[str, str] | None = None,
    ) -> None:
        data = to_json(payload)
        record.status, record.completed = status, True  # before the client can know
        usual = {"content-type": "application/json", "content-length": str(len(data))}
        try:
            self._start(status, record, {**usual, **(more or {})})
            self.wfile.write(data)
        except OSError:
            record.completed = False
            raise

    def _send_delta(
        self, head: Mapping[str, Any], choice: int, delta: Mapping[str, Any], finish: str | None = None
    ) -> None:
        choices = [{"index": choice, "delta": delta, "finish_reason": finish}]
        self._send_event(to_json({**head, "choices": choices}))

    def _send_event(self, data: bytes, *, end: bytes = b"") -> None:
        event = b"data: %b\n\n" % data
        self.wfile.write(b"%x\r\n%b\r\n%b" % (len(event), event, end))


def _usage(prompt: int, output: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def to_json(payload: Mapping[str, Any]) -> bytes:
    """Write JSON as the API does: without spaces, in UTF-8."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def chat_prompt_tokens(body: Mapping[str, Any], count: TokenCounter) -> int:
    """Count the input tokens of a chat completion.

    3 per message + its role + its content + 1 and the name if it has one, and 3 at the end, as
    https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken has it. The cookbook's count
    of tools and schemas is not public for all models: here they are their compact JSON.
    """
    total = 3
    for message in body["messages"]:
        total += 3 + count(str(message.get("role", ""))) + count(text_of(message.get("content")))
        for call in message.get("tool_calls") or ():
            total += count(to_json(call.get("function", {})).decode())
        if message.get("name"):
            total += 1 + count(str(message["name"]))
    for word in ("tools", "response_format", "text"):
        if body.get(word):
            total += count(to_json(body[word]).decode())
    return total


def text_of(content: Any) -> str:
    """Return the text of a message's content, in one piece or in parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


def error_body(
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def script_exhausted(number: int) -> dict[str, Any]:
    """Return the error for a request of this number, beyond the script's end."""
    text = f"the server's script has no reply for request {number}; give it more replies"
    return error_body(text, code="script_exhausted")


def _are_messages(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(one, dict) for one in given)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
