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

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from budgetguard.testing import openai_server
from budgetguard.testing._http import Connection, HTTPRequest
from budgetguard.testing._journal import RecordedRequest
from budgetguard.testing.openai_server import TokenCounter, count_by_length, script_exhausted
from tests.provider import shapes
from tests.provider.background import BackgroundResponses
from tests.provider.batches import Batches
from tests.provider.checks import problem_of
from tests.provider.exchange import Exchange
from tests.provider.files import Files
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
_STREAMED = (CHAT, COMPLETIONS, RESPONSES)


class OpenAIServer(openai_server.OpenAIServer):
    """Answer as OpenAI's API does, by a script, and record what was billed.

    Args:
        reply: as for the small server; its replies can do more.
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
        super().__init__(Reply() if reply is None else reply, count_tokens=count_tokens, port=port)
        self.count_refusal: Reply | None = None
        self._models = tuple(models)
        self._background = BackgroundResponses()
        self.files = Files()
        self.batches = Batches(self.files, self._full_reply, count_tokens, self._journal)

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
            exchange.send(400, script_exhausted(record))
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

    def _full_reply(self, body: dict[str, Any]) -> Reply:
        made = self._next_reply(body)
        if isinstance(made, Reply):
            return made
        return Reply(text=made if isinstance(made, str) else made.text)
