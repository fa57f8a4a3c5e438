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

from budgetguard.errors import StoreError
from budgetguard.stores.postgres_errors import TooLate, error_of, explain, is_conflict, is_passing
from budgetguard.stores.postgres_target import Target
from budgetguard.stores.waiting import take, taken

import psycopg  # isort: skip  # after postgres_target, which says what to install where it is missing
from psycopg import capabilities, pq  # isort: skip

Value = bytes | None
"""A parameter or an answer, as PostgreSQL writes it as text; None is NULL."""

_INTERVAL: Final = 0.05
_PAUSE: Final = 0.01
_CANCEL_SECONDS: Final = 0.5
_LONGEST_POLL: Final = 1_000_000  # seconds: what poll() can count in milliseconds
_SHORTEST_CONNECT: Final = 2  # seconds: libpq knows nothing shorter


class Connection(psycopg.Connection[tuple[Any, ...]]):
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
                error = error_of(result)
        if error is not None:
            raise error
        return value

    def _wait_for_socket(self, *, writing: bool) -> None:
        seconds = max(self.deadline - time.monotonic(), 0)
        if not _is_ready(self.pgconn.socket, seconds, writing=writing):
            raise TooLate("no answer in time")

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        """Wait for the server, and raise TooLate once the deadline is over."""
        return super().wait(_until(gen, self.deadline), interval=_INTERVAL)

    def __del__(self, *_: Any) -> None:
        """Do not warn: pooled connections end with the program, and inherited ones with the fork's child."""


