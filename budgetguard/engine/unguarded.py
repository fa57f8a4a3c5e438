"""What goes around the guard: connections to model providers that no guarded call makes.

The interpreter tells of every look-up of a host and every connection before it is made (see `core.audit`),
whichever library makes it. Those to a provider's host are looked at: if a guarded call is under way around
them, or a request that a guard lets pass, they are its own. All others are told, or refused, as the settings
of the guards say that are in force.

Look-ups for an event loop run in threads of a pool, whose jobs carry the call that they were asked for in
(see `threads`). What is looked up inside a call may be connected to later, by its number: so the addresses
that look-ups of providers' hosts find are remembered.

Everything here runs in the middle of other people's connections: nothing may leave but a refusal.
"""

from __future__ import annotations

import functools
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

import wrapt

from budgetguard import events
from budgetguard.core.audit import listen
from budgetguard.engine.background import engines
from budgetguard.engine.context import current_user, is_inside_call
from budgetguard.engine.emitting import emit
from budgetguard.errors import UnguardedCallError
from budgetguard.events import logger
from budgetguard.pricing.addresses import Address
from budgetguard.pricing.hosts import EVENTS, REMEDY, Hosts, plain, target_of, told

if TYPE_CHECKING:
    from budgetguard.config import OnUnguarded
    from budgetguard.engine.engine import Engine

_MOST_REMEMBERED: Final = 4096
# Who connects on behalf of others.
_GO_BETWEENS: Final = frozenset(
    {
        "_budgetguard_run",
        "aiohappyeyeballs",
        "aiohttp",
        "anyio",
        "asyncio",
        "botocore",
        "budgetguard",
        "concurrent",
        "contextlib",
        "functools",
        "gevent",
        "h11",
        "h2",
        "http",
        "httpcore",
        "httpcore2",
        "httpx",
        "httpx2",
        "requests",
        "selectors",
        "socket",
        "ssl",
        "tenacity",
        "threading",
        "trio",
        "urllib",
        "urllib3",
        "uvloop",
        "websocket",
        "websockets",
        "wrapt",
    }
)
# SDKs that connect in C, where the interpreter tells nothing.
_UNSEEN: Final = {
    "vertexai": "sends over gRPC",
    "xai_sdk": "sends over gRPC",
}


# Who hears of a connection may connect as well. Of a context, not a thread: greenlets share those.
_telling: ContextVar[bool] = ContextVar("budgetguard_telling", default=False)


