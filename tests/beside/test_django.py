"""Django under WSGI and ASGI, over real sockets: who pays for each part of a request, and refusals as 402."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from budgetguard import ConfigurationError
from budgetguard.integrations.asgi import BudgetAsgiMiddleware
from budgetguard.integrations.wsgi import BudgetWsgiMiddleware
from tests.web.serving import SECRET, USERS, Books, books, check_problem, client, serve_asgi, serve_wsgi

from .test_web_frameworks import get_all

django = pytest.importorskip("django")

OURS = "budgetguard.integrations.django.BudgetDjangoMiddleware"
SYNC_ONLY = "tests.beside.django_site.sync_only"
MIDDLEWARE = [
    SYNC_ONLY,
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    OURS,
]
# Django leaves the file of a request's body to the garbage collector where a response breaks off.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.Spooled:ResourceWarning")


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Set Django up with a database of users, and return their keys."""
    from django.conf import settings
    from django.core.management import call_command

    database = tmp_path_factory.mktemp("django") / "users.db"
    settings.configure(
        ROOT_URLCONF="tests.beside.django_site",
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="for this test",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(database))}},
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        MIDDLEWARE=MIDDLEWARE,
        LOGGING_CONFIG=None,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    from django.db import connections

    yield {name: str(User.objects.create_user(name, password="word").pk) for name in (*USERS, "broke")}
    connections.close_all()


@pytest.fixture
def found(users: dict[str, str]) -> Iterator[Books]:
    from . import django_site

    with books() as opened:
        for name, key in users.items():
            opened.guard.set_budget(0 if name == "broke" else 1, user=key)
        django_site.Site.books = opened
        django_site.seen.clear()
        yield opened


@contextlib.contextmanager
def collected() -> Iterator[None]:
    yield
    gc.collect()