class _Slots:
    """Let so many in at once; a semaphore that a signal handler may take while its thread is taking it."""

    def __init__(self, number: int) -> None:
        # Python's semaphores have a lock inside, which such a handler would wait for without end.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(number):
            self._free.put(None)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a slot, and tell whether there was one in time (seconds)."""
        try:
            self._free.get(blocking, timeout)
        except Empty:
            return False
        return True

    def release(self) -> None:
        """Give a slot back."""
        self._free.put(None)


class Link:
    """Run statements on a database, from any thread, each within the time that its target states.

    Args:
        target: which database.
        prepare: called with the first connection of this process, before it is used.
    """

    def __init__(self, target: Target, prepare: Callable[[Connection], None]) -> None:
        self._target = target
        self._prepare = prepare
        self._prepared = False
        self._preparing = threading.RLock()
        self._idle: list[Connection] = []
        self._users: WeakSet[Any] = WeakSet()
        self._slots = _Slots(target.pool)

    def opened(self, user: object) -> None:
        """Note that somebody uses the connections."""
        self._users.add(user)

    def left(self, user: object) -> None:
        """Note that somebody does not use them any more; the last one closes those that are idle.

        Who comes after that may find another database there, and prepares it anew.
        """
        self._users.discard(user)
        if not self._users:
            self._prepared = False
            self.close()

    def deadline(self) -> float:
        """Return until when a verb that begins now may take (time.monotonic())."""
        return time.monotonic() + self._target.timeout

    def run(self, statement: bytes, values: list[Value], deadline: float) -> Value:
        """Run a statement that answers with one value, or none, and return it.

        It may run twice if the connection breaks or the database asks for that, so it must count once.

        Raises:
            StoreError: the database could not be asked in time, or said no.
        """
        try:
            if not take(self._slots, deadline):
                raise TooLate(f"all {self._target.pool} connections were in use")
            try:
                return self._run(statement, values, deadline)
            finally:
                self._slots.release()
        except psycopg.Error as error:
            raise StoreError(explain(error, self._target)) from error

    def apart(self, work: Callable[[Connection], Any]) -> Any:
        """Do something on a connection of its own, however long it takes, and return what comes of it.

        Raises:
            StoreError: the database could not be asked, or said no.
        """
        try:
            with self._connect(self.deadline()) as con:
                con.execute("SET statement_timeout = 0")
                con.execute("SET lock_timeout = 0")
                return work(con)
        except psycopg.Error as error:
            raise StoreError(explain(error, self._target)) from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection of its own that sees one state of the database throughout, and writes nothing.

        Raises:
            StoreError: the database could not be asked, or said no.
        """
        try:
            with self._connect(self.deadline()) as con:
                con.execute("SET statement_timeout = 0")
                con.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield con
        except psycopg.Error as error:
            raise StoreError(explain(error, self._target)) from error

    def close(self) -> None:
        """Let go of the connections that are not in use."""
        while self._idle:
            with suppress(IndexError):  # another thread took the last one
                self._idle.pop().close()

    def _run(self, statement: bytes, values: list[Value], deadline: float) -> Value:
        may_break = True
        while True:
            con: Connection | None = None
            try:
                con = self._take(deadline)
                answer = con.ask(statement, values, prepare=self._target.prepare)
            except BaseException as error:
                broken = con is not None and con.closed
                self._leave(con, error)
                if not isinstance(error, psycopg.Error) or time.monotonic() >= deadline:
                    raise
                if is_conflict(error) or is_passing(error):
                    time.sleep(_PAUSE)
                elif broken and may_break and not isinstance(error, TooLate):
                    # Once, at once: the server was restarted, or closed what was idle for long.
                    may_break = False
                    self.close()
                else:
                    raise
            else:
                self._idle.append(con)
                return answer

    def _take(self, deadline: float) -> Connection:
        try:
            con = self._idle.pop()
        except IndexError:
            con = self._connect(deadline)
        con.deadline = deadline
        if not self._prepared:
            try:
                with taken(self._preparing):
                    if not self._prepared:
                        self._prepare(con)
                        self._prepared = True
            except BaseException:
                con.close()
                raise
        return con

    def _leave(self, con: Connection | None, error: BaseException) -> None:
        """Keep a connection after an error if it is in order."""
        if con is None:
            return
        if con.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            self._idle.append(con)
            return
        # With settings in the session the server has a limit of its own. An older libpq cancels without one.
        if isinstance(error, TooLate) and not self._target.prepare and capabilities.has_cancel_safe():
            with suppress(psycopg.Error):
                con.cancel_safe(timeout=_CANCEL_SECONDS)
        con.close()

    def _connect(self, deadline: float) -> Connection:
        target = self._target
        hosts = str(target.parameters.get("host", "")).count(",") + 1
        seconds = max(int((deadline - time.monotonic()) / hosts), _SHORTEST_CONNECT)
        parameters = {"application_name": "budgetguard", **target.parameters, "connect_timeout": seconds}
        parameters["client_encoding"] = "UTF8"
        if target.prepare:
            parameters["options"] = f"{_settings(target)} {parameters.get('options', '')}".rstrip()
        con = Connection.connect(autocommit=True, **parameters)
        con.prepare_threshold = None
        con.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return con


def shared_link(url: str, target: Target, prepare: Callable[[Connection], None]) -> Link:
    """Return the link of this process to a database: all projects that are opened by one URL share it."""
    key = (url, os.getpid())  # a child must not use its parent's connections
    # Without a lock, which a fork could find locked: two threads that are first at once have two links.
    return _LINKS.get(key) or _LINKS.setdefault(key, Link(target, prepare))


_LINKS: Final[WeakValueDictionary[tuple[str, int], Link]] = WeakValueDictionary()


def _is_ready(socket: int, seconds: float, *, writing: bool) -> bool:
    """Wait until there is something to read, or, if `writing`, room to write."""
    if hasattr(select, "poll"):  # select() knows sockets up to 1023 only, and Windows select() alone
        poll = select.poll()
        poll.register(socket, select.POLLIN | (select.POLLOUT if writing else 0))
        return bool(poll.poll(min(seconds, _LONGEST_POLL) * 1000))
    return any(select.select([socket], [socket] if writing else [], [], min(seconds, _LONGEST_POLL)))


def _settings(target: Target) -> str:
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
                raise TooLate("no answer in time")
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value
