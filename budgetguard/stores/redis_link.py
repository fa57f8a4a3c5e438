"""Connections to Redis and Valkey: pooled, bounded in time, made again after a restart or a failover.

redis-py makes the connections and reads the answers; which server to ask, for how long and how often is
decided here, because its own clients bound each step of a command and not the whole.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from budgetguard.errors import StoreError
from budgetguard.stores.redis_target import Target

Address: TypeAlias = tuple[str, int]


class Wire(Protocol):
    """What is used of redis-py's connections, whose own types change from version to version."""

    def connect(self) -> None:
        """Connect and log in."""

    def disconnect(self) -> None:
        """Let go of the socket."""

    def send_packed_command(self, command: Sequence[bytes], check_health: bool) -> None:
        """Send what is packed already."""

    def can_read(self, timeout: float) -> bool:
        """Wait for an answer to begin, in seconds; False if it did not."""

    def read_response(self, disable_decoding: bool) -> Any:
        """Return the answer, or raise it."""


_TCP: Final[Callable[..., Wire]] = Connection
_TLS: Final[Callable[..., Wire]] = SSLConnection
_UNIX: Final[Callable[..., Any]] = UnixDomainSocketConnection

# What passes by itself: a restart, a failover, a slot on its way to another node.
_PASSING: Final = (
    ConnectionError,
    ReadOnlyError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    TryAgainError,
    MovedError,
    AskError,
)
_STOPPED: Final = re.compile(r"Error running script .*?: -(?=[A-Z]+ )", re.DOTALL)
_KINDS: Final[dict[str, Callable[[str], ResponseError]]] = {
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "MOVED": MovedError,
    "ASK": AskError,
    "TRYAGAIN": TryAgainError,
    "CLUSTERDOWN": ClusterDownError,
    "MASTERDOWN": MasterDownError,
}
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_SHORTEST_WAIT: Final = 0.05
_DICE: Final = random.SystemRandom()
_KEPT_AT_MOST: Final = 64


class Script:
    """Hold a script's text, and its command up to the arguments.

    Attributes:
        text: the Lua of it.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        source = text.encode()
        digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        self._known = _pack((b"EVALSHA", digest, b"1"))
        self._whole = _pack((b"EVAL", source, b"1"))

    def command(self, arguments: Sequence[bytes], *, known: bool) -> bytes:
        """Return the command that runs this, by its digest if the server knows it."""
        head = self._known if known else self._whole
        return b"*%d\r\n%b%b" % (3 + len(arguments), head, _pack(arguments))


class Link:
    """Run commands on the server that a target names, from any thread, each within a deadline.

    Args:
        target: which server.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._route = _ROUTES[target.kind](target)
        self._idle: deque[Wire] = deque()
        self._owner = os.getpid()

    def deadline(self) -> float:
        """Return until when a verb that begins now may take (time.monotonic())."""
        return time.monotonic() + self._target.timeout

    def run(self, script: Script, arguments: Sequence[bytes], deadline: float) -> Any:
        """Run a script over keys that share one hash tag; `arguments` begins with the key.

        It may run twice if the connection breaks, so it must count once.

        Raises:
            StoreError: the server could not be asked, or said no.
        """
        known = script.command(arguments, known=True)
        try:
            try:
                return self._ask(known, deadline)
            except NoScriptError:
                return self._ask(script.command(arguments, known=False), deadline)
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreError(explain(error, self._target)) from error

    def ask(self, *words: bytes) -> Any:
        """Run a command.

        Raises:
            StoreError: the server could not be asked, or said no.
        """
        try:
            return self._ask(_command(words), self.deadline())
        except (RedisError, OSError, UnicodeError) as error:
            raise StoreError(explain(error, self._target)) from error

    def close(self) -> None:
        """Let go of the connections that are not in use."""
        while self._idle:
            self._idle.pop().disconnect()

    def _ask(self, command: bytes, deadline: float) -> Any:
        pause = 0.0
        while True:
            try:
                return self._ask_once(command, deadline)
            except _PASSING as error:
                if isinstance(error, AuthenticationError):
                    raise
                self._route.failed(error)
                if not isinstance(error, ResponseError):
                    self.close()  # what is idle was made before whatever has happened
                if time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
                # The first time at once: the server may merely have closed what was idle for long.
                pause = min(pause * 2, _LONGEST_PAUSE) * _DICE.uniform(0.7, 1) if pause else _FIRST_PAUSE

    def _ask_once(self, command: bytes, deadline: float) -> Any:
        wire = self._take() or self._connect(deadline)
        try:
            wire.send_packed_command([command], check_health=False)
            if not wire.can_read(timeout=max(deadline - time.monotonic(), _SHORTEST_WAIT)):
                raise TimeoutError("no answer")
            answer = wire.read_response(disable_decoding=True)
        except ResponseError as caught:
            error = _typed(caught)
            if isinstance(error, _PASSING):
                wire.disconnect()
            else:
                self._keep(wire)
            if error is caught:
                raise
            raise error from caught
        except BaseException:
            wire.disconnect()  # an interrupt too leaves an answer unread
            raise
        self._keep(wire)
        return answer

    def _take(self) -> Wire | None:
        if self._owner != os.getpid():
            # A child of a fork must not talk into its parent's connections, nor shut them.
            self._idle, self._owner = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _keep(self, wire: Wire) -> None:
        if len(self._idle) < _KEPT_AT_MOST:
            self._idle.append(wire)
        else:
            wire.disconnect()

    def _connect(self, deadline: float) -> Wire:
        address = self._route.address(deadline)
        wire = connect(self._target, address, deadline)
        try:
            self._route.check(wire)
        except BaseException:
            wire.disconnect()
            raise
        return wire


