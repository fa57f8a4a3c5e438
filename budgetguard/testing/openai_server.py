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
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from budgetguard.errors import ConfigurationError
from budgetguard.testing._exchange import POLL, Exchange, to_json
from budgetguard.testing._http import Connection, HTTPRequest
from budgetguard.testing._journal import Journal, RecordedRequest

__all__ = ["OpenAIServer", "RecordedRequest", "Reply", "count_by_length"]

TokenCounter: TypeAlias = Callable[[str], int]

CHAT: Final = "/v1/chat/completions"
DEFAULT_TEXT: Final = "Hello! How can I help you today?"
# 2025-01-01T00:00:00Z: the same in every run, so that recorded answers can be compared.
CREATED: Final = 1_735_689_600
_STOP_TIMEOUT = 5.0


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
        self._reply: str | Reply | Callable[[dict[str, Any]], str | Reply] | None = None
        self._replies: Iterator[str | Reply] = iter(())
        if reply is None:
            self._reply = Reply()
        elif isinstance(reply, str | Reply) or callable(reply):
            self._reply = reply
        else:
            self._replies = iter(reply)
        self._count_tokens = count_tokens
        self._wanted_port = port
        self._journal = Journal()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._port = 0
        self._acceptor: threading.Thread | None = None
        self._workers: dict[threading.Thread, Connection] = {}

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> OpenAIServer:
        """Listen and return; a server starts once.

        Raises:
            ConfigurationError: it was started before.
            OSError: the port is taken.
        """
        if self._listener is not None:
            raise ConfigurationError("this OpenAIServer was started before; make a new one to start again")
        self._listener = socket.create_server(("127.0.0.1", self._wanted_port), backlog=1024)
        self._port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="openai-server", daemon=True)
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Break off every connection and stop listening, at once also with requests that hang."""
        if self._listener is None or self._stopping.is_set():
            return
        self._stopping.set()
        # A thread blocked in accept() wakes up reliably on every system only for a connection.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        if self._acceptor is not None:
            self._acceptor.join(_STOP_TIMEOUT)
        self._listener.close()
        with self._lock:
            workers = dict(self._workers)
        for connection in workers.values():
            connection.abort()
        deadline = time.monotonic() + _STOP_TIMEOUT
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> OpenAIServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what it saw --------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The server's address, such as `http://127.0.0.1:41234`.

        Raises:
            ConfigurationError: it was not started.
        """
        if not self._port:
            raise ConfigurationError("this OpenAIServer has no address yet; use `with` or call start()")
        return f"http://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        """What a client takes as its `base_url`."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request so far, in order of arrival, those in flight too."""
        return self._journal.snapshot()

    @property
    def billed(self) -> list[dict[str, Any]]:
        """The usage of every request that was billed, in order of arrival."""
        return [dict(record.billed) for record in self._journal.snapshot() if record.billed is not None]

    @property
    def in_flight(self) -> int:
        """How many requests the server is not done with."""
        return self._journal.in_flight()

    def count(self, path: str | None = None) -> int:
        """Count the requests that arrived, of one path (such as `/v1/embeddings`) or of all."""
        return self._journal.count(path)

    def wait_count(self, count: int, path: str | None = None, *, timeout: float = 10.0) -> bool:
        """Wait until so many requests have arrived; False if `timeout` seconds were not enough."""
        return self._journal.wait_count(count, path, timeout)

    def wait_idle(self, *, timeout: float = 10.0) -> bool:
        """Wait until no request is in flight; False if `timeout` seconds were not enough."""
        return self._journal.wait_idle(timeout)

    # --- connections --------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                # Out of descriptors, or the client is gone again: the listener itself lives on.
                if self._stopping.wait(POLL):
                    return
                continue
            if self._stopping.is_set():
                sock.close()
                return
            connection = Connection(sock)
            worker = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._workers[worker] = connection
            worker.start()

    def _serve(self, connection: Connection) -> None:
        try:
            while not self._stopping.is_set():
                request = connection.read_request()
                if request is None:
                    return
                self._handle(connection, request)
                if request.close:
                    return
        except OSError:
            return  # the client hung up, or stop() did: its request says so in its record
        finally:
            connection.close()
            with self._lock:
                self._workers.pop(threading.current_thread(), None)

    def _handle(self, connection: Connection, request: HTTPRequest) -> None:
        path = unquote(urlsplit(request.target).path)
        body = _object(request.body)
        record = self._journal.arrive(request.method, path, body or {}, request.headers)
        try:
            self._answer(connection, record, request, body)
        except OSError:
            raise  # the client is gone: nobody to answer
        except BaseException:
            # A script that fails is a fault of the test: tell the client at once, and stay loud here.
            exchange = Exchange(connection, self._journal, record, self._stopping)
            exchange.send(500, error_body("the server's script failed"), {"x-should-retry": "false"})
            raise
        finally:
            self._journal.leave()

    def _answer(
        self,
        connection: Connection,
        record: RecordedRequest,
        request: HTTPRequest,
        body: dict[str, Any] | None,
    ) -> None:
        """Answer one request; a server of more endpoints overrides this."""
        exchange = Exchange(connection, self._journal, record, self._stopping)
        if record.path != CHAT or record.method != "POST":
            exchange.send(404, error_body(f"Invalid URL ({record.method} {record.path})", code="unknown_url"))
            return
        if body is None or not isinstance(body.get("model"), str) or not _are_messages(body.get("messages")):
            text = "A chat completion needs a JSON object with 'model' and 'messages'."
            exchange.send(400, error_body(text, code="invalid_request"))
            return
        try:
            reply = self._next_reply(body)
        except StopIteration:
            exchange.send(400, script_exhausted(record))
            return
        reply = Reply(text=reply) if isinstance(reply, str) else reply
        _send_chat(exchange, reply, body, self._count_tokens)

    def _next_reply(self, body: dict[str, Any]) -> str | Reply:
        script = self._reply
        if script is None:
            with self._lock:
                return next(self._replies)
        if isinstance(script, str | Reply):
            return script
        try:
            return script(body)
        except OSError as error:
            # Here an OSError would pass for a client that hung up, and nobody would hear of it.
            raise ConfigurationError(f"the server's reply function failed: {error!r}") from error


