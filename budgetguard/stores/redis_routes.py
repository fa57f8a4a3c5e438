"""The ways to the server that writes: one server, the master that Sentinels name, the node of a slot."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AskError, AuthenticationError, ConnectionError, MovedError, RedisError
from redis.retry import Retry

from budgetguard.stores.redis_target import Kind, Target

Address: TypeAlias = tuple[str, int]

SHORTEST_WAIT: Final = 0.05
"""Seconds that a step is given even where the deadline has passed, so that it can say what is wrong."""


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


def connect(target: Target, address: Address, deadline: float, *, sentinel: bool = False) -> Wire:
    """Connect to a server by its address, as the target says.

    Raises:
        RedisError: it cannot be reached, or lets nobody in like that.
    """
    wait = max(deadline - time.monotonic(), SHORTEST_WAIT)
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


def converse(wire: Wire, *words: bytes) -> Any:
    """Send a command and return its answer."""
    wire.send_packed_command([command(words)], check_health=False)
    return wire.read_response(disable_decoding=True)


def command(words: Sequence[bytes]) -> bytes:
    """Return a command as it is sent."""
    return b"*%d\r\n%b" % (len(words), pack(words))


def pack(words: Sequence[bytes]) -> bytes:
    """Return words as they are sent, without their count."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


class Route:
    """Know the way to one server.

    Args:
        target: where a URL leads.
    """

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


class _Sentinel(Route):
    """Know the way to a master that Sentinels know."""

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
            share = max(deadline - time.monotonic(), SHORTEST_WAIT) / (len(hosts) - number + 1)
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


class _Cluster(Route):
    """Know the way to the node of a cluster that has the project's slot."""

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


ROUTES: Final[dict[Kind, type[Route]]] = {
    "server": Route,
    "unix": Route,
    "sentinel": _Sentinel,
    "cluster": _Cluster,
}