def connect(target: Target, address: Address, deadline: float, *, sentinel: bool = False) -> Wire:
    """Connect to a server by its address, as the target says.

    Raises:
        RedisError: it cannot be reached, or lets nobody in like that.
    """
    wait = max(deadline - time.monotonic(), _SHORTEST_WAIT)
    common: dict[str, Any] = {
        "socket_timeout": wait,
        "socket_connect_timeout": wait,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if sentinel:
        common |= {"username": target.sentinel_username, "password": target.sentinel_password}
    else:
        common |= {"username": target.username, "password": target.password, "db": target.database}
    wire: Wire
    if target.kind == "unix":
        del common["socket_connect_timeout"]
        wire = _UNIX(path=target.path, **common)
    elif target.tls:
        options = dict(target.options)
        if options.pop("ssl_verify", True) is False:
            options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        wire = _TLS(host=address[0], port=address[1], **common, **options)
    else:
        wire = _TCP(host=address[0], port=address[1], socket_keepalive=True, **common)
    try:
        wire.connect()
    except BaseException:
        wire.disconnect()
        raise
    return wire


class _Server:
    """The way to one server."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def address(self, deadline: float) -> Address:
        """Return where the server is that writes."""
        return self._target.hosts[0] if self._target.hosts else ("", 0)

    def check(self, wire: Wire) -> None:
        """Raise if a server just reached is not the one to write to."""

    def failed(self, error: RedisError) -> None:
        """Learn from a failure."""
        if isinstance(error, MovedError | AskError):
            raise error  # redis:// to a node of a cluster will never do


class _Sentinel(_Server):
    """The way to a master that Sentinels know."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._master: Address | None = None

    def address(self, deadline: float) -> Address:
        if self._master is None:
            self._master = self._discover(deadline)
        return self._master

    def check(self, wire: Wire) -> None:
        role = converse(wire, b"ROLE")
        if role[0] != b"master":
            self._master = None
            raise ConnectionError("the server that the Sentinels name is not a master (yet)")

    def failed(self, error: RedisError) -> None:
        self._master = None

    def _discover(self, deadline: float) -> Address:
        hosts = self._target.hosts
        failure: RedisError = ConnectionError(f"no Sentinel knows a master {self._target.service!r}")
        for number, address in enumerate(hosts):
            # What is left, shared among the Sentinels that are left: a dead one must not use it all up.
            share = max(deadline - time.monotonic(), _SHORTEST_WAIT) / (len(hosts) - number + 1)
            try:
                wire = connect(self._target, address, time.monotonic() + share, sentinel=True)
                try:
                    words = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._target.service.encode())
                    found = converse(wire, *words)
                finally:
                    wire.disconnect()
            except AuthenticationError:
                raise
            except RedisError as error:
                failure = error
                continue
            if found is not None:
                return found[0].decode(), int(found[1])
        raise failure


