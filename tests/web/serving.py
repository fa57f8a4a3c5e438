"""Web servers over real sockets, in threads of this process, and an application's books."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx2
import uvicorn
from openai import AsyncOpenAI, OpenAI

from budgetguard import Guard, budget_tags, current_user
from tests.provider.server import OpenAIServer, Reply

MODEL = "gpt-4o-mini"
SECRET = "the prompt that nobody may read"
USERS = ("alice", "bob", "carol", "dave")


class Books:
    """What an application under test calls its model with, and who has paid.

    Each call is tagged with who should pay for it, so that no call can be charged to another unseen.
    """

    def __init__(self, provider: OpenAIServer, guard: Guard) -> None:
        self.provider = provider
        self.guard = guard
        options: dict[str, Any] = {"base_url": provider.base_url, "api_key": "not-a-key", "max_retries": 0}
        self.client = guard.wrap(OpenAI(**options))
        self.aclient = guard.wrap(AsyncOpenAI(**options))

    def _request(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": SECRET}]
        return {"model": MODEL, "messages": messages, "max_completion_tokens": 20}

    def ask(self, who: str) -> str:
        """Make a call that `who` should pay for; return who is current."""
        with budget_tags(who):
            self.client.chat.completions.create(**self._request())
        return str(current_user())

    async def aask(self, who: str) -> str:
        with budget_tags(who):
            await self.aclient.chat.completions.create(**self._request())
        return str(current_user())

    def words(self, who: str) -> Iterator[str]:
        """Stream an answer's words; the call is made at the first step."""
        with budget_tags(who):
            stream = self.client.chat.completions.create(**self._request(), stream=True)
        for chunk in stream:
            if chunk.choices and (word := chunk.choices[0].delta.content):
                yield word

    async def awords(self, who: str) -> AsyncIterator[str]:
        with budget_tags(who):
            stream = await self.aclient.chat.completions.create(**self._request(), stream=True)
        async for chunk in stream:
            if chunk.choices and (word := chunk.choices[0].delta.content):
                yield word

    def paid(self) -> Counter[str | None]:
        """Return how many calls each user has paid, and see that each was that user's."""
        gc.collect()  # streams of clients that were left
        self.guard.flush()
        calls = [call for call in self.guard.calls() if call.state != "voided"]
        assert all(call.state == "settled" for call in calls), [call.state for call in calls]
        wrong = [(call.user, call.tags) for call in calls if call.tags != (str(call.user),)]
        assert not wrong, f"(who paid, who should have): {wrong}"
        return Counter(call.user for call in calls)


@contextlib.contextmanager
def books(reply: Reply | None = None, **settings: Any) -> Iterator[Books]:
    """Open books in which four users have a dollar, and `broke` has nothing."""
    reply = reply or Reply("one two three", prompt_tokens=10, completion_tokens=3)
    guard = Guard(store="memory://", project="p", spool=None, **settings)
    for user in USERS:
        guard.set_budget(1, user=user)
    guard.set_budget(0, user="broke")
    with OpenAIServer(reply) as provider:
        found = Books(provider, guard)
        yield found
        found.client.close()
        guard.close()


@contextlib.contextmanager
def serve_asgi(app: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application with uvicorn, and yield its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", access_log=False, log_config=None, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
        assert not thread.is_alive(), "the server did not stop"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def serve_wsgi(app: Any) -> Iterator[str]:
    """Serve a WSGI application with the standard library, a thread each, and yield its address."""
    with make_server("127.0.0.1", 0, app, _Server, _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(timeout=20)


def client(url: str, user: str | None = None, **options: Any) -> httpx2.Client:
    """Return a client of a server, who says who it is."""
    headers = {} if user is None else {"x-user": user}
    return httpx2.Client(base_url=url, headers=headers, timeout=30, **options)


def check_problem(response: httpx2.Response, status: int, error: str) -> dict[str, Any]:
    """See that a response is a problem document, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert (document["status"], document["error"]) == (status, error)
    assert document["title"]
    assert SECRET not in response.text
    return document
