"""The whole fake of OpenAI's API: every endpoint, tool calls, errors, hang-ups, and what was billed.

    with OpenAIServer(reply=[Reply(status=429, retry_after=0.001), "Hello!"]) as server:
        with OpenAI(base_url=server.base_url, api_key="test") as client:
            client.chat.completions.create(model="gpt-4o-mini", messages=[...])
        assert server.count() == 2
        assert server.billed[-1]["completion_tokens"] == 2

It speaks HTTP over a real socket, so that a client, its retries, its streams and its connection pool
run as they do against the provider. Nothing leaves the machine: it listens on 127.0.0.1 only.

Endpoints: `/v1/chat/completions`, `/v1/completions`, `/v1/responses` (with `/compact`, `/input_tokens`, and
`/{id}` and `/{id}/cancel` for those in the background), `/v1/embeddings`, `/v1/moderations`, `/v1/models`,
`/v1/files`, `/v1/batches` (which end when a test says so, by `server.batches.end(id)`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from budgetguard.errors import ConfigurationError
from budgetguard.testing.openai_server import TokenCounter, count_by_length, error_body, script_exhausted
from tests.provider import shapes
from tests.provider.background import BackgroundResponses
from tests.provider.batches import Batches
from tests.provider.checks import problem_of
from tests.provider.connection import Connection, HTTPRequest
from tests.provider.exchange import POLL, Exchange
from tests.provider.files import Files
from tests.provider.journal import Journal, RecordedRequest
from tests.provider.reply import CHAT, COMPLETIONS, INPUT_COUNTS, RESPONSES, Reply, draft, prompt_tokens

__all__ = ["OpenAIServer", "RecordedRequest", "Reply", "count_by_length"]

Script: TypeAlias = str | Reply | Callable[[dict[str, Any]], str | Reply] | Iterable[str | Reply]

MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "o4-mini",
    "gpt-5",
    "gpt-5-mini",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "omni-moderation-latest",
)

_MODELS_PATH = "/v1/models"
_STOP_TIMEOUT = 5.0
_STREAMED = (CHAT, COMPLETIONS, RESPONSES)


class OpenAIServer:
    """Answer as OpenAI's API does, by a script, and record what was billed.

    Billing: a plain answer is billed in full before it is sent, so also if nobody waits for it; a stream
    is billed for its input and for the chunks that were sent before it broke off; an error is free. The
    record of a plain answer is final when the client has it; that of a stream when the client has seen
    its end. After hanging up early, wait for it with `wait_idle()`.

    Args:
        reply: what to answer: a text, a `Reply`, a function from the request's body to one of these, or a
            list or iterator of them, used in turn; every valid POST takes one. A request beyond the end
            gets a 400 that says so (see `itertools.repeat` and `cycle`). None answers with a greeting.
        count_tokens: counts the tokens of a text. The default needs no tokenizer.
        models: what `/v1/models` lists. Any model name is answered.
        port: 0 for any free one.

    Attributes:
        count_refusal: what `/v1/responses/input_tokens` is refused with; None counts.
    """

    def __init__(
        self,
        reply: Script | None = None,
        *,
        count_tokens: TokenCounter = count_by_length,
        models: Sequence[str] = MODELS,
        port: int = 0,
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
        self.count_refusal: Reply | None = None
        self._models = tuple(models)
        self._background = BackgroundResponses()
        self.files = Files()
        self.batches = Batches(self.files, self._full_reply, count_tokens, self._journal)

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
        path = record.path
        exchange = Exchange(connection, self._journal, record, self._stopping)
        if request.method == "GET" and (path == _MODELS_PATH or path.startswith(_MODELS_PATH + "/")):
            exchange.send(*self._list_models(path))
        elif self.files.knows(path):
            self.files.serve(exchange, request)
        elif self.batches.knows(path):
            self.batches.serve(exchange, body)
        elif path == INPUT_COUNTS:
            self._count_input(exchange, body or {})
        elif self._background.knows(request.method, path):
            self._background.serve(exchange, urlsplit(request.target).query)
        else:
            self._post(exchange, body)

    def _list_models(self, path: str) -> tuple[int, dict[str, Any]]:
        if path == _MODELS_PATH:
            return 200, {"object": "list", "data": [shapes.model_card(name) for name in self._models]}
        name = path.removeprefix(_MODELS_PATH + "/")
        if name in self._models:
            return 200, shapes.model_card(name)
        return 404, shapes.error_body(404, f"The model '{name}' does not exist", param="model")

    def _count_input(self, exchange: Exchange, body: dict[str, Any]) -> None:
        if self.count_refusal is not None:
            exchange.refuse(self.count_refusal)
            return
        tokens = prompt_tokens(RESPONSES, body, self._count_tokens)
        exchange.send(200, {"object": "response.input_tokens", "input_tokens": tokens})

    def _post(self, exchange: Exchange, body: dict[str, Any] | None) -> None:
        record = exchange.record
        problem = problem_of(record, body)
        if problem is not None:
            exchange.send(*problem)
            return
        assert body is not None
        try:
            reply = self._full_reply(body)
        except StopIteration:
            exchange.send(400, script_exhausted(record.number))
            return
        if reply.status >= 400:
            exchange.refuse(reply)
            return
        planned = draft(record.path, record.number, body, reply, self._count_tokens)
        if record.path == RESPONSES and body.get("background") is True:
            planned = self._background.begin(planned, reply)
        if record.streamed and record.path in _STREAMED:
            exchange.stream(reply, planned, body)
        else:
            exchange.answer(reply, planned, body)

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

    def _full_reply(self, body: dict[str, Any]) -> Reply:
        made = self._next_reply(body)
        return Reply(text=made) if isinstance(made, str) else made


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