class _Cluster(_Server):
    """The way to the node of a cluster that has the project's slot."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._nodes = list(target.hosts)
        self._node: Address = self._nodes[0]
        self._asked = False

    def address(self, deadline: float) -> Address:
        return self._node

    def check(self, wire: Wire) -> None:
        if self._asked:
            return
        # Learned once, so that the cluster is found when the nodes of the URL have died.
        for slots in converse(wire, b"CLUSTER", b"SLOTS"):
            for node in slots[2:]:
                known = (node[0].decode() if node[0] else self._node[0], int(node[1]))
                if known not in self._nodes:
                    self._nodes.append(known)
        self._asked = True

    def failed(self, error: RedisError) -> None:
        if isinstance(error, MovedError):
            self._node = (error.host or self._node[0], int(error.port))
        elif isinstance(error, ConnectionError):
            known = self._nodes.index(self._node) if self._node in self._nodes else -1
            self._node = self._nodes[(known + 1) % len(self._nodes)]


_ROUTES: Final = {"server": _Server, "unix": _Server, "sentinel": _Sentinel, "cluster": _Cluster}


def _typed(error: ResponseError) -> ResponseError:
    # Before 7 Redis told what had stopped a script behind other words, and older versions of redis-py leave
    # what clusters say to its own cluster client.
    text = _STOPPED.sub("", str(error), count=1)
    word, _, rest = text.partition(" ")
    kind = _KINDS.get(word)
    return error if kind is None else kind(rest)


def converse(wire: Wire, *words: bytes) -> Any:
    """Send a command and return its answer."""
    wire.send_packed_command([_command(words)], check_health=False)
    return wire.read_response(disable_decoding=True)


def _command(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(words), _pack(words))


def _pack(words: Sequence[bytes]) -> bytes:
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def explain(error: Exception, target: Target) -> str:
    """Say what went wrong and what to do about it, with no password in it."""
    text = str(error)
    if isinstance(error, AuthenticationError):
        remedy = "it wants another user or password: write redis://USER:PASSWORD@HOST"
    elif isinstance(error, NoPermissionError):
        remedy = "its user may not do that: allow it all commands on keys that begin with bg:"
    elif isinstance(error, OutOfMemoryError):
        remedy = "the server is full (maxmemory): give it more memory; nothing was changed"
    elif isinstance(error, ReadOnlyError):
        remedy = "it is a replica: name the primary, or use redis+sentinel://; nothing was changed"
    elif isinstance(error, BusyLoadingError):
        remedy = "it is still loading its data after a restart: try again"
    elif isinstance(error, MovedError | AskError) and target.kind != "cluster":
        remedy = "it is a node of a cluster: write redis+cluster://"
    elif isinstance(error, ClusterDownError | TryAgainError | AskError | MovedError | MasterDownError):
        remedy = "the cluster is failing over or moving the project's slot: try again; nothing was changed"
    elif isinstance(error, TimeoutError):
        remedy = f"it did not answer within {target.timeout:g} s: try again, or raise ?timeout="
    elif _of_tls(error):
        remedy = "TLS failed: check rediss:// or redis://, the port, and ssl_ca_certs="
    elif isinstance(error, ConnectionError):
        remedy = f"it could not be reached for {target.timeout:g} s: is it running, and at that address?"
    elif text.startswith("MISCONF"):
        remedy = "it cannot write to its disk, and refuses to change anything until it can"
    else:
        remedy = "see the cause"
    return f"cannot use the store at {target}: {remedy} ({type(error).__name__}: {text})"


def _of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
