"""The ASGI middleware, around a real Starlette on a real uvicorn: who pays, refusals, websockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTasks
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from budgetguard import BudgetExceededError, ConfigurationError, current_user
from budgetguard.integrations.asgi import BudgetAsgiMiddleware
from tests.provider.server import Reply

from .serving import SECRET, USERS, Books, books, check_problem, client, serve_asgi


class Application:
    """Calls in every place where an application may call."""

    def __init__(self, found: Books) -> None:
        self.books = found
        self.errors: list[BaseException] = []
        self.seen: list[str | None] = []
        self.left = threading.Event()
        self.app = Starlette(
            routes=[
                Route("/nothing", self.nothing),
                Route("/sync", self.sync),
                Route("/async", self.asynchronous),
                Route("/task", self.task),
                Route("/thread", self.thread),
                Route("/stream", self.stream),
                Route("/astream", self.astream),
                Route("/background", self.background),
                Route("/late", self.late),
                Route("/error", self.error),
                Route("/caught", self.caught),
                Route("/endless", self.endless),
                WebSocketRoute("/socket", self.socket),
                WebSocketRoute("/early", self.early),
            ],
            lifespan=self.lifespan,
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await self.books.aclient.close()

    @staticmethod
    def who(request: Any) -> str:
        return str(request.headers.get("x-user"))

    async def nothing(self, request: Request) -> Response:
        self.seen.append(current_user())
        return PlainTextResponse("nothing")

    def sync(self, request: Request) -> Response:
        return PlainTextResponse(self.books.ask(self.who(request)))

    async def asynchronous(self, request: Request) -> Response:
        return PlainTextResponse(await self.books.aask(self.who(request)))

    async def task(self, request: Request) -> Response:
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(self.books.aask(self.who(request))) for _ in range(2)]
        return PlainTextResponse(made[0].result())

    def thread(self, request: Request) -> Response:
        with ThreadPoolExecutor(1) as pool:
            return PlainTextResponse(pool.submit(self.books.ask, self.who(request)).result())

    def stream(self, request: Request) -> Response:
        return StreamingResponse(self.books.words(self.who(request)))

    async def astream(self, request: Request) -> Response:
        return StreamingResponse(self.books.awords(self.who(request)))

    async def background(self, request: Request) -> Response:
        tasks, who = BackgroundTasks(), self.who(request)
        tasks.add_task(self.books.ask, who)
        tasks.add_task(self.books.aask, who)
        return PlainTextResponse("accepted", background=tasks)

    async def late(self, request: Request) -> Response:
        """Stream a part, and call then."""

        async def body() -> AsyncIterator[str]:
            yield "begun "
            yield await self.books.aask(self.who(request))

        return StreamingResponse(body())

    async def error(self, request: Request) -> Response:
        await self.books.aask(self.who(request))
        raise ZeroDivisionError(f"about {SECRET}")

    def caught(self, request: Request) -> Response:
        try:
            return PlainTextResponse(self.books.ask(self.who(request)))
        except BudgetExceededError as error:
            return PlainTextResponse(f"sorry, {error.user}", 429)

    async def endless(self, request: Request) -> Response:
        who = self.who(request)

        async def body() -> AsyncIterator[str]:
            try:
                async for word in self.books.awords(who):
                    yield word
            except BaseException as error:
                self.errors.append(error)
                raise
            finally:
                self.left.set()

        return StreamingResponse(body())

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(f"{text}: {await self.books.aask(self.who(socket))}")

    async def early(self, socket: WebSocket) -> None:
        await self.books.aask(self.who(socket))
        await socket.accept()
        await socket.close()


def inside(app: Starlette, **options: Any) -> Any:
    app.add_middleware(BudgetAsgiMiddleware, **options)
    return app


def around(app: Starlette, **options: Any) -> Any:
    return BudgetAsgiMiddleware(app, **options)


either_place = pytest.mark.parametrize("placed", [inside, around])


@pytest.fixture
def application() -> Iterator[Application]:
    with books() as found:
        yield Application(found)


CALLS = {"/sync": 1, "/async": 1, "/task": 2, "/thread": 1, "/stream": 1, "/astream": 1, "/background": 2}


@either_place
def test_whatever_belongs_to_a_request_is_paid_by_its_user(application: Application, placed: Any) -> None:
    with serve_asgi(placed(application.app, header="X-User")) as url:
        for user in ("alice", "bob"):
            with client(url, user) as session:
                got = {path: session.get(path).text for path in CALLS}
            streamed = {"/stream": "one two three", "/astream": "one two three", "/background": "accepted"}
            assert got == {**dict.fromkeys(CALLS, user), **streamed}
    assert application.books.paid() == {"alice": sum(CALLS.values()), "bob": sum(CALLS.values())}


@pytest.mark.full
def test_many_requests_at_once_are_each_paid_by_their_own_user(application: Application) -> None:
    paths = list(CALLS) * 2

    async def all_at_once(url: str) -> list[int]:
        async with httpx2.AsyncClient(base_url=url, timeout=60) as session:
            asked = [session.get(path, headers={"x-user": user}) for path in paths for user in USERS]
            return [response.status_code for response in await asyncio.gather(*asked)]

    with serve_asgi(inside(application.app, header="x-user")) as url:
        assert asyncio.run(all_at_once(url)) == [200] * len(paths) * len(USERS)
    assert application.books.paid() == dict.fromkeys(USERS, 2 * sum(CALLS.values()))


@either_place
@pytest.mark.parametrize("path", ["/sync", "/async", "/thread", "/stream", "/astream"])
def test_a_refusal_that_nobody_catches_is_a_402(application: Application, placed: Any, path: str) -> None:
    """Also where a stream's first part makes the call: its head has waited."""
    with serve_asgi(placed(application.app, header="x-user")) as url, client(url, "broke") as session:
        problem = check_problem(session.get(path), 402, "BudgetExceededError")
        assert problem["account"] == "user:broke"
        assert problem["max_budget"] == 0
        assert problem["detail"] == problem["message"]
        assert problem["projected_cost"] > 0
        assert session.head(path).status_code in (402, 405)
        assert session.get("/caught").text == "sorry, broke"
        assert session.get("/nothing").text == "nothing"
    assert application.books.provider.count() == 0


