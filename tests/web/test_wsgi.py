"""The WSGI middleware, around a plain application on the standard library's server: who pays, refusals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from budgetguard import ConfigurationError, current_user
from budgetguard.integrations.wsgi import BudgetWsgiMiddleware
from tests.provider.server import Reply

from .serving import SECRET, USERS, Books, books, check_problem, client, serve_wsgi


class Closing:
    """An iterable with something to do once the response is over, as frameworks have it."""

    def __init__(self, parts: Iterator[str], at_end: Callable[[], object]) -> None:
        self._parts = parts
        self._at_end = at_end

    def __iter__(self) -> Iterator[bytes]:
        return (part.encode() for part in self._parts)

    def close(self) -> None:
        self._parts.close()  # type: ignore[attr-defined]
        self._at_end()


class Application:
    """Calls in every place where an application may call; each page is a method."""

    def __init__(self, found: Books) -> None:
        self.books = found
        self.seen: list[str | None] = []
        self.left = threading.Event()
        self.closed = threading.Event()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        who = environ.get("HTTP_X_USER") or environ.get("REMOTE_USER") or "nobody"
        page = getattr(self, environ["PATH_INFO"].strip("/"))
        return page(
            who, lambda *head: start_response(*(head or ("200 OK", [("content-type", "text/plain")])))
        )

    def nothing(self, who: str, start: Any) -> Any:
        self.seen.append(current_user())
        start()
        return [b"nothing"]

    def view(self, who: str, start: Any) -> Any:
        answer = self.books.ask(who)
        start()
        return [answer.encode()]

    def announced(self, who: str, start: Any) -> Any:
        """Begin with the head, as PEP 3333 allows, and call then."""
        start()
        return [self.books.ask(who).encode()]

    def written(self, who: str, start: Any) -> Any:
        start()(b"begun ")
        return [self.books.ask(who).encode()]

    def generator(self, who: str, start: Any) -> Iterator[bytes]:
        """Be called at the first step only."""
        answer = self.books.ask(who)
        start()
        yield answer.encode()

    def pool(self, who: str, start: Any) -> Any:
        start()
        with ThreadPoolExecutor(1) as pool:
            return [pool.submit(self.books.ask, who).result().encode()]

    def stream(self, who: str, start: Any) -> Any:
        start()
        return Closing(self.books.words(who), lambda: self.books.ask(who) and self.closed.set())

    def fed(self, who: str, start: Any) -> Any:
        """Stream what a thread brings that the view has started."""
        ready = threading.Event()
        answers: list[str] = []

        def work() -> None:
            ready.wait(30)
            answers.append(self.books.ask(who))

        thread = threading.Thread(target=work)
        thread.start()
        start()

        def body() -> Iterator[bytes]:
            ready.set()
            thread.join()
            yield answers[0].encode()

        return body()

    def late(self, who: str, start: Any) -> Iterator[bytes]:
        start()
        yield b""  # nothing has begun yet
        yield b"begun "
        yield self.books.ask(who).encode()

    def error(self, who: str, start: Any) -> Any:
        raise ZeroDivisionError(self.books.ask(who))

    def endless(self, who: str, start: Any) -> Iterator[bytes]:
        start()
        try:
            for word in self.books.words(who):
                yield word.encode()
                yield b"x" * 100_000
        finally:
            self.left.set()


@pytest.fixture
def application() -> Iterator[Application]:
    with books() as found:
        yield Application(found)


CALLS = {"/view": 1, "/announced": 1, "/written": 1, "/generator": 1, "/pool": 1, "/stream": 2, "/fed": 1}


def test_whatever_belongs_to_a_request_is_paid_by_its_user(application: Application) -> None:
    with serve_wsgi(BudgetWsgiMiddleware(application, header="X-User")) as url:
        for user in ("alice", "bob"):
            with client(url, user) as session:
                got = {path: session.get(path).text for path in CALLS}
            assert application.closed.wait(30)
            assert got == dict.fromkeys(CALLS, user) | {
                "/written": f"begun {user}",
                "/stream": "one two three",
            }
    assert application.books.paid() == {"alice": sum(CALLS.values()), "bob": sum(CALLS.values())}


@pytest.mark.full
def test_many_requests_at_once_are_each_paid_by_their_own_user(application: Application) -> None:
    def ask(path: str, user: str) -> int:
        with client(url, user) as session:
            return session.get(path).status_code

    with (
        serve_wsgi(BudgetWsgiMiddleware(application, header="x-user")) as url,
        ThreadPoolExecutor(16) as pool,
    ):
        asked = [pool.submit(ask, path, user) for path in CALLS for user in USERS]
        assert {one.result() for one in asked} == {200}
    assert application.books.paid() == dict.fromkeys(USERS, sum(CALLS.values()))


@pytest.mark.parametrize("path", ["/view", "/announced", "/generator", "/pool", "/stream"])
def test_a_refusal_that_nobody_catches_is_a_402(application: Application, path: str) -> None:
    """Also where the head was announced: no part of the body has been sent."""
    with (
        serve_wsgi(BudgetWsgiMiddleware(application, header="x-user")) as url,
        client(url, "broke") as session,
    ):
        problem = check_problem(session.get(path), 402, "BudgetExceededError")
        assert problem["account"] == "user:broke"
        if path != "/stream":  # which calls at its end, too
            head = session.head(path)
            assert (head.status_code, head.text) == (402, "")
        assert session.get("/nothing").text == "nothing"
    assert application.books.provider.count() == 0


@pytest.mark.parametrize("path", ["/late", "/written"])
def test_a_response_that_has_begun_breaks_off_and_the_log_says_so(
    application: Application, path: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        serve_wsgi(BudgetWsgiMiddleware(application, header="x-user")) as url,
        client(url, "broke") as session,
    ):
        assert session.get(path).text == "begun "  # HTTP/1.0 has no other way to end
    logged = [record for record in caplog.records if "breaks off" in record.message]
    assert [record.levelno for record in logged] == [logging.WARNING]
    assert "user 'broke' has $0.00 left" in logged[0].message
    assert SECRET not in caplog.text + capsys.readouterr().err
    assert application.books.provider.count() == 0


def test_other_errors_stay_as_they_are_and_leave_nobody_behind(
    application: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_wsgi(BudgetWsgiMiddleware(application, header="x-user")) as url:
        with client(url, "alice") as session:
            assert session.get("/error").status_code == 500
        with client(url) as session:
            session.get("/nothing")
    assert application.seen == [None]
    assert application.books.paid() == {"alice": 1}
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_client_that_leaves_a_stream_leaves_nobody_behind() -> None:
    gate = threading.Event()
    reply = Reply("one two three", prompt_tokens=10, completion_tokens=3, pause_after=1, gate=gate)
    with books(reply) as found:
        application = Application(found)
        with serve_wsgi(BudgetWsgiMiddleware(application, header="x-user")) as url:
            with client(url, "alice") as session, session.stream("GET", "/endless") as response:
                assert next(response.iter_raw()).startswith(b"one")
            gate.set()
            assert application.left.wait(30)
            with client(url) as session:
                session.get("/nothing")
            with client(url, "bob") as session:
                session.get("/view")
        assert application.seen == [None]
        assert found.provider.wait_idle()
        assert found.paid() == {"alice": 1, "bob": 1}
        assert not list(found.guard.holds())


def test_one_thread_serves_many_and_none_pays_for_the_next(application: Application) -> None:
    """Called as a server with one thread does: no request leaves its user current, nor finds another's."""
    app = BudgetWsgiMiddleware(application, header="x-user")

    def request(path: str, user: str | None) -> Any:
        environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET"} | (
            {} if user is None else {"HTTP_X_USER": user}
        )
        body = app(environ, lambda *_: lambda data: None)
        assert current_user() is None
        return iter(body), getattr(body, "close", lambda: None)

    streams = [request("/stream", user) for user in USERS]
    for _ in range(3):
        for steps, _close in streams:
            next(steps)
            assert current_user() is None
            request("/nothing", None)
    for steps, close in reversed(streams):
        assert not list(steps)
        close()
        assert current_user() is None
    left, close = request("/stream", "alice")
    next(left)
    del left, close
    assert set(application.seen) == {None}
    assert application.books.paid() == dict.fromkeys(USERS, 2) | {"alice": 4}


