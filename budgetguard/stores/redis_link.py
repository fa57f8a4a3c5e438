"""Commands to Redis and Valkey: over kept connections, bounded in time, sent again after an outage.

redis-py makes the connections and reads the answers. Which server to ask is decided here: the master that
Sentinels name, or the node that has the project's slot. All keys of a verb share one slot, so of redis-py's
cluster client only redirections would be used, and it bounds each of its steps and not the whole.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from redis import exceptions as errors
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from budgetguard.errors import StoreError
from budgetguard.stores import remedies
from budgetguard.stores.link import ServerLink
from budgetguard.stores.targets import RedisKind, RedisTarget

Address: TypeAlias = tuple[str, int]

_ASK_EVERY: Final = 1.0
"""Seconds after which a server is asked again whether it evicts."""

_SHORTEST_WAIT: Final = 0.05
"""Seconds that a step is given even where the deadline has passed, so that it can say what is wrong."""

_PASSING: Final = (
    errors.ConnectionError,
    errors.ReadOnlyError,
    errors.BusyLoadingError,
    errors.ClusterDownError,
    errors.MasterDownError,
    errors.TryAgainError,
    errors.MovedError,
    errors.AskError,
)
"""What passes by itself: a restart, a failover, a slot on its way to another node."""

_TO_EXPLAIN: Final = (errors.RedisError, OSError, UnicodeError)

_STOPPED: Final = re.compile(r"Error running script .*?: -(?=[A-Z]+ )", re.DOTALL)
_KINDS: Final[dict[str, Callable[[str], errors.ResponseError]]] = {
    "OOM": errors.OutOfMemoryError,
    "READONLY": errors.ReadOnlyError,
    "MOVED": errors.MovedError,
    "ASK": errors.AskError,
    "TRYAGAIN": errors.TryAgainError,
    "CLUSTERDOWN": errors.ClusterDownError,
    "MASTERDOWN": errors.MasterDownError,
}


class RedisConnection(Protocol):
    """What is used of redis-py's connections, whose own types change from version to version."""

    def connect(self) -> None:
        """Connect and log in."""

    def disconnect(self) -> None:
        """Close the socket."""

    def send_packed_command(self, command: Sequence[bytes], check_health: bool) -> None:
        """Send what is packed already."""

    def can_read(self, timeout: float) -> bool:
        """Wait for an answer to begin, in seconds; False if it did not."""

    def read_response(self, disable_decoding: bool) -> Any:
        """Return the answer, or raise it."""


_TCP: Final[Callable[..., RedisConnection]] = Connection
_TLS: Final[Callable[..., RedisConnection]] = SSLConnection
_UNIX: Final[Callable[..., RedisConnection]] = UnixDomainSocketConnection


class ClusterNodeError(errors.RedisError):
    """A node of a cluster was asked as if it were a server of its own."""


class LuaScript:
    """A script's text, and its command up to the arguments."""

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