def _send_chat(exchange: Exchange, reply: Reply, body: Mapping[str, Any], count: TokenCounter) -> None:
    text = DEFAULT_TEXT if reply.text is None else reply.text
    full = count(text) if reply.completion_tokens is None else reply.completion_tokens
    caps = [body[name] for name in ("max_completion_tokens", "max_tokens") if isinstance(body.get(name), int)]
    output = min([full, *caps])
    if output < full:
        text = text[: len(text) * output // full]
    prompt = chat_prompt_tokens(body, count) if reply.prompt_tokens is None else reply.prompt_tokens
    choices, finish = int(body.get("n") or 1), "length" if output < full else "stop"
    head = {"id": f"chatcmpl-{exchange.record.number:06d}", "created": CREATED, "model": body["model"]}
    if exchange.record.streamed:
        pieces = re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text)
        _stream_chat(exchange, head, pieces, (prompt, output, choices, finish), reply.delay, body)
        return
    message = {"role": "assistant", "content": text, "refusal": None}
    usage = _usage(prompt, choices * output)
    answers = [{"index": index, "message": message, "finish_reason": finish} for index in range(choices)]
    # Billed before any pause: the provider works on while nobody listens.
    exchange.update(status=200, billed=usage)
    exchange.pause(reply.delay)
    exchange.send(200, {**head, "object": "chat.completion", "choices": answers, "usage": usage})


def _stream_chat(
    exchange: Exchange,
    head: dict[str, Any],
    pieces: Sequence[str],
    numbers: tuple[int, int, int, str],
    delay: float,
    body: Mapping[str, Any],
) -> None:
    prompt, output, choices, finish = numbers
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    head = {**head, "object": "chat.completion.chunk", **({"usage": None} if asked else {})}

    def send(choice: int, delta: dict[str, Any], finish: str | None = None) -> None:
        payload = {**head, "choices": [{"index": choice, "delta": delta, "finish_reason": finish}]}
        exchange.send_event(_event(payload))

    exchange.update(status=200, billed=_usage(prompt, 0))
    exchange.pause(delay)
    exchange.start_stream()
    for choice in range(choices):
        send(choice, {"role": "assistant", "content": ""})
    for index, piece in enumerate(pieces):
        for choice in range(choices):
            send(choice, {"content": piece})
            sent = index * choices + choice + 1
            exchange.update(billed=_usage(prompt, -(-output * sent // len(pieces))))
    for choice in range(choices):
        send(choice, {}, finish)
    usage = _usage(prompt, choices * output)
    if asked:
        exchange.send_event(_event({**head, "choices": [], "usage": usage}))
    exchange.update(billed=usage, completed=True)
    exchange.send_event(b"data: [DONE]\n\n", last=True)


def _event(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + to_json(payload) + b"\n\n"


def _usage(prompt: int, output: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


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


def script_exhausted(record: RecordedRequest) -> dict[str, Any]:
    """Return the error for a request beyond the script's end."""
    text = f"the server's script has no reply for request {record.number}; give it more replies"
    return error_body(text, code="script_exhausted")


def _are_messages(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and all(isinstance(one, dict) for one in given)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