def test_a_group_of_one_refusal_is_that_refusal(application: Application) -> None:
    with serve_asgi(inside(application.app, header="x-user")) as url, client(url, "broke") as session:
        # Both tasks of the group may be refused, which is no one refusal.
        assert session.get("/task").status_code in (402, 500)


def test_details_can_be_kept_from_clients(application: Application) -> None:
    app = inside(application.app, header="x-user", details=False)
    with serve_asgi(app) as url, client(url, "broke") as session:
        problem = check_problem(session.get("/sync"), 402, "BudgetExceededError")
    assert problem == {"title": "Payment Required", "status": 402, "error": "BudgetExceededError"}


def test_a_store_that_fails_is_a_503_that_does_not_say_where_it_is() -> None:
    with books() as found:
        found.guard.configure(store="redis://nobody:password@127.0.0.1:1/0?timeout=0.2")
        app = inside(Application(found).app, header="x-user")
        with serve_asgi(app) as url, client(url, "alice") as session:
            response = session.get("/sync")
            check_problem(response, 503, "StoreError")
            assert response.headers["retry-after"] == "1"
            assert "127.0.0.1" not in response.text
            assert "password" not in response.text
        found.guard.configure(store="memory://")


@either_place
def test_a_task_that_is_refused_after_the_response_leaves_it_and_is_logged(
    application: Application, placed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_asgi(placed(application.app, header="x-user")) as url, client(url, "broke") as session:
        answered = session.get("/background")
        assert (answered.status_code, answered.text) == (200, "accepted")
    [logged] = [record for record in caplog.records if record.name.startswith("budgetguard")]
    assert logged.levelno == logging.WARNING
    assert "a call was refused after its response" in logged.message
    assert application.books.provider.count() == 0


@either_place
def test_a_response_that_has_begun_breaks_off_and_the_log_says_so(
    application: Application, placed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_asgi(placed(application.app, header="x-user")) as url, client(url, "broke") as session:
        got: list[bytes] = []
        with session.stream("GET", "/late") as response:
            assert response.status_code == 200
            with pytest.raises(httpx2.RemoteProtocolError, match="incomplete"):
                got.extend(response.iter_raw())
        assert got == [b"begun "]
    logged = [record for record in caplog.records if "breaks off" in record.message]
    assert [record.levelno for record in logged] == [logging.WARNING]
    assert "user 'broke' has $0.00 left" in logged[0].message
    assert SECRET not in caplog.text
    assert application.books.provider.count() == 0


@either_place
def test_other_errors_stay_as_they_are_and_leave_nobody_behind(
    application: Application, placed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_asgi(placed(application.app, header="x-user")) as url:
        with client(url, "alice") as session:
            failed = session.get("/error")
            assert (failed.status_code, failed.text) == (500, "Internal Server Error")
        with client(url, "bob") as session:
            assert session.get("/missing").status_code == 404
        with client(url) as session:
            session.get("/nothing")
    assert application.seen == [None]
    assert application.books.paid() == {"alice": 1}
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_a_stream_leaves_nobody_behind() -> None:
    gate = threading.Event()
    reply = Reply("one two three", prompt_tokens=10, completion_tokens=3, pause_after=1, gate=gate)
    with books(reply) as found:
        application = Application(found)
        with serve_asgi(inside(application.app, header="x-user")) as url:
            with client(url, "alice") as session, session.stream("GET", "/endless") as response:
                assert next(response.iter_raw()).strip() == b"one"
            assert application.left.wait(30)
            gate.set()
            with client(url) as session:
                session.get("/nothing")
            with client(url, "bob") as session:
                session.get("/async")
        assert application.seen == [None]
        assert found.provider.wait_idle()
        assert found.paid() == {"alice": 1, "bob": 1}
        assert not list(found.guard.holds())


@pytest.mark.parametrize(
    ("missing", "status", "error"), [(401, 401, "Unauthorized"), (403, 403, "Forbidden"), ("pass", 200, "")]
)
def test_what_becomes_of_a_request_without_a_user(
    application: Application, missing: Any, status: int, error: str
) -> None:
    with serve_asgi(inside(application.app, header="x-user", missing=missing)) as url, client(url) as session:
        for headers in ({}, {"x-user": ""}):
            response = session.get("/nothing", headers=headers)
            assert response.status_code == status
            if error:
                check_problem(response, status, error)
        if status == 401:
            assert response.headers["www-authenticate"] == "Bearer"
        if not error:
            check_problem(session.get("/sync"), 422, "MissingUserError")
    assert application.seen == ([] if error else [None] * 2)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([("x-user", "alice"), ("x-user", "bob")], "was sent 2 times, with different values"),
        ([("x-user", b"\xff")], "is not UTF-8"),
        ([("x-user", "a" * 300)], "must be at most 256 characters"),
        ([("x-user", "a\tb")], "must not contain control characters"),
    ],
)
def test_a_header_that_names_nobody_is_refused(application: Application, headers: Any, message: str) -> None:
    with serve_asgi(inside(application.app, header="x-user")) as url, client(url) as session:
        problem = check_problem(session.get("/sync", headers=headers), 400, "BadRequest")
    assert message in problem["message"]
    assert application.books.provider.count() == 0


def test_a_header_may_be_sent_twice_alike_and_in_any_script(application: Application) -> None:
    with serve_asgi(inside(application.app, header="x-user")) as url, client(url) as session:
        found = session.get(
            "/nothing", headers=[("x-user", "Jürgen".encode()), ("X-User", "Jürgen".encode())]
        )
        assert found.status_code == 200
    assert application.seen == ["Jürgen"]


async def by_key(scope: Any) -> str | None:
    await anyio.sleep(0)
    return by_path(scope)


def by_path(scope: Any) -> str | None:
    return {b"who=alice": "alice", b"who=5": 5}.get(scope["query_string"])  # type: ignore[return-value]


@pytest.mark.parametrize("function", [by_key, by_path])
def test_a_function_says_who_pays(
    application: Application, function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_asgi(inside(application.app, user=function)) as url, client(url) as session:
        assert session.get("/nothing?who=alice").status_code == 200
        assert session.get("/nothing").status_code == 200
        assert session.get("/nothing?who=5").status_code == 500
    assert application.seen == ["alice", None]
    assert "must be text, not 5 (int); write '5'" in caplog.text


class ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: Any) -> Any:
        name = conn.headers.get("authorization")
        return None if name is None else (AuthCredentials(["authenticated"]), SimpleUser(name))


def test_the_authenticated_user_pays(application: Application) -> None:
    app = inside(application.app, authenticated=True, missing=401)
    app.add_middleware(AuthenticationMiddleware, backend=ByHeader())
    with serve_asgi(app) as url, client(url) as session:
        assert session.get("/nothing", headers={"authorization": "alice"}).status_code == 200
        check_problem(session.get("/nothing"), 401, "Unauthorized")
    assert application.seen == ["alice"]


def test_authentication_that_is_not_around_the_middleware_is_a_mistake(
    application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    application.app.add_middleware(AuthenticationMiddleware, backend=ByHeader())
    app = inside(application.app, authenticated=True)
    with serve_asgi(app) as url, client(url) as session:
        assert session.get("/nothing", headers={"authorization": "alice"}).status_code == 500
    assert "has to be around this one" in caplog.text
    assert not application.seen


# Websockets


def open_socket(url: str, path: str, user: str | None) -> Any:
    headers = {} if user is None else {"x-user": user}
    return connect(
        url.replace("http:", "ws:") + path, additional_headers=headers, open_timeout=30, proxy=None
    )


def test_a_websocket_is_paid_by_its_user_until_it_is_refused(
    application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_asgi(inside(application.app, header="x-user"), ws="websockets-sansio") as url:
        with open_socket(url, "/socket", "alice") as alice, open_socket(url, "/socket", "bob") as bob:
            for number in range(2):
                for socket, user in ((alice, "alice"), (bob, "bob")):
                    socket.send(str(number))
                    assert socket.recv(timeout=30) == f"{number}: {user}"
        with open_socket(url, "/socket", "broke") as broke:
            broke.send("hello")
            with pytest.raises(ConnectionClosed) as closed:
                broke.recv(timeout=30)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert closed.value.rcvd.reason.startswith("BudgetExceededError: Budget has been exceeded!")
    assert application.books.paid() == {"alice": 2, "bob": 2}
    assert "breaks off" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(("user", "status"), [("broke", 402), (None, 401)])
def test_a_websocket_that_is_not_accepted_yet_is_answered(
    application: Application, user: str | None, status: int
) -> None:
    with serve_asgi(inside(application.app, header="x-user", missing=401), ws="websockets-sansio") as url:
        with pytest.raises(InvalidStatus) as denied:
            open_socket(url, "/early", user)
        response = denied.value.response
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        with open_socket(url, "/early", "alice"):
            pass
    assert application.books.paid() == {"alice": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "none is given"),
        ({"header": "x-user", "authenticated": True}, "2 are given"),
        ({"header": "x user"}, "'x user'"),
        ({"header": b"x-user"}, "b'x-user'"),
        ({"user": "alice"}, r"configure\(user="),
        ({"header": "x-user", "missing": 402}, "'pass', 401 or 403, not 402"),
        ({"header": "x-user", "missing": None}, "'pass', 401 or 403, not None"),
        ({"authenticated": "yes"}, "True or False, not 'yes'"),
        ({"header": "x-user", "details": 1}, "True or False, not 1"),
    ],
)
def test_bad_options_are_refused_when_the_middleware_is_made(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BudgetAsgiMiddleware(None, **options)  # type: ignore[arg-type]
