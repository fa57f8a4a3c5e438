"""Connections to PostgreSQL: pooled, bounded in time, made again after a restart.

psycopg makes the connections. Its own pool is not used: that connects in background threads, which a fork
loses, and answers a wrong password with a timeout that does not say why. Nor are its cursors, in verbs: to
convert twenty parameters with them takes as long as the database takes for the verb.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Any, Final
from weakref import WeakSet, WeakValueDictionary

import psycopg
from psycopg import capabilities, pq

from budgetguard.errors import StoreError
from budgetguard.stores import remedies
from budgetguard.stores.link import ServerLink
from budgetguard.stores.locks import take, taken
from budgetguard.stores.targets import PostgresTarget

Value = bytes | None
"""A parameter or an answer, as PostgreSQL writes it as text; None is NULL."""

_INTERVAL: Final = 0.05
_PAUSE: Final = 0.01
_CANCEL_SECONDS: Final = 0.5
_LONGEST_POLL: Final = 1_000_000  # seconds: what poll() can count in milliseconds
_SHORTEST_CONNECT: Final = 2  # seconds: libpq knows nothing shorter

_PASSING_STATES: Final = ("40001", "40P01", "57P03")  # serialization failure, deadlock, starting
# What servers that are starting or stopping say of an attempt to connect, which has no SQLSTATE.
_PASSING_WORDS: Final = ("starting up", "shutting down", "recovery mode", "not yet accepting connections")


class DeadlineError(psycopg.OperationalError):
    """The time that a verb may take is over on this side."""


class PostgresConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every statement ends by a deadline (time.monotonic())."""

    deadline = float("inf")

    def ask(self, statement: bytes, values: list[Value], *, prepare: bool) -> Value:
        """Run a statement that answers with one value, or none, and return it.

        Raises:
            psycopg.Error: the database said no, or the deadline is over.
        """
        if not prepare:
            self.pgconn.send_query_params(statement, values)
            return self._answer()
        name = self._prepared_names.get(statement)
        if name is None:
            name = b"budgetguard_%d" % len(self._prepared_names)
            self.pgconn.send_prepare(name, statement)
            self._answer()
            self._prepared_names[statement] = name
        self.pgconn.send_query_prepared(name, values)
        return self._answer()

    @cached_property
    def _prepared_names(self) -> dict[bytes, bytes]:
        return {}

    def _answer(self) -> Value:
        while self.pgconn.flush():
            self._wait_for_socket(writing=True)
            self.pgconn.consume_input()
        value: Value = None
        error: psycopg.Error | None = None
        while True:
            while self.pgconn.is_busy():
                self._wait_for_socket(writing=False)
                self.pgconn.consume_input()
            result = self.pgconn.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.TUPLES_OK and result.ntuples:
                value = result.get_value(0, 0)
            elif result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
                error = _error_of(result)
        if error is not None:
            raise error
        return value

    def _wait_for_socket(self, *, writing: bool) -> None:
        seconds = max(self.deadline - time.monotonic(), 0)
        if not _is_ready(self.pgconn.socket, seconds, writing=writing):
            raise DeadlineError("no answer in time")

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Wait for the server, and raise DeadlineError once the deadline is over."""
        return super().wait(_until(gen, self.deadline), interval=_INTERVAL)

    def __del__(self, *_: Any) -> None:
        """Do not warn: kept connections end with the program, and inherited ones with the child."""


class _Slots:
    """A semaphore that a signal handler may take while its thread is taking it."""

    def __init__(self, number: int) -> None:
        # Python's semaphores have a lock inside, which such a handler would wait for without end.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(number):
            self._free.put(None)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a slot, and return whether there was one in time (seconds)."""
        try:
            self._free.get(blocking, timeout)
        except Empty:
            return False
        return True

    def release(self) -> None:
        """Return a slot."""
        self._free.put(None)


