"""A middleware for every ASGI application (FastAPI, Starlette, Django, ...): who pays, and refusals as 402.

    app.add_middleware(BudgetAsgiMiddleware, header="x-user")  # FastAPI, Starlette
    application = BudgetAsgiMiddleware(get_asgi_application(), header="x-user")  # any other

The user pays for everything that belongs to the request: its endpoint, threads and tasks that it starts, the
body that is streamed, and the tasks that run after the answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext
from typing import Any, Final, TypeAlias

from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.integrations.web import (
    Missing,
    PayerOptions,
    identity_of,
    log_answered,
    log_broken_off,
    log_too_late,
    problem_response,
    refusal_in,
)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_START: Final = "http.response.start"
_BODY: Final = "http.response.body"
# Codes of a websocket's end (RFC 6455, 7.4.1, and its registry).
_POLICY: Final = 1008
_TRY_AGAIN: Final = 1013
_LONGEST_REASON: Final = 123  # bytes


class BudgetAsgiMiddleware:
    """Charge each request, and each websocket, to its user, and answer refusals that nobody catches.

    Where a request is refused before its response has begun, it is answered with the error's status (402 for
    a budget that is used up) and a problem document; a websocket is closed. After that it can only be broken
    off, which is logged. So that the first part of a stream can still be refused, the head of a response
    waits for its first body.

    Args:
        app: the application.
        header: the request header whose value is the user's id. Have your proxy set it, or take it out of
            what clients send: whoever can send it chooses who pays.
        user: a function, sync or async, that gets the scope and returns the user's id, or None for none. A
            sync one runs in the event loop.
        authenticated: the user in `scope["user"]` pays, as Starlette's `AuthenticationMiddleware` and Django
            Channels set it.
        missing: what becomes of a request without a user: `"pass"`, 401 or 403.
        details: whether a refusal tells the client its message and numbers, or only which error it is.

    Raises:
        ConfigurationError: none or several of `header`, `user` and `authenticated`, or a bad value.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        header: str | None = None,
        user: Callable[[Scope], Awaitable[str | None] | str | None] | None = None,
        authenticated: bool = False,
        missing: Missing = "pass",
        details: bool = True,
    ) -> None:
        self.app = app
        self._options = PayerOptions(header, user, authenticated, missing, details)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        details = self._options.details
        exchange = (_Response if scope["type"] == "http" else _Websocket)(scope, receive, send, details)
        try:
            with await self._payer(scope) or nullcontext():
                await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            refusal = refusal_in(error)
            if refusal is None:
                await exchange.failed()
                raise
            if not await exchange.refuse(refusal):
                (log_too_late if exchange.is_over else log_broken_off)(refusal)
                raise
        else:
            await exchange.ended()

    async def _payer(self, scope: Scope) -> budget_user | None:
        options = self._options
        if options.user is not None:
            found = options.user(scope)
            return options.payer(await found if inspect.isawaitable(found) else found)
        if options.header is not None:
            name = options.header.lower().encode()
            values = [value for key, value in scope["headers"] if key.lower() == name]
            return options.payer(options.header_value(values))
        if "user" not in scope:
            raise ConfigurationError(
                "authenticated=True takes the user from scope['user'], and there is none: the middleware "
                "that authenticates has to be around this one (in Starlette and FastAPI: added after it)"
            )
        return options.payer(identity_of(scope["user"]))


class _Response:
    """The response to one request, whose head is kept until its body begins.

    A response with status 500 is kept whole until the application returns: Starlette answers an exception
    with it before it lets the exception out, if this middleware is not inside the application but around it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, details: bool) -> None:
        self.receive = receive
        self._send = send
        self._details = details
        self._kept: list[Message] = []
        self._has_begun = False
        self.is_over = False

    async def send(self, message: Message) -> None:
        kept = self._kept
        if message["type"] == _START and not self._has_begun and not kept:
            kept.append(message)
            return
        is_whole = message["type"] == _BODY and not message.get("more_body")
        self.is_over = self.is_over or is_whole
        if is_whole and len(kept) == 1 and kept[0]["status"] == 500:
            kept.append(message)
            return
        await self._let_go()
        self._has_begun = True
        await self._send(message)

    async def ended(self) -> None:
        """Send what is kept: the application has returned."""
        await self._let_go()

    async def failed(self) -> None:
        """Send the application's own answer to an exception; a head alone is the server's to replace."""
        if len(self._kept) > 1:
            await self._let_go()

    async def refuse(self, error: BudgetGuardError) -> bool:
        """Answer with a refusal, if nothing was sent yet."""
        if self._has_begun:
            return False
        self._kept = []
        self._has_begun = True
        response = problem_response(error, details=self._details)
        log_answered(error, response.status)
        headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
        await self._send({"type": _START, "status": response.status, "headers": headers})
        await self._send({"type": _BODY, "body": response.body})
        return True

    async def _let_go(self) -> None:
        kept, self._kept = self._kept, []
        for message in kept:
            self._has_begun = True
            await self._send(message)


class _Websocket:
    """One websocket: denied before it is accepted, closed after that."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, details: bool) -> None:
        self._receive = receive
        self._send = send
        self._details = details
        self._deniable = "websocket.http.response" in (scope.get("extensions") or {})
        self._is_asked = False
        self._is_accepted = False
        self.is_over = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_asked = True
        self.is_over = self.is_over or message["type"] == "websocket.disconnect"
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self._is_accepted = True
        elif message["type"] in ("websocket.close", "websocket.http.response.start"):
            self.is_over = True
        await self._send(message)

    async def ended(self) -> None:
        """Do nothing: all was sent."""

    async def failed(self) -> None:
        """Do nothing: the server closes it."""

    async def refuse(self, error: BudgetGuardError) -> bool:
        """Deny it, or close it, if it is still open."""
        if self.is_over:
            return False
        if not self._is_asked:
            await self.receive()
        response = problem_response(error, details=self._details)
        if self._is_accepted:
            log_broken_off(error)
        else:
            log_answered(error, response.status)
        if self._is_accepted or not self._deniable:
            code = _TRY_AGAIN if response.status == 503 else _POLICY
            await self._send({"type": "websocket.close", "code": code, "reason": self._reason(error)})
            return True
        headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
        await self._send(
            {"type": "websocket.http.response.start", "status": response.status, "headers": headers}
        )
        await self._send({"type": "websocket.http.response.body", "body": response.body})
        return True

    def _reason(self, error: BudgetGuardError) -> str:
        # As much of it as a closing frame holds.
        told = type(error).__name__
        if self._details and error.status != 503:
            told = f"{told}: {error.message}"
        return told.encode()[:_LONGEST_REASON].decode(errors="ignore")