@pytest.mark.parametrize(
    ("missing", "status", "error"), [(401, 401, "Unauthorized"), (403, 403, "Forbidden"), ("pass", 200, "")]
)
def test_what_becomes_of_a_request_without_a_user(
    application: Application, missing: Any, status: int, error: str
) -> None:
    app = BudgetWsgiMiddleware(application, header="x-user", missing=missing)
    with serve_wsgi(app) as url, client(url) as session:
        response = session.get("/nothing")
        assert response.status_code == status
        if error:
            check_problem(response, status, error)
        else:
            check_problem(session.get("/view"), 422, "MissingUserError")
    assert application.seen == ([] if error else [None])


def test_a_header_that_names_nobody_is_refused_and_any_script_is_fine(application: Application) -> None:
    with serve_wsgi(BudgetWsgiMiddleware(application, header="x-user")) as url, client(url) as session:
        for value, message in ((b"\xff", "is not UTF-8"), ("a" * 300, "at most 256 characters")):
            problem = check_problem(session.get("/view", headers={"x-user": value}), 400, "BadRequest")
            assert message in problem["message"]
        assert session.get("/nothing", headers={"x-user": "Jürgen".encode()}).status_code == 200
    assert application.seen == ["Jürgen"]
    assert application.books.provider.count() == 0


def test_a_function_or_the_server_s_authentication_says_who_pays(
    application: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    def by_query(environ: Any) -> Any:
        return {"who=alice": "alice", "who=5": 5}.get(environ["QUERY_STRING"])

    with serve_wsgi(BudgetWsgiMiddleware(application, user=by_query)) as url, client(url) as session:
        assert session.get("/nothing?who=alice").status_code == 200
        assert session.get("/nothing").status_code == 200
        assert session.get("/nothing?who=5").status_code == 500
    assert application.seen == ["alice", None]
    assert "must be text, not 5 (int); write '5'" in capsys.readouterr().err

    app = BudgetWsgiMiddleware(application, authenticated=True, missing=401)

    def authenticating(environ: Any, start_response: Any) -> Any:
        return app(environ | {"REMOTE_USER": environ.get("HTTP_AUTHORIZATION", "")}, start_response)

    with serve_wsgi(authenticating) as url, client(url) as session:
        assert session.get("/view", headers={"authorization": "bob"}).text == "bob"
        check_problem(session.get("/view"), 401, "Unauthorized")


def test_an_async_function_is_refused_when_the_middleware_is_made() -> None:
    async def who(environ: Any) -> str:
        return "alice"

    with pytest.raises(ConfigurationError, match="is async"):
        BudgetWsgiMiddleware(lambda *_: [], user=who)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="none is given"):
        BudgetWsgiMiddleware(lambda *_: [])


def test_a_whole_body_stays_the_application_s_own(application: Application) -> None:
    """Servers send the length of a list with one item by themselves."""
    with serve_wsgi(BudgetWsgiMiddleware(application, header="x-user")) as url:
        with httpx2.Client() as session:
            response = session.get(f"{url}/nothing")
        assert response.headers["content-length"] == str(len(b"nothing"))