class PostgresLink(ServerLink[PostgresConnection]):
    """Run statements on a database, from any thread, each within the time that its target states.

    Args:
        target: which database.
        prepare: called with the first connection of this process, before it is used.
    """

    def __init__(self, target: PostgresTarget, prepare: Callable[[PostgresConnection], None]) -> None:
        self._target = target
        self._prepare = prepare
        self._users: WeakSet[Any] = WeakSet()
        super().__init__(target.timeout, kept=target.pool)

    def opened(self, user: object) -> None:
        """Add a user of the connections."""
        self._users.add(user)

    def left(self, user: object) -> None:
        """Remove a user; the last one closes the idle connections.

        A later user may find another database there, so `prepare` is called again.
        """
        self._users.discard(user)
        if not self._users:
            self._prepared = False
            self.close()

    def run(self, statement: bytes, values: list[Value], deadline: float) -> Value:
        """Run a statement that answers with one value, or none, and return it.

        It may run twice if the connection breaks or the database asks for that, so it must count once.

        Raises:
            StoreError: the database could not be asked in time, or said no.
        """

        def attempt(con: PostgresConnection) -> Value:
            con.deadline = deadline
            if not self._prepared:
                with taken(self._preparing):
                    if not self._prepared:
                        self._prepare(con)
                        self._prepared = True
            return con.ask(statement, values, prepare=self._target.prepare)

        if self._owner != os.getpid():
            self._begin_in_child()
        slots = self._slots
        try:
            if not take(slots, deadline):
                raise DeadlineError(f"all {self._target.pool} connections were in use")
            try:
                return self._repeat(attempt, deadline)
            finally:
                slots.release()
        except psycopg.Error as error:
            raise StoreError(explained(error, self._target)) from error

    @contextmanager
    def apart(self, begin: str = "SET lock_timeout = 0") -> Iterator[PostgresConnection]:
        """Yield a connection of its own, on which a statement may take as long as it takes.

        Args:
            begin: a statement to begin with.

        Raises:
            StoreError: the database could not be asked, or said no.
        """
        try:
            with self._connect(self.deadline()) as con:
                con.execute("SET statement_timeout = 0")
                con.execute(begin.encode())
                yield con
        except psycopg.Error as error:
            raise StoreError(explained(error, self._target)) from error

    def _begin(self) -> None:
        super()._begin()
        self._slots = _Slots(self._target.pool)
        self._preparing = threading.RLock()
        self._prepared = False

    def _connect(self, deadline: float) -> PostgresConnection:
        target = self._target
        hosts = str(target.parameters.get("host", "")).count(",") + 1
        seconds = max(int((deadline - time.monotonic()) / hosts), _SHORTEST_CONNECT)
        parameters = {"application_name": "budgetguard", **target.parameters, "connect_timeout": seconds}
        parameters["client_encoding"] = "UTF8"
        if target.prepare:
            parameters["options"] = f"{_settings(target)} {parameters.get('options', '')}".rstrip()
        con = PostgresConnection.connect(autocommit=True, **parameters)
        con.prepare_threshold = None
        con.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return con

    def _disconnect(self, connection: PostgresConnection) -> None:
        connection.close()

    def _is_in_order(self, connection: PostgresConnection, error: BaseException | None) -> bool:
        if connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            return True
        # With settings in the session the server has a limit of its own. An older libpq cancels without one.
        if isinstance(error, DeadlineError) and not self._target.prepare and capabilities.has_cancel_safe():
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=_CANCEL_SECONDS)
        return False

    def _retry_after(self, error: Exception, connection: PostgresConnection | None) -> float | None:
        if not isinstance(error, psycopg.Error) or isinstance(error, DeadlineError):
            return None
        if error.sqlstate in _PASSING_STATES:
            return _PAUSE
        if error.sqlstate is None and any(words in str(error) for words in _PASSING_WORDS):
            return _PAUSE
        # The server was restarted, or closed what was idle for long.
        broke = connection is not None and connection.pgconn.status == pq.ConnStatus.BAD
        return 0.0 if broke else None


def shared_link(
    url: str, target: PostgresTarget, prepare: Callable[[PostgresConnection], None]
) -> PostgresLink:
    """Return the link of this process to a database: all projects that are opened by one URL share it."""
    # Without a lock, which a fork could find locked: two threads that are first at once have two links.
    return _LINKS.get(url) or _LINKS.setdefault(url, PostgresLink(target, prepare))


_LINKS: Final[WeakValueDictionary[str, PostgresLink]] = WeakValueDictionary()


def explained(error: psycopg.Error, target: PostgresTarget) -> str:
    """Return the text of the StoreError for a driver's error; it shows no password."""
    secret = target.parameters.get("password")
    return remedies.explain(error, target, target.timeout, remedies.POSTGRES, secret=secret)


def _error_of(result: pq.abc.PGresult) -> psycopg.Error:
    """Return the error that a result tells of, of the class that psycopg has for it."""
    code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    text = (result.error_message or b"").decode(errors="replace").strip()
    try:
        kind = psycopg.errors.lookup(code)
    except KeyError:
        kind = psycopg.DatabaseError
        text = f"{text} ({code})"
    return kind(text)


def _is_ready(socket: int, seconds: float, *, writing: bool) -> bool:
    """Wait until there is something to read, or, if `writing`, room to write."""
    if hasattr(select, "poll"):  # select() knows sockets up to 1023 only, and Windows select() alone
        poll = select.poll()
        poll.register(socket, select.POLLIN | (select.POLLOUT if writing else 0))
        return bool(poll.poll(min(seconds, _LONGEST_POLL) * 1000))
    return any(select.select([socket], [socket] if writing else [], [], min(seconds, _LONGEST_POLL)))


def _settings(target: PostgresTarget) -> str:
    # The server gives up first, so that it can say what it waited for.
    return (
        f"-c lock_timeout={int(target.timeout * 800)} -c statement_timeout={int(target.timeout * 900)} "
        r"-c default_transaction_isolation=read\ committed -c jit=off"
    )


def _until(gen: Generator[Any, Any, Any], deadline: float) -> Generator[Any, Any, Any]:
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= deadline:
                raise DeadlineError("no answer in time")
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value
