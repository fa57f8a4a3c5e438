"""A site of Django's whose views call, in every place where they may: each is tagged with who should pay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import authenticate, login
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from budgetguard import current_user
from tests.web.serving import Books


class Site:
    books: Books


seen: list[str | None] = []


def who_of(request: Any) -> str:
    return str(request.headers.get("x-user", "nobody"))


def view(request: Any) -> HttpResponse:
    return HttpResponse(Site.books.ask(who_of(request)))


async def aview(request: Any) -> HttpResponse:
    return HttpResponse(await Site.books.aask(who_of(request)))


async def thread(request: Any) -> HttpResponse:
    return HttpResponse(await sync_to_async(Site.books.ask)(who_of(request)))


def stream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(Site.books.words(who_of(request)))


async def astream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(Site.books.awords(who_of(request)))


def late(request: Any) -> StreamingHttpResponse:
    who = who_of(request)

    def body() -> Iterator[str]:
        yield "begun "
        yield Site.books.ask(who)

    return StreamingHttpResponse(body())


async def alate(request: Any) -> StreamingHttpResponse:
    who = who_of(request)

    async def body() -> AsyncIterator[str]:
        yield "begun "
        yield await Site.books.aask(who)

    return StreamingHttpResponse(body())


def empty(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter(()))


async def aempty(request: Any) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        for part in ():
            yield part

    return StreamingHttpResponse(body())


def nobody(request: Any) -> HttpResponse:
    seen.append(current_user())
    return HttpResponse(str(current_user()))


def broken(request: Any) -> HttpResponse:
    raise ZeroDivisionError(Site.books.ask(who_of(request)))


def enter(request: Any, name: str) -> HttpResponse:
    login(request, authenticate(request, username=name, password="word"))
    return HttpResponse(str(current_user()))


def sync_only(get_response: Any) -> Any:
    """Make a middleware that is not async, which Django runs in a thread, with the rest of the request."""

    def middleware(request: Any) -> Any:
        return get_response(request)

    return middleware


urlpatterns = [
    path("view", view),
    path("aview", aview),
    path("thread", thread),
    path("stream", stream),
    path("astream", astream),
    path("late", late),
    path("alate", alate),
    path("empty", empty),
    path("aempty", aempty),
    path("nobody", nobody),
    path("broken", broken),
    path("login/<name>", enter),
]


def by_header(request: Any) -> str | None:
    return request.headers.get("x-user")  # type: ignore[no-any-return]


async def aby_header(request: Any) -> str | None:
    return request.headers.get("x-user")  # type: ignore[no-any-return]