class RedisLink(ServerLink[RedisConnection]):
    """Run commands on the server that a target names, from any thread, each within a deadline.

    Args:
        target: which server.
    """

    def __init__(self, target: RedisTarget) -> None:
        self.target = target
        self._route = _ROUTES[target.kind](target)
        super().__init__(target.timeout)

    def run(self, script: LuaScript, arguments: Sequence[bytes], deadline: float) -> Any:
        """Run a script over keys that share one hash tag; `arguments` begins with the key.

        It may run twice if the connection breaks, so it must count once.

        Raises:
            StoreError: the server could not be asked, or said no.
        """
        try:
            try:
                return self._send(script.command(arguments, known=True), deadline)
            except errors.NoScriptError:
                return self._send(script.command(arguments, known=False), deadline)
        except _TO_EXPLAIN as error:
            raise self._explained(error) from error

    def ask(self, *words: bytes) -> Any:
        """Run a command.

        Raises:
            StoreError: the server could not be asked, or said no.
        """
        try:
            return self._send(_command(words), self.deadline())
        except _TO_EXPLAIN as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> StoreError:
        if isinstance(error, errors.MovedError | errors.AskError) and self.target.kind != "cluster":
            error = ClusterNodeError(str(error))
        return StoreError(remedies.explain(error, self.target, self.target.timeout, remedies.REDIS))

    def _send(self, packed: bytes, deadline: float) -> Any:
        def attempt(connection: RedisConnection) -> Any:
            try:
                connection.send_packed_command([packed], check_health=False)
                if not connection.can_read(timeout=max(deadline - time.monotonic(), _SHORTEST_WAIT)):
                    raise errors.TimeoutError("no answer")
                return connection.read_response(disable_decoding=True)
            except errors.ResponseError as caught:
                error = _typed(caught)
                raise error from (None if error is caught else caught)

        return self._repeat(attempt, deadline)

    def _connect(self, deadline: float) -> RedisConnection:
        connection = _connected(self.target, self._route.address(deadline), deadline)
        try:
            self._route.check(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _disconnect(self, connection: RedisConnection) -> None:
        connection.disconnect()

    def _is_in_order(self, connection: RedisConnection, error: BaseException | None) -> bool:
        # Any other error, and an interrupt too, leaves an answer unread.
        return error is None or (isinstance(error, errors.ResponseError) and not isinstance(error, _PASSING))

    def _retry_after(self, error: Exception, connection: RedisConnection | None) -> float | None:
        if not isinstance(error, _PASSING) or isinstance(error, errors.AuthenticationError):
            return None
        return 0.0 if self._route.can_recover(error) else None


class EvictionCheck:
    """Whether a server would delete budgets when its memory is full; asked anew every second.

    Args:
        link: to the server.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._problem: str | None = None
        self._ask_at = 0.0

    def problem(self) -> str | None:
        """Return what is wrong, or None.

        Raises:
            StoreError: the server cannot be asked.
        """
        if self._problem is not None or time.monotonic() >= self._ask_at:
            self._problem = self._ask()
        return self._problem

    def _ask(self) -> str | None:
        try:
            text = self._link.ask(b"INFO", b"memory")
        except StoreError as error:
            if is_forbidden(error):
                # Its user may not ask: such servers are mostly set up by somebody who knows.
                self._ask_at = math.inf
                return None
            raise
        self._ask_at = time.monotonic() + _ASK_EVERY
        fields = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        policy = fields.get("maxmemory_policy", "noeviction")
        if not int(fields.get("maxmemory", 0)) or policy == "noeviction":
            return None
        return (
            f"the store at {self._link.target} would delete budgets when its memory is full "
            f"(maxmemory-policy {policy}): set maxmemory-policy noeviction, "
            "or give budgetguard a server of its own"
        )


def is_forbidden(error: StoreError) -> bool:
    """Return whether a server refused a command because its user may not run it."""
    return isinstance(error.__cause__, errors.NoPermissionError)


def _connected(
    target: RedisTarget, address: Address, deadline: float, *, sentinel: bool = False
) -> RedisConnection:
    """Return a connection to a server by its address, as the target describes it.

    Raises:
        RedisError: it cannot be reached, or lets nobody in like that.
    """
    wait = max(deadline - time.monotonic(), _SHORTEST_WAIT)
    common: dict[str, Any] = {"socket_timeout": wait, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    if sentinel:
        common |= {"username": target.sentinel_username, "password": target.sentinel_password}
    else:
        common |= {"username": target.username, "password": target.password, "db": target.database}
    if target.kind == "unix":
        connection = _UNIX(path=target.path, **common)
    else:
        common |= {"host": address[0], "port": address[1], "socket_connect_timeout": wait}
        options = dict(target.options)
        if options.pop("ssl_verify", True) is False:
            options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        connection = _TLS(**common, **options) if target.tls else _TCP(socket_keepalive=True, **common)
    try:
        connection.connect()
    except BaseException:
        connection.disconnect()
        raise
    return connection


def _converse(connection: RedisConnection, *words: bytes) -> Any:
    """Send a command and return its answer."""
    connection.send_packed_command([_command(words)], check_health=False)
    return connection.read_response(disable_decoding=True)


def _command(words: Sequence[bytes]) -> bytes:
    """Return a command as it is sent."""
    return b"*%d\r\n%b" % (len(words), _pack(words))


def _pack(words: Sequence[bytes]) -> bytes:
    """Return words as they are sent, without their count."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _typed(error: errors.ResponseError) -> errors.ResponseError:
    """Return an error as the type that it is by its text."""
    # Before 7 Redis told what had stopped a script behind other words, and older versions of redis-py leave
    # what clusters say to its own cluster client.
    text = _STOPPED.sub("", str(error), count=1)
    word, _, rest = text.partition(" ")
    kind = _KINDS.get(word)
    return error if kind is None else kind(rest)


class _ServerRoute:
    """The route to one server."""

    def __init__(self, target: RedisTarget) -> None:
        self._target = target

    def address(self, deadline: float) -> Address:
        """Return where the server is that writes."""
        return self._target.hosts[0] if self._target.hosts else ("", 0)

    def check(self, connection: RedisConnection) -> None:
        """Raise if a server just reached is not the one to write to."""

    def can_recover(self, error: Exception) -> bool:
        """Remember a failure that passes by itself, and return whether it does so on this route."""
        return not isinstance(error, errors.MovedError | errors.AskError)


class _SentinelRoute(_ServerRoute):
    """The route to a master that Sentinels know."""

    def __init__(self, target: RedisTarget) -> None:
        super().__init__(target)
        self._master: Address | None = None

    def address(self, deadline: float) -> Address:
        if self._master is None:
            self._master = self._discover(deadline)
        return self._master

    def check(self, connection: RedisConnection) -> None:
        if _converse(connection, b"ROLE")[0] != b"master":
            raise errors.ConnectionError("the server that the Sentinels name is not a master (yet)")

    def can_recover(self, error: Exception) -> bool:
        self._master = None
        return True

    def _discover(self, deadline: float) -> Address:
        hosts = self._target.hosts
        failure: Exception = errors.ConnectionError(f"no Sentinel knows a master {self._target.service!r}")
        question = b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._target.service.encode()
        for number, address in enumerate(hosts):
            # What is left, shared among the Sentinels that are left: a dead one must not use it all up.
            share = max(deadline - time.monotonic(), _SHORTEST_WAIT) / (len(hosts) - number + 1)
            try:
                connection = _connected(self._target, address, time.monotonic() + share, sentinel=True)
                try:
                    found = _converse(connection, *question)
                finally:
                    connection.disconnect()
            except errors.AuthenticationError:
                raise
            except errors.RedisError as error:
                failure = error
                continue
            if found is not None:
                return found[0].decode(), int(found[1])
        raise failure


class _ClusterRoute(_ServerRoute):
    """The route to the node of a cluster that has the project's slot."""

    def __init__(self, target: RedisTarget) -> None:
        super().__init__(target)
        self._nodes = list(target.hosts)
        self._node: Address = self._nodes[0]
        self._asked = False

    def address(self, deadline: float) -> Address:
        return self._node

    def check(self, connection: RedisConnection) -> None:
        if self._asked:
            return
        # Learned once, so that the cluster is found when the nodes of the URL have died.
        for slots in _converse(connection, b"CLUSTER", b"SLOTS"):
            for node in slots[2:]:
                known = (node[0].decode() if node[0] else self._node[0], int(node[1]))
                if known not in self._nodes:
                    self._nodes.append(known)
        self._asked = True

    def can_recover(self, error: Exception) -> bool:
        if isinstance(error, errors.MovedError):
            self._node = (error.host or self._node[0], int(error.port))
        elif isinstance(error, errors.ConnectionError):
            known = self._nodes.index(self._node) if self._node in self._nodes else -1
            self._node = self._nodes[(known + 1) % len(self._nodes)]
        return True


_ROUTES: Final[dict[RedisKind, type[_ServerRoute]]] = {
    "server": _ServerRoute,
    "unix": _ServerRoute,
    "sentinel": _SentinelRoute,
    "cluster": _ClusterRoute,
}
