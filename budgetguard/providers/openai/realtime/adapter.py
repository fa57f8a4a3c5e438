"""Guard the websockets of realtime sessions: reserve for what is sent, read what comes.

The SDK's connection stays as it is. What is wrapped are `send`, `recv` and `close` of the websocket below
it, where everything passes: typed helpers, raw events, iteration, what was queued before there was a
connection, and the connections that take the place of a lost one.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import cache, partial
from typing import Any, Final

from budgetguard.config import changed
from budgetguard.core.holds import Charge
from budgetguard.engine.background import background
from budgetguard.engine.context import current_caller
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import Flow, Work, adrive, drive
from budgetguard.engine.payers import CallFacts, charges_for
from budgetguard.engine.provider_call import Do
from budgetguard.engine.refusals import missing_user
from budgetguard.errors import BudgetGuardError, ConfigurationError, StoreError, UnknownModelError
from budgetguard.events import logger
from budgetguard.providers.hooking import MODEL_MAP
from budgetguard.providers.json import is_absent
from budgetguard.providers.openai.azure import NAMES_ARE_MODELS, place_of
from budgetguard.providers.openai.endpoints import TABLE
from budgetguard.providers.openai.realtime.calls import Tariff
from budgetguard.providers.openai.realtime.session import RealtimeSession

PATH: Final = "/realtime"
_GUARD: Final = "_budgetguard"
_JOINS: Final = "joins a call that goes on, and spends, where budgetguard does not see it"


def guarded_manager(engine: Engine, client: Any, manager: Any, arguments: Mapping[str, Any]) -> Any:
    """Return what `realtime.connect()` made, such that the connection it makes is guarded.

    Its type keeps its name and stays an instance of what it was; the connection's own type stays.

    Args:
        engine: whose books.
        client: the SDK's client.
        manager: the SDK's connection manager.
        arguments: those of `connect`.

    Raises:
        UnknownEndpointError: it joins a call that goes on elsewhere.
        UnknownModelError: there is no price for the model.
    """
    if hasattr(manager, _GUARD):
        return manager  # guarded below a wrapper of somebody else's
    query = arguments.get("extra_query")
    query = query if isinstance(query, Mapping) else {}
    if not is_absent(arguments.get("call_id")) or "call_id" in query:
        # What is said in that call costs, and passes elsewhere.
        TABLE.check_allowed("WEBSOCKET", f"{PATH}?call_id", engine.settings.allow_endpoints, _JOINS)
        return manager
    model = query.get("model", arguments.get("model"))
    settings = engine.settings
    if (own := getattr(type(client), MODEL_MAP, None)) is not None:
        settings = changed(settings, {"model_map": {**settings.model_map, **own}})
    address = str(client.base_url)
    tariff = Tariff(
        address,
        place_of(client).provider,
        settings.is_free(address),
        str if NAMES_ARE_MODELS.match(address) else settings.model_of,
    )
    kind: Any = type(manager)
    asynchronous = hasattr(kind, "__aenter__")
    guard = _ConnectionGuard(
        engine, None if is_absent(model) else str(model), tariff, asynchronous=asynchronous
    )
    manager.__class__ = _guarded_kind(kind, asynchronous)
    setattr(manager, _GUARD, guard)
    return manager


class _ConnectionGuard:
    """What the websockets of one connection manager share: one, and those that take its place."""

    def __init__(self, engine: Engine, model: str | None, tariff: Tariff, *, asynchronous: bool) -> None:
        self.engine = engine
        self.asynchronous = asynchronous
        self.refused: BudgetGuardError | None = None
        self._model = model
        self._tariff = tariff
        self._sockets: list[_GuardedSocket] = []
        self._pid = os.getpid()

    @property
    def blocking(self) -> bool:
        return self.engine.blocking

    def begin(self) -> None:
        """Check that somebody can pay, before there is a connection, which itself costs nothing.

        Raises:
            BudgetGuardError: nobody can, or the model has no price.
        """
        engine, model, settings = self.engine, self._model or "", self.engine.settings
        self.refused = None
        free = False
        if self._model is not None:
            try:
                free = self._tariff.rates(engine.prices, self._tariff.model_of(model)).is_free
            except UnknownModelError:
                if settings.unknown_model == "error":
                    raise
        if free:
            return
        caller = current_caller(engine)
        user = caller.user or settings.user
        engine.check_payer(user, caller.lost, self._model or "a realtime session")
        try:
            engine.judge.is_current(engine.store, ())
            facts = CallFacts(
                user, caller.runs, model, "realtime", labels=caller.labels, known=engine.judge.known
            )
            self._find_payer(user, charges_for(facts, engine))
        except StoreError:
            if settings.on_store_error == "block":
                raise

    def _find_payer(self, user: str | None, charges: Iterable[Charge]) -> None:
        engine, limited = self.engine, False
        for charge in charges:
            balance = engine.store.read(charge.account)
            if balance is None and charge.required and charge.budget is None:
                raise engine.unknown(charge.account, user)
            limit = charge.budget if balance is None else balance.limit_nanos
            limited = limited or limit is not None
        if not limited and engine.settings.missing_user != "allow":
            raise missing_user(self._model or "a realtime session", engine.project)

    def cover(self, socket: Any) -> Any:
        """Guard a websocket, once, and return it."""
        if not any(one.socket is socket for one in self._sockets):
            session = RealtimeSession(self.engine, self._model, self._tariff)
            self._sockets = [one for one in self._sockets if not one.is_over]
            self._sockets.append(_GuardedSocket(self, socket, session))
        return socket

    def watch(self, connection: object) -> None:
        """End everything when the SDK's connection is garbage."""
        background.when_dropped(connection, self._dropped)

    def _dropped(self) -> None:
        if self._pid == os.getpid():  # a forked child drops copies of what its parent still uses
            for one in self._sockets:
                one.drop()


