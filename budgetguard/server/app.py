"""The service as an ASGI application: routes, JSON answers, and every error as a JSON object."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from budgetguard.core.accounts import check_id
from budgetguard.core.process import system_clock
from budgetguard.core.windows import Clock
from budgetguard.engine.alerting import made_alerts
from budgetguard.errors import BudgetGuardError, StoreError
from budgetguard.server import litellm, v1
from budgetguard.server.access import Access, check_key_project, check_role
from budgetguard.server.alerting import AlertWatcher
from budgetguard.server.bodies import LARGE, announced, read_json
from budgetguard.server.events import Events
from budgetguard.server.gates import Circuits, TurnGate, in_thread
from budgetguard.server.keys import KEYS_PROJECT, Key, Keyring
from budgetguard.server.metrics import CONTENT_TYPE, Metrics
from budgetguard.server.openapi import document
from budgetguard.server.options import Options
from budgetguard.server.problems import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotFound,
    for_clients,
)
from budgetguard.server.projects import Projects
from budgetguard.server.quotas import Quotas
from budgetguard.server.routes import ApiRoute, Call
from budgetguard.server.schedule import Delivery, Lease, Schedule
from budgetguard.server.watching import Watcher, watched
from budgetguard.stores.wire import plain

ROUTES: Final[tuple[ApiRoute, ...]] = (*litellm.ROUTES, *v1.ROUTES)
"""Every route that touches budgets. The other four are /healthz, /readyz, /metrics and /v1/openapi.json."""

_log = logging.getLogger("budgetguard.server")
_READY: Final = "service:ready"
_METRICS: Final = "budgetguard:metrics"
_LOG_EVERY_S: Final = 1.0
_MOST_PARAMETERS: Final = 20
T = TypeVar("T")
_encode: Final = json.JSONEncoder(
    default=plain, check_circular=False, allow_nan=False, separators=(",", ":")
).encode


def create_app(options: Options, clock: Clock = system_clock) -> ASGIApp:
    """Return the application.

    Args:
        options: the service's settings.
        clock: the time, for embedded stores.

    Raises:
        ConfigurationError: a bad option.
        StoreError: the store cannot be opened.
    """
    return Service(options, clock).app


def app_from_environment() -> ASGIApp:
    """Return the application that the `BUDGETGUARD_*` variables describe; each worker calls this."""
    return create_app(Options.from_environment())


class Service:
    """The service in one process: what its requests share."""

    def __init__(self, options: Options, clock: Clock = system_clock) -> None:
        quotas = Quotas(options.accounts, options.holds)
        self._projects = Projects(options.store, options.retention, clock, quotas)
        self._keyring = Keyring(self._projects.keys, options.given, options.fresh)
        self._access = Access(self._keyring, private=options.is_private, rate=options.limit)
        self._metrics = Metrics()
        self._quick = TurnGate(total=64, each=8, waiting=512, longest=30)
        self._heavy = TurnGate(total=4, each=2, waiting=32, longest=60)
        self._bodies = TurnGate(total=8, each=2, waiting=8, longest=30)
        self._circuits = Circuits()
        self._fresh = options.fresh
        self._ready_at = float("-inf")
        self._alerts = made_alerts(options.alerts, options.alert_on, options.alert_quiet, clock)
        events = Events(self._projects.own, options.thresholds, clock) if options.sends_events else None
        if watchers := self._watchers(options, events):
            self._projects.watch(lambda store: watched(store, *watchers))
        self._schedule = _schedule(options, self._projects, events) if options.refresh else None
        by_path: defaultdict[str, dict[str, Callable[[Request], Any]]] = defaultdict(dict)
        for route in ROUTES:
            by_path[route.path][route.method] = self._endpoint(route)
        by_path["/healthz"]["GET"] = self._healthz
        by_path["/readyz"]["GET"] = self._readyz
        by_path["/metrics"]["GET"] = self._show_metrics
        by_path["/v1/openapi.json"]["GET"] = self._openapi
        routes: list[BaseRoute] = [
            StarletteRoute(path, _PathHandler(self._metrics, path, methods))
            for path, methods in by_path.items()
        ]
        starlette = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={404: _not_found, Exception: _failed},
        )
        starlette.router.redirect_slashes = False  # a redirect would lead to wherever the Host header says
        self.app: ASGIApp = _RawPaths(starlette)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        if self._schedule is not None:
            self._schedule.start()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                if self._schedule is not None:
                    await anyio.to_thread.run_sync(self._schedule.stop)
                if self._alerts is not None:
                    await anyio.to_thread.run_sync(partial(self._alerts.finish, last=True))
                await anyio.to_thread.run_sync(self._projects.close)

    def _watchers(self, options: Options, events: Events | None) -> tuple[Watcher, ...]:
        watchers: list[Watcher] = [] if events is None else [events]
        if self._alerts is not None:
            watchers.append(AlertWatcher(self._alerts, options.thresholds, self._projects.clock))
        return tuple(watchers)

    async def _asked(self, gate: TurnGate, project: str, request: Request, work: Callable[[], T]) -> T:
        """Run work on a project's store in a thread, when it is this request's turn."""
        self._circuits.check(project)
        async with gate.enter(project, lambda: _left(request)):
            return await in_thread(lambda: self._circuits.run(project, work))

    def _endpoint(self, route: ApiRoute) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            key = await self._access.key_of(request)
            check_role(key, route.role)
            project = ""
            if route.project:
                project = check_id(_unquoted(request.path_params["project"]), name="project")
                check_key_project(key, project)
            query = route.read_query(_query(request))
            async with AsyncExitStack() as until_answered:
                body, length = await self._body(route, key, request, until_answered)
                to_write = route.role != "read"
                call = Call(key, project, self._projects, body, query, dict(request.cookies), to_write)
                # A forecast reads records, as a report does.
                is_heavy = route.heavy or length > LARGE or query.get("forecast", False)
                gate = self._heavy if is_heavy else self._quick
                whose = project or key.project or _named(body)
                answer, text = await self._asked(gate, whose, request, lambda: self._answer(route, call))
            self._metrics.count(route.name, answer)
            return Response(text, 200, call.headers, "application/json")

        return endpoint

    async def _body(
        self, route: ApiRoute, key: Key, request: Request, until_answered: AsyncExitStack
    ) -> tuple[Any, int]:
        """Return a request's body and its length in bytes; one key may send few large bodies at once."""
        if route.body is None:
            return None, 0
        if route.most > LARGE and announced(request) > LARGE:
            await until_answered.enter_async_context(self._bodies.enter(key.id, anyio.sleep_forever))
        return await read_json(request, route.most)

    def _answer(self, route: ApiRoute, call: Call) -> tuple[Mapping[str, Any], bytes]:
        """Return a call's answer, and its JSON: many rows take long to write, too."""
        with self._projects.listening() as told:
            answer = plain(route.answer(replace(call, body=route.read_body(call.body))))
        if told and route.project:
            answer["told"] = told
        return answer, to_json(answer)

    async def _healthz(self, request: Request) -> Response:
        return json_response({"status": "ok"})

    async def _readyz(self, request: Request) -> Response:
        # Anybody may ask, so the store is asked no more often than the keys are read.
        if time.monotonic() - self._ready_at >= self._fresh:
            await self._asked(self._quick, KEYS_PROJECT, request, lambda: self._projects.keys.read(_READY))
            self._ready_at = time.monotonic()
        return json_response({"status": "ok"})

    async def _show_metrics(self, request: Request) -> Response:
        await self._access.key_of(request)
        async with self._heavy.enter(_METRICS, lambda: _left(request)):
            return Response(await in_thread(self._metrics.text), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        return Response(_document(), media_type="application/json")


class _PathHandler:
    """The handler of one path: it chooses by method, measures, and turns errors into answers."""

    def __init__(self, metrics: Metrics, path: str, methods: Mapping[str, Callable[[Request], Any]]) -> None:
        self._metrics = metrics
        self._path = path
        self._logged = float("-inf")
        self._methods = {**methods, **({"HEAD": methods["GET"]} if "GET" in methods else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        started = time.perf_counter()
        response = await self._respond(request)
        method = request.method if request.method in self._methods else "other"
        self._metrics.observe(self._path, method, response.status_code, time.perf_counter() - started)
        await response(scope, receive, send)

    def _log_failure(self, failure: str) -> None:
        # While a store is down each request fails alike, and anybody may send requests.
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            _log.error("the store failed: %s", failure)

    async def _respond(self, request: Request) -> Response:
        try:
            answer = self._methods.get(request.method)
            if answer is None:
                allowed = ", ".join(sorted(self._methods))
                return error_response(MethodNotAllowed(f"this takes {allowed}"), {"Allow": allowed})
            response = await answer(request)
            assert isinstance(response, Response)
            return response
        except StoreError as error:
            self._log_failure(str(error))
            return error_response(error)
        except BudgetGuardError as error:
            return error_response(error)
        except Exception:  # noqa: BLE001  # whatever it is, clients are told nothing of it
            _log.exception("%s %s failed", request.method, self._path)
            return error_response(InternalError("the service failed; its log says more"))


class _RawPaths:
    """Middleware: route by the path as it was sent, so that a project's name may have an encoded slash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": scope["raw_path"].decode("latin-1")}
        await self._app(scope, receive, send)


def json_response(
    value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response of JSON."""
    return Response(to_json(value), status, headers, "application/json")


def to_json(value: Mapping[str, Any]) -> bytes:
    """Write JSON in ASCII: names may hold what UTF-8 cannot."""
    return _encode(value).encode()


def error_response(error: BudgetGuardError, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as its status and its JSON."""
    told = for_clients(error)
    return json_response(told.to_dict(), told.status, {**getattr(told, "headers", {}), **(headers or {})})


@cache
def _document() -> bytes:
    # Made once: it takes long, and anybody may ask for it.
    return to_json(document(ROUTES))


def _schedule(options: Options, projects: Projects, events: Events | None) -> Schedule:
    name = f"{socket.gethostname()}:{os.getpid()}"
    lease = Lease(projects.leader, projects.clock, name, options.lease)
    projects.note()
    if events is None or options.webhook is None:
        return Schedule(projects, lease, options.refresh)
    delivery = Delivery(events, options.webhook, options.retry)
    return Schedule(projects, lease, options.refresh, events, delivery)


async def _not_found(request: Request, _error: Exception) -> Response:
    return error_response(NotFound("there is nothing here: see /v1/openapi.json"))


async def _failed(request: Request, _error: Exception) -> Response:
    return error_response(InternalError("the service failed; its log says more"))


async def _left(request: Request) -> None:
    """Return when the client has disconnected; for requests whose body is read, or that have none."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _named(body: Any) -> str:
    """Return the project that a body of LiteLLM's names, for a key of all projects."""
    name = body.get("project_name") if isinstance(body, dict) else None
    return name if isinstance(name, str) else ""


def _unquoted(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"the project's name in the path is not UTF-8: {unquote(text)[:60]!r}") from None


def _query(request: Request) -> list[tuple[str, str]]:
    try:
        # Names of models may hold lone surrogates, which clients encode as what they would be.
        return parse_qsl(
            request.url.query, keep_blank_values=True, errors="surrogatepass", max_num_fields=_MOST_PARAMETERS
        )
    except UnicodeDecodeError:
        raise BadRequest("the query is not UTF-8") from None
    except ValueError:
        raise BadRequest(f"the query has more than {_MOST_PARAMETERS} parameters") from None