@contextlib.contextmanager
def served(
    found: Books, kind: str, *, around: Any = None, middleware: Any = MIDDLEWARE, **options: Any
) -> Iterator[str]:
    """Serve the site with our middleware of these options, and perhaps with another around it."""
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    asgi = kind == "asgi"
    middleware = [one for one in middleware if one != OURS or options]
    with override_settings(MIDDLEWARE=middleware, BUDGETGUARD=options), collected():
        app = ASGIHandler() if asgi else WSGIHandler()
        if around is not None:
            app = (BudgetAsgiMiddleware if asgi else BudgetWsgiMiddleware)(app, **around)
        if not asgi:
            with serve_wsgi(app) as url:
                yield url
            return

        async def with_an_end(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                await app(scope, receive, send)
                return
            for answer in ("startup", "shutdown"):
                await receive()
                if answer == "shutdown":
                    await found.aclient.close()
                await send({"type": f"lifespan.{answer}.complete"})

        with serve_asgi(with_an_end) as url:
            yield url


SYNC = ("/view", "/stream")
ASYNC = ("/view", "/aview", "/thread", "/astream")
kinds = pytest.mark.parametrize(("kind", "paths"), [("wsgi", SYNC), ("asgi", ASYNC)])


@kinds
def test_each_part_of_a_request_is_paid_by_its_user(found: Books, kind: str, paths: Any) -> None:
    from . import django_site

    with served(found, kind, header="x-user") as url:
        assert set(asyncio.run(get_all(url, paths))) == {200}
        with client(url, "alice") as session:
            assert session.get("/broken").status_code == 500
            assert session.get("/aempty" if kind == "asgi" else "/empty").text == ""
        with client(url) as session:
            assert session.get("/nobody").text == "None"
    assert django_site.seen == [None]
    assert found.paid() == dict.fromkeys(USERS, len(paths)) | {"alice": len(paths) + 1}


@kinds
@pytest.mark.parametrize("function", ["by_header", "aby_header"])
def test_a_function_says_who_pays(found: Books, kind: str, paths: Any, function: str) -> None:
    from . import django_site

    with served(found, kind, user=getattr(django_site, function)) as url, client(url, "bob") as session:
        assert session.get("/view").text == "bob"
    assert found.paid() == {"bob": 1}


@kinds
def test_refusals_are_answered_and_what_has_begun_breaks_off(
    found: Books, kind: str, paths: Any, caplog: pytest.LogCaptureFixture
) -> None:
    late = "/alate" if kind == "asgi" else "/late"
    with served(found, kind, header="x-user") as url, client(url, "broke") as session:
        for path in paths:
            check_problem(session.get(path), 402, "BudgetExceededError")
        check_problem(session.get("/view", headers={"x-user": "a" * 300}), 400, "BadRequest")
        if kind == "wsgi":
            assert session.get(late).text == "begun "
        else:
            with pytest.raises(httpx2.RemoteProtocolError):
                session.get(late)
    assert SECRET not in caplog.text
    assert found.provider.count() == 0


@kinds
def test_the_middleware_around_django_charges_all_and_refuses_streams(
    found: Books, kind: str, paths: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Exceptions of views it never sees: Django answers them with 500."""
    late = "/alate" if kind == "asgi" else "/late"
    with served(found, kind, around={"header": "x-user"}) as url:
        assert set(asyncio.run(get_all(url, paths))) == {200}
        with client(url, "broke") as session:
            check_problem(session.get(paths[-1]), 402, "BudgetExceededError")
            assert session.get("/view").status_code == 500
        with client(url, "broke") as session:
            if kind == "wsgi":
                assert session.get(late).text == "begun "
            else:
                with pytest.raises(httpx2.RemoteProtocolError):
                    session.get(late)
    assert found.paid() == dict.fromkeys(USERS, len(paths))
    assert "breaks off" in caplog.text


@kinds
def test_the_user_who_is_logged_in_pays_by_the_primary_key(
    found: Books, users: dict[str, str], kind: str, paths: Any
) -> None:
    with served(found, kind, authenticated=True, missing="pass") as url, client(url) as session:
        for path in ("/view", "/stream"):
            check_problem(session.get(path), 422, "MissingUserError")
        for path in ("/aview", "/astream") if kind == "asgi" else ():
            check_problem(session.get(path), 422, "MissingUserError")
        assert session.get("/login/alice").text == "None"
        assert session.get("/view", headers={"x-user": users["alice"]}).text == users["alice"]
        session.get("/login/broke")
        check_problem(session.get("/view"), 402, "BudgetExceededError")
    with served(found, kind, authenticated=True, missing=403) as url, client(url) as session:
        check_problem(session.get("/nobody"), 403, "Forbidden")
    assert found.paid() == {users["alice"]: 1}


def test_a_stream_of_the_other_kind_is_paid_by_its_user(found: Books) -> None:
    """Django reads it at once, and warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with served(found, "asgi", header="x-user") as url, client(url, "alice") as session:
            assert session.get("/stream").text == "one two three"
    assert found.paid() == {"alice": 1}


def test_a_middleware_inside_that_is_sync_only_changes_nothing(found: Books) -> None:
    with served(found, "asgi", middleware=[*MIDDLEWARE[1:], SYNC_ONLY], header="x-user") as url:
        assert set(asyncio.run(get_all(url, ASYNC))) == {200}
        with client(url, "broke") as session:
            check_problem(session.get("/aview"), 402, "BudgetExceededError")
    assert found.paid() == dict.fromkeys(USERS, len(ASYNC))


def test_bad_options_are_refused_when_the_site_is_loaded(found: Books) -> None:
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    for options, message in (
        ({"heade": "x-user"}, "'heade'"),
        ({"missing": 401}, "none is given"),
        ("x", "'x'"),
    ):
        with (
            override_settings(BUDGETGUARD=options),
            pytest.raises(ConfigurationError, match=message),
        ):
            WSGIHandler()


def test_logging_in_has_to_be_around_the_middleware(found: Books) -> None:
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import Client, override_settings

    with override_settings(MIDDLEWARE=[OURS, *MIDDLEWARE[1:3]], BUDGETGUARD={"authenticated": True}):
        assert WSGIHandler()
        with pytest.raises(ConfigurationError, match=r"after django\.contrib\.auth"):
            Client().get("/nobody")