class _GuardedSocket:
    """The guard of one websocket.

    Args:
        guard: of the connection that it belongs to.
        socket: a `ClientConnection` of the package `websockets`.
        session: what passes through it.
    """

    def __init__(self, guard: _ConnectionGuard, socket: Any, session: RealtimeSession) -> None:
        self.socket = socket
        self._guard = guard
        self._session = session
        self._unread: deque[Any] = deque()
        self._closed = self._is_cut = False
        self._run: Callable[[Flow], Any] = adrive if guard.asynchronous else drive
        self._send, self._recv, self._close = socket.send, socket.recv, socket.close
        socket.send, socket.recv, socket.close = self.send, self.recv, self.close

    @property
    def is_over(self) -> bool:
        """Whether nothing passes any more."""
        return self._closed

    def send(self, message: Any, *args: Any, **kwargs: Any) -> Any:
        return self._run(self._sending(message, args, kwargs))

    def recv(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self._receiving(partial(self._recv, *args, **kwargs)))

    def close(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self._closing(partial(self._close, *args, **kwargs)))

    def drop(self) -> None:
        """Cut the websocket and settle what is open: nobody would see what is spent from here on."""
        if not self._closed:
            self._closed = self._is_cut = True
            self._session.over()
            try:
                self._cut()
            except (OSError, RuntimeError, AttributeError):  # gone, or its event loop is
                logger.debug("budgetguard: a dropped websocket could not be closed", exc_info=True)

    def _cut(self) -> None:
        if self._guard.asynchronous:
            self.socket.loop.call_soon_threadsafe(self.socket.transport.abort)
        else:
            self.socket.close_socket()

    def _sending(self, message: Any, args: Any, kwargs: Any) -> Flow:
        if not isinstance(message, str | bytes | bytearray | memoryview):
            raise ConfigurationError(
                f"a guarded realtime connection sends events as text or bytes, not {type(message).__name__}"
            )
        event = _parsed(message)
        outgoing = None if event is None else self._session.outgoing(event)
        if outgoing is None:
            return (yield Do(partial(self._send, message, *args, **kwargs)))
        try:
            yield Work(outgoing.reserve, self._session.blocking)
        except BudgetGuardError as error:
            self._guard.refused = copy(error)
            raise
        except BaseException:
            yield Work(outgoing.failed, self._session.blocking)
            raise
        if outgoing.event is not None:
            message = _dumped(outgoing.event, message)
        try:
            return (yield Do(partial(self._send, message, *args, **kwargs)))
        except Exception:
            yield Work(outgoing.failed, self._session.blocking)
            raise

    def _receiving(self, receive: Callable[[], Any]) -> Flow:
        session = self._session
        if not self._unread and not session.is_ending:
            try:
                message = yield Do(receive)
            except Exception as error:
                if _is_closed(error):
                    self._closed = True
                    yield Work(session.over, session.blocking)
                    if session.refusal is not None:
                        raise copy(session.refusal) from error
                raise
            event = _parsed(message)
            job, shown = (None, None) if event is None else session.incoming(event)
            # Kept until it is handed out, so that who is cancelled meanwhile finds it later.
            self._unread.append(message if shown is None else _dumped(shown, message))
            if job is not None:
                yield Work(job, session.blocking)
        if session.is_ending and not self._closed:
            # Not by a handshake, which would wait for whatever the server is saying to be read.
            yield Work(self.drop, session.blocking)
            if session.stops:
                self._unread.clear()
        if self._unread:
            return self._unread.popleft()
        assert session.refusal is not None
        # A copy: one that was raised keeps alive who it was raised to.
        raise copy(session.refusal)

    def _closing(self, close: Callable[[], Any]) -> Flow:
        if self._is_cut:
            return  # there is nobody to say goodbye to
        self._closed = True
        try:
            yield Do(close)
        finally:
            yield Work(self._session.over, self._session.blocking)


