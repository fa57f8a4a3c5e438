"""Who pays for what a web framework does at a request: in its endpoint, its body, and after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from budgetguard import Guard, MissingUserError, budget_user
from tests.guarded_calls import HELLO, MODEL, completion, make_guard


class PlainPayer:
    """A middleware of plain ASGI, as docs/web.md shows it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with budget_user(Request(scope).headers["x-user"]):
            await self.app(scope, receive, send)


class HttpPayer(BaseHTTPMiddleware):
    """Starlette's own kind, which has its response before the body is streamed."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        with budget_user(request.headers["x-user"]):
            answer: Response = await call_next(request)
            return answer


@pytest.mark.parametrize(
    ("middleware", "late"), [(PlainPayer, ["alice", "bob"]), (HttpPayer, ["refused", "refused"])]
)
def test_each_call_is_its_own_request_s_or_refused(middleware: Any, late: list[str]) -> None:
    guard, afterwards = make_guard(), list[str]()
    guard.set_budget(1)
    for user in ("alice", "bob"):
        guard.set_budget(1, user=user)
    who = payer(guard)

    async def body() -> Any:
        yield await asyncio.create_task(as_task())
        yield who()

    async def as_task() -> str:
        return who()

    async def endpoint(request: Request) -> Response:
        if request.url.path == "/stream":
            await asyncio.sleep(0)
            return StreamingResponse(body())
        return PlainTextResponse(who(), background=BackgroundTask(lambda: afterwards.append(who())))

    def in_a_thread(request: Request) -> Response:
        return StreamingResponse(steps(request.headers["x-user"]))

    def steps(user: str) -> Iterator[str]:
        with budget_user(user):
            yield who()
            yield who()

    routes = [Route("/", endpoint), Route("/stream", endpoint), Route("/thread", in_a_thread)]
    app = Starlette(routes=routes)
    app.add_middleware(middleware)
    with TestClient(app) as client:
        for number, user in enumerate(("alice", "bob")):
            got = {
                path: client.get(path, headers={"x-user": user}).text for path in ("/", "/thread", "/stream")
            }
            assert got == {"/": user, "/thread": 2 * user, "/stream": 2 * late[number]}
    assert afterwards == late


def payer(guard: Guard) -> Any:
    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    def who() -> str:
        before = {user: guard.balance(user).spent for user in ("alice", "bob")}
        try:
            ask(HELLO)
        except MissingUserError:
            return "refused"
        return next(user for user, spent in before.items() if guard.balance(user).spent != spent)

    return who
