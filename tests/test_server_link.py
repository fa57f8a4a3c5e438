"""What every link to a server does: connections kept, requests bounded in time and repeated, forks."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from budgetguard.stores.link import ServerLink


class EchoServer:
    """A server that answers each line with it, on as many connections as come."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = self._listening.getsockname()
        self.open: list[socket.socket] = []
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Shut all connections."""
        while self.open:
            with suppress(OSError):  # the client has shut it
                self.open.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.accepted += 1
            self.open.append(sock)
            threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    @staticmethod
    def _answer(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while data := sock.recv(100):
                sock.sendall(data)


class EchoLink(ServerLink[socket.socket]):
    def __init__(self, address: tuple[str, int], timeout: float = 30, kept: int = 64) -> None:
        super().__init__(timeout, kept)
        self.address = address

    def ask(self, text: bytes, before: Callable[[], None] = lambda: None, *, fresh: bool = False) -> bytes:
        def attempt(sock: socket.socket) -> bytes:
            before()
            sock.sendall(text)
            if answer := sock.recv(100):
                return answer
            raise ConnectionError("cut")

        return self._repeat(attempt, self.deadline(), fresh=fresh)

    def _connect(self, deadline: float) -> socket.socket:
        return socket.create_connection(self.address)

    def _disconnect(self, connection: socket.socket) -> None:
        connection.close()

    def _is_in_order(self, connection: socket.socket, error: BaseException | None) -> bool:
        return error is None

    def _retry_after(self, error: Exception, connection: socket.socket | None) -> float | None:
        return 0.0 if isinstance(error, OSError) else None


class FakeTime:
    """A clock on which each pause takes a second more than was asked for, but for the shortest."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.now += seconds and seconds + 1


@pytest.fixture
def server() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


def test_one_connection_serves_one_request_after_another_and_none_is_shared(server: EchoServer) -> None:
    link = EchoLink(server.address)
    assert [link.ask(b"a") for _ in range(5)] == [b"a"] * 5
    assert server.accepted == 1
    with ThreadPoolExecutor(8) as pool:
        texts = [f"{number}".encode() for number in range(200)]
        assert list(pool.map(link.ask, texts)) == texts
    assert server.accepted <= 9
    link.close()


def test_no_more_connections_are_kept_than_it_may_keep(server: EchoServer) -> None:
    link = EchoLink(server.address, kept=2)
    together = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: link.ask(b"a", together.wait), range(6)))
    assert len(link._idle) == 2
    link.close()
    assert not link._idle


def test_connections_that_were_cut_are_all_given_up_and_the_request_is_sent_again(server: EchoServer) -> None:
    link = EchoLink(server.address)
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: link.ask(b"a", together.wait), range(4)))
    server.cut()
    tries: list[int] = []
    assert link.ask(b"b", lambda: tries.append(1)) == b"b"
    assert len(tries) == 2
    assert server.accepted == 5
    link.close()


def test_a_request_that_may_be_sent_once_goes_out_on_a_new_connection(server: EchoServer) -> None:
    link = EchoLink(server.address)
    link.ask(b"a")
    assert link.ask(b"b", fresh=True) == b"b"
    assert server.accepted == 2
    link.close()


def test_what_passes_is_tried_again_until_the_deadline_and_what_does_not_is_raised_at_once() -> None:
    tries: list[float] = []

    class Refused(EchoLink):
        def _connect(self, deadline: float) -> socket.socket:
            tries.append(time.monotonic())
            raise error

    error: Exception = ConnectionRefusedError()
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        Refused(("", 0), timeout=0.5).ask(b"a")
    assert time.monotonic() - began < 20
    assert 3 <= len(tries) < 50
    assert tries[-1] - began < 0.5
    tries.clear()
    error = ValueError("no way")
    with pytest.raises(ValueError, match="no way"):
        Refused(("", 0)).ask(b"a")
    assert len(tries) == 1


def test_an_interrupt_leaves_no_connection_with_an_answer_unread(server: EchoServer) -> None:
    link = EchoLink(server.address)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        link.ask(b"a", interrupt)
    assert not link._idle
    assert link.ask(b"b") == b"b"
    link.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_opens_connections_of_its_own_and_leaves_its_parents_open(server: EchoServer) -> None:
    link = EchoLink(server.address)
    link.ask(b"a")
    (mine,) = link._idle
    child = os.fork()
    if not child:
        good = link.ask(b"b") == b"b" and mine not in link._idle and mine.fileno() >= 0
        link.close()
        os._exit(0 if good and mine.fileno() >= 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert link.ask(b"c") == b"c"
    assert list(link._idle) == [mine]
    assert server.accepted == 2
    link.close()


def test_a_pause_that_takes_longer_does_not_hide_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr("budgetguard.stores.link.time", clock)

    class Refused(EchoLink):
        def _connect(self, deadline: float) -> socket.socket:
            if clock.monotonic() >= deadline:
                raise TimeoutError("no answer in time")
            raise ConnectionRefusedError("nobody listens")

    with pytest.raises(ConnectionRefusedError, match="nobody listens"):
        Refused(("127.0.0.1", 1), timeout=1).ask(b"a")
    assert clock.slept == 2, "one pause of nothing, and one that went past the deadline"
