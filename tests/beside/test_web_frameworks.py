"""FastAPI and Flask over real sockets: who pays for each part of a request, and refusals as 402."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from budgetguard import ConfigurationError, current_user
from budgetguard.integrations.asgi import BudgetAsgiMiddleware
from budgetguard.integrations.wsgi import BudgetWsgiMiddleware
from tests.web.serving import SECRET, USERS, Books, books, check_problem, client, serve_asgi, serve_wsgi

pytest.importorskip("fastapi")
flask = pytest.importorskip("flask")

# FastAPI reads annotations where they are written.
from fastapi import BackgroundTasks, Depends, FastAPI, Header, Request, WebSocket  # noqa: E402
from fastapi.responses import StreamingResponse  # noqa: E402


@pytest.fixture
def found() -> Iterator[Books]:
    with books() as opened:
        yield opened


async def get_all(url: str, paths: Any, users: Any = USERS) -> list[int]:
    async with httpx2.AsyncClient(base_url=url, timeout=60) as session:
        asked = [session.get(path, headers={"x-user": user}) for path in paths for user in users]
        return [response.status_code for response in await asyncio.gather(*asked)]


def who_of(request: Any) -> str:
    return str(request.headers.get("x-user", "nobody"))


# FastAPI


def fastapi_app(found: Books, *, beside: bool = False) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        yield
        await found.aclient.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/sync")
    def sync(x_user: str = Header()) -> str:
        return found.ask(x_user)

    @app.get("/async")
    async def asynchronous(x_user: str = Header()) -> str:
        return await found.aask(x_user)

    def in_a_thread(x_user: str = Header()) -> Any:
        found.ask(x_user)
        yield
        found.ask(x_user)

    async def in_the_task(x_user: str = Header()) -> Any:
        await found.aask(x_user)
        yield
        await found.aask(x_user)

    @app.get("/depends", dependencies=[Depends(in_a_thread), Depends(in_the_task)])
    def depends() -> str:
        return str(current_user())

    @app.get("/stream")
    def stream(x_user: str = Header()) -> Any:
        return StreamingResponse(found.words(x_user))

    @app.get("/astream")
    async def astream(x_user: str = Header()) -> Any:
        return StreamingResponse(found.awords(x_user))

    @app.get("/background")
    def background(tasks: BackgroundTasks, x_user: str = Header()) -> str:
        tasks.add_task(found.ask, x_user)
        tasks.add_task(found.aask, x_user)
        return "accepted"

    @app.get("/late")
    async def late(x_user: str = Header()) -> Any:
        async def body() -> AsyncIterator[str]:
            yield "begun "
            yield await found.aask(x_user)

        return StreamingResponse(body())

    @app.get("/broken")
    async def broken(x_user: str = Header()) -> None:
        await found.aask(x_user)
        raise ZeroDivisionError

    @app.get("/nobody")
    def nobody() -> str | None:
        return current_user()

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(f"{text}: {await found.aask(who_of(socket))}")

    app.add_middleware(BudgetAsgiMiddleware, header="x-user")
    if beside:

        @app.middleware("http")
        async def other_middleware(request: Request, call_next: Any) -> Any:
            return await call_next(request)  # of the kind that runs the application in a task of its own

    return app


FASTAPI = {"/sync": 1, "/async": 1, "/depends": 4, "/stream": 1, "/astream": 1, "/background": 2}


beside = pytest.mark.parametrize("beside", [False, True], ids=["alone", "inside an http middleware"])


@beside
def test_fastapi_charges_each_part_of_a_request_to_its_user(found: Books, beside: bool) -> None:
    from websockets.sync.client import connect

    with serve_asgi(fastapi_app(found, beside=beside), ws="websockets-sansio") as url:
        assert set(asyncio.run(get_all(url, list(FASTAPI)))) == {200}
        with client(url, "alice") as session:
            assert session.get("/broken").status_code == 500
        with client(url) as session:
            assert session.get("/nobody").json() is None
        address = url.replace("http:", "ws:") + "/socket"
        with connect(address, additional_headers={"x-user": "bob"}, proxy=None) as socket:
            socket.send("1")
            assert socket.recv(timeout=30) == "1: bob"
    each = sum(FASTAPI.values())
    assert found.paid() == dict.fromkeys(USERS, each) | {"alice": each + 1, "bob": each + 1}


@beside
def test_fastapi_answers_refusals_and_breaks_off_what_has_begun(
    found: Books, beside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_asgi(fastapi_app(found, beside=beside)) as url, client(url, "broke") as session:
        for path in ("/sync", "/async", "/depends", "/stream", "/astream"):
            check_problem(session.get(path), 402, "BudgetExceededError")
        assert session.get("/background").json() == "accepted"
    caplog.clear()
    with serve_asgi(fastapi_app(found, beside=beside)) as url, client(url, "broke") as session:
        if beside:  # a middleware of that kind ends what breaks off as if it were complete
            assert session.get("/late").text == "begun "
        else:
            with pytest.raises(httpx2.RemoteProtocolError):
                session.get("/late")
    assert "breaks off" in caplog.text
    assert SECRET not in caplog.text
    assert found.provider.count() == 0


# Flask


def flask_app(found: Books, closed: threading.Semaphore) -> Any:
    from flask import Flask, Response, request, stream_with_context

    app = Flask("site", static_folder=None)
    app.secret_key = "for this test"

    @app.get("/view")
    def view() -> str:
        return found.ask(who_of(request))

    @app.get("/async")
    def pool() -> str:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(found.ask, who_of(request)).result()

    @app.get("/stream")
    def stream() -> Any:
        return Response(found.words(who_of(request)))

    @app.get("/context")
    def context() -> Any:
        @stream_with_context
        def body() -> Iterator[str]:
            yield found.ask(who_of(request))

        return Response(body())

    @app.get("/afterwards")
    def afterwards() -> Any:
        response, who = Response("accepted"), who_of(request)
        response.call_on_close(lambda: found.ask(who) and closed.release())
        return response

    @app.get("/late")
    def late() -> Any:
        who = who_of(request)

        def body() -> Iterator[str]:
            yield "begun "
            yield found.ask(who)

        return Response(body())

    @app.get("/caught")
    def caught() -> Any:
        with contextlib.suppress(ZeroDivisionError):
            raise ZeroDivisionError
        return str(current_user())

    return app


FLASK = ("/view", "/async", "/stream", "/context", "/afterwards")


def test_flask_charges_each_part_of_a_request_to_its_user(found: Books) -> None:
    from budgetguard.integrations.flask import guard_flask

    closed = threading.Semaphore(0)
    app = flask_app(found, closed)
    guard_flask(app, header="x-user")
    with serve_wsgi(app) as url:
        assert set(asyncio.run(get_all(url, FLASK))) == {200}
        for _ in USERS:
            assert closed.acquire(timeout=30)
        with client(url) as session:
            assert session.get("/caught").text == "None"
    assert found.paid() == dict.fromkeys(USERS, len(FLASK))


def test_flask_answers_refusals_and_breaks_off_what_has_begun(
    found: Books, caplog: pytest.LogCaptureFixture
) -> None:
    from budgetguard.integrations.flask import guard_flask

    app = flask_app(found, threading.Semaphore(0))
    guard_flask(app, header="x-user")
    with serve_wsgi(app) as url, client(url, "broke") as session:
        for path in ("/view", "/async", "/stream"):
            check_problem(session.get(path), 402, "BudgetExceededError")
        assert session.get("/late").text == "begun "
    assert "breaks off" in caplog.text
    assert SECRET not in caplog.text
    assert found.provider.count() == 0


def test_flask_s_own_handler_of_our_errors_stays(found: Books) -> None:
    from budgetguard import BudgetGuardError
    from budgetguard.integrations.flask import guard_flask

    app = flask_app(found, threading.Semaphore(0))
    app.register_error_handler(BudgetGuardError, lambda error: ("sorry", 429))
    guard_flask(app, header="x-user")
    with serve_wsgi(app) as url, client(url, "broke") as session:
        assert (session.get("/view").status_code, session.get("/view").text) == (429, "sorry")


def test_flask_login_s_user_pays_or_what_a_function_finds_in_the_session(found: Books) -> None:
    pytest.importorskip("flask_login")
    from flask import session as cookie
    from flask_login import LoginManager, UserMixin, login_user

    from budgetguard.integrations.flask import guard_flask

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, ident: str) -> None:
            self.id = ident

    for options in ({"authenticated": True}, {"user": lambda: cookie.get("_user_id")}):
        app = flask_app(found, threading.Semaphore(0))
        manager = LoginManager(app)
        manager.user_loader(User)

        @app.get("/login/<ident>")
        def login(ident: str) -> str:
            login_user(User(ident))
            return str(current_user())

        guard_flask(app, missing="pass", **options)  # type: ignore[arg-type]
        with serve_wsgi(app) as url, client(url) as session:
            check_problem(session.get("/view"), 422, "MissingUserError")
            assert session.get("/login/alice").text == "None"
            assert session.get("/view", headers={"x-user": "alice"}).text == "alice"
    assert found.paid() == {"alice": 2}


def test_flask_names_what_it_cannot_learn_a_user_from(
    found: Books,
) -> None:
    pytest.importorskip("flask_login")
    from budgetguard.integrations.flask import guard_flask

    def whose() -> int:
        return 5

    for options, message in (
        ({"user": whose}, "whose at 0x"),
        ({"authenticated": True}, "call LoginManager(app)"),
    ):
        app = flask_app(found, threading.Semaphore(0))
        guard_flask(app, **options)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            app.test_client().get("/view")
    assert found.provider.count() == 0


def test_flask_refuses_bad_options() -> None:
    from budgetguard.integrations.flask import guard_flask

    async def who() -> str:
        return "alice"

    for options, message in (({}, "none is given"), ({"user": who}, "is async"), ({"missing": 400}, "400")):
        app = flask.Flask("site")
        with pytest.raises(ConfigurationError, match=message):
            guard_flask(app, **({"header": "x-user"} if "missing" in options else {}) | options)
        assert not isinstance(app.wsgi_app, BudgetWsgiMiddleware)