@cache
def _guarded_kind(kind: Any, asynchronous: bool) -> type:
    run: Callable[[Flow], Any] = adrive if asynchronous else drive
    name = "__aenter__" if asynchronous else "__enter__"
    former = getattr(kind, name)

    def enter(self: Any) -> Any:
        return run(_entering(getattr(self, _GUARD), partial(former, self)))

    def connect(self: Any, *args: Any, **kwargs: Any) -> Any:
        return run(_connecting(getattr(self, _GUARD), partial(kind._connect_ws, self, *args, **kwargs)))

    methods = {name: enter, "enter": enter}
    if hasattr(kind, "_connect_ws"):
        methods["_connect_ws"] = connect
    return with_methods(kind, methods)


def with_methods(kind: type, methods: Mapping[str, Any]) -> type:
    """Return a class of the SDK's with other methods, that looks like what it was and is a subclass of it."""
    looks = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {**looks, **methods})


def _entering(guard: _ConnectionGuard, enter: Callable[[], Any]) -> Flow:
    yield Work(guard.begin, guard.blocking)
    connection = yield Do(enter)
    guard.cover(connection._connection)
    guard.watch(connection)
    if guard.refused is not None:
        # The SDK lets pass what goes wrong with events that were queued before; a refusal must be seen.
        yield Do(connection.close)
        raise copy(guard.refused)
    return connection


def _connecting(guard: _ConnectionGuard, connect: Callable[[], Any]) -> Flow:
    return guard.cover((yield Do(connect)))


def _parsed(message: Any) -> Mapping[str, Any] | None:
    try:
        event = json.loads(bytes(message) if isinstance(message, memoryview) else message)
    except (ValueError, RecursionError):
        return None  # whoever gets it says what is wrong with it
    return event if isinstance(event, dict) else None


def _dumped(event: Mapping[str, Any], like: Any) -> str | bytes:
    dumped = json.dumps(event)
    return dumped if isinstance(like, str) else dumped.encode()


def _is_closed(error: BaseException) -> bool:
    return any(kind.__name__ == "ConnectionClosed" for kind in type(error).__mro__)