class _Watcher:
    """The one that looks at the connections of this process.

    Attributes:
        on: whether anything is told or refused.
    """

    def __init__(self) -> None:
        self.on = False
        self._lock = threading.RLock()
        # What is guarded by an engine: SDKs that are patched for it, and whether it has wrapped a client.
        self._guarding: WeakKeyDictionary[Engine, set[object]] = WeakKeyDictionary()
        self._watching: tuple[ref[Engine], ...] = ()
        # The hosts that engines know by the setting, and those that any of them knows.
        self._known: dict[tuple[str, ...], Hosts] = {}
        self._hosts = Hosts()
        self._listening = False
        self._told: dict[tuple[str, bool], object] = {}
        # Numeric address -> the provider's host that a look-up found it for; and what others were found at.
        self._found: dict[object, str] = {}
        self._others: set[object] = set()

    def guards(self, engine: Engine, what: object) -> None:
        """Note that an engine guards something, so that what goes around it is watched for."""
        with self._lock:
            self._guarding.setdefault(engine, set()).add(what)
        self.refresh()

    def guards_no_more(self, engine: Engine, what: object) -> None:
        """Undo `guards`."""
        with self._lock:
            self._guarding.get(engine, set()).discard(what)
        self.refresh()

    def refresh(self) -> None:
        """Take the settings of all engines as they are now."""
        with self._lock:
            watching = [engine for engine in _all_engines() if self._mode(engine) != "allow"]
            self._watching = tuple(ref(engine) for engine in watching)
            known = {engine.settings.provider_hosts for engine in watching}
            if known != self._known.keys():
                self._known = {more: Hosts(more) for more in known}
                self._hosts = Hosts(host for more in known for host in more)
            self.on = bool(watching)
            begin, self._listening = self.on and not self._listening, self._listening or self.on
        if begin:
            listen(EVENTS, self.look)
            self._follow_lookups()
            wrapt.register_post_import_hook(self._follow_uvloop, "uvloop")
            for name in _UNSEEN:
                wrapt.register_post_import_hook(self._imported, name)

    @property
    def decides(self) -> bool:
        """Whether there is anybody here who knows what is guarded; else a run's own hook decides."""
        return bool(engines)

    def look(self, event: str, args: tuple[Any, ...]) -> None:
        """Look at a connection that is about to be made.

        Raises:
            UnguardedCallError: it is refused.
        """
        if not self.on:
            return
        try:
            refusal = self._judge(event, args)
        except Exception:  # noqa: BLE001 - the connection is somebody else's, and so is the error
            return
        if refusal is not None:
            if event == "socket.connect":
                # Who has made it closes it after an OSError, which this is not.
                with suppress(Exception):
                    args[0].close()
            raise refusal

    def _judge(self, event: str, args: tuple[Any, ...]) -> UnguardedCallError | None:
        target = target_of(event, args)
        if target is None:
            return None
        host, port = target
        address = self._hosts.address(host, port)
        if address is None and event == "socket.connect" and host in self._found:
            host = self._found[host]
            address = self._hosts.address(host, port)
        if address is None or _telling.get() or is_inside_call():
            return None
        watching = [
            engine
            for one in self._watching
            if (engine := one()) is not None and self._concerns(engine, host, port)
        ]
        if not watching:
            return None
        # The strictest word counts: whose call it is cannot be known.
        refused = any(self._mode(engine) == "block" for engine in watching)
        caller = _caller(sys._getframe(1))
        token = object()
        if self._told.setdefault((address, refused), token) is token:
            mark = _telling.set(True)
            try:
                self._tell(watching, address, caller, refused=refused)
            except Exception:  # noqa: BLE001 - it is refused, whoever fails to hear of it
                self._told.pop((address, refused), None)
            finally:
                _telling.reset(mark)
        return UnguardedCallError(told(address, caller, True), address=address) if refused else None

    def _concerns(self, engine: Engine, host: object, port: object) -> bool:
        """Whether a host is a provider's by an engine's settings, and not declared to cost nothing there."""
        known = self._known.get(engine.settings.provider_hosts)
        if known is None or known.address(host, port) is None:
            return False
        declared = (Address.of(free) for free in engine.settings.free_base_urls)
        return not any(one is not None and one.host == plain(host) for one in declared)

    def _mode(self, engine: Engine) -> OnUnguarded:
        return engine.settings.unguarded or ("warn" if self._guarding.get(engine) else "allow")

    def _tell(self, watching: list[Engine], address: str, caller: str | None, *, refused: bool) -> None:
        logger.warning("budgetguard: %s", told(address, caller, refused))
        user = current_user()
        for engine in {id(engine.hooks): engine for engine in watching}.values():
            emit(
                engine, events.Unguarded, user=user, model="", address=address, refused=refused, caller=caller
            )

    def _follow_lookups(self) -> None:
        """Remember what look-ups find. The events tell of them before they are made."""
        look_up = socket.getaddrinfo

        @functools.wraps(look_up)
        def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            found = look_up(*args, **kwargs)
            if self.on:
                self._remember(args[0] if args else kwargs.get("host"), found)
            return found

        socket.getaddrinfo = getaddrinfo

    def _remember(self, host: object, found: list[tuple[Any, ...]]) -> None:
        try:
            numbers = {one[4][0] for one in found}
            if plain(host) in numbers:
                return
            if len(self._found) + len(self._others) + len(numbers) > _MOST_REMEMBERED:
                self._found.clear()
                self._others.clear()
            # Who shares an address with others, as behind a network that delivers for many, cannot be told.
            if self._hosts.knows(host):
                for number in numbers - self._others:
                    self._found[number] = plain(host)
            else:
                self._others |= numbers
                for number in numbers:
                    self._found.pop(number, None)
        except Exception:  # noqa: BLE001 - as above
            return

    def _follow_uvloop(self, uvloop: ModuleType) -> None:
        """Look at what uvloop, which connects in C, is asked for."""

        def look_up(wrapped: Callable[..., Any], _loop: object, args: Any, kwargs: Any) -> Any:
            self._look_at(*_named(("host", "port"), args, kwargs))
            return wrapped(*args, **kwargs)

        def connect(wrapped: Callable[..., Any], _loop: object, args: Any, kwargs: Any) -> Any:
            self._look_at(*_named(("host", "port"), args[1:], kwargs))
            return wrapped(*args, **kwargs)

        wrapt.wrap_function_wrapper(uvloop.Loop, "getaddrinfo", look_up)
        wrapt.wrap_function_wrapper(uvloop.Loop, "create_connection", connect)

    def _look_at(self, host: object, port: object) -> None:
        if host is not None:
            self.look("socket.getaddrinfo", (host, port))

    def _imported(self, module: ModuleType) -> None:
        """Tell of an SDK whose connections nobody sees."""
        try:
            name = module.__name__
            if self.on and self._told.setdefault((name, False), name) is name:
                logger.warning(
                    "budgetguard: %s is imported, and %s, past everything that Python tells of: unless a "
                    "guarded call is around it, what it spends is not seen, not limited and not booked. To "
                    "guard it, %s",
                    name,
                    _UNSEEN[name],
                    REMEDY,
                )
        except Exception:  # noqa: BLE001 - as above; it would leave from the import
            return


def _all_engines() -> list[Engine]:
    while True:
        try:
            return list(engines)
        except RuntimeError:  # another thread makes one
            continue


def _named(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(args[place] if place < len(args) else kwargs.get(name) for place, name in enumerate(names))


def _caller(frame: FrameType | None) -> str | None:
    """Return who connects, by the stack; None where it has only those who connect on behalf of others."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.partition(".")[0] not in _GO_BETWEENS:
            where = frame.f_code.co_filename if name == "__main__" else name
            return f"{where}:{frame.f_lineno}"
        frame = frame.f_back
    return None


watcher: Final = _Watcher()
