"""What a postgresql:// URL may say, and what errors say about it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from types import FrameType

import psycopg
import pytest

from budgetguard.errors import ConfigurationError
from budgetguard.stores import open_store
from budgetguard.stores.locks import take
from budgetguard.stores.postgres_link import PostgresLink, explained
from budgetguard.stores.postgres_rows import decode, encode, sql_value
from budgetguard.stores.targets import postgres_target


def test_a_url_says_where_as_whom_and_how_long() -> None:
    url = "postgresql://me:s%2Fcret@db:5433/budgets?timeout=2.5&schema=mine&prepare=0&pool=3&sslmode=require"
    target = postgres_target(url)
    assert target.parameters == {
        "user": "me",
        "password": "s/cret",
        "host": "db",
        "port": "5433",
        "dbname": "budgets",
        "sslmode": "require",
    }
    assert (target.timeout, target.schema, target.prepare, target.pool) == (2.5, "mine", False, 3)
    assert str(target) == "db:5433, database budgets"
    assert "cret" not in repr(target)


def test_what_a_url_leaves_out_has_a_default() -> None:
    target = postgres_target("postgres://db/budgets")
    assert (target.timeout, target.schema, target.prepare, target.pool) == (5.0, "budgetguard", True, 10)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("postgresql://u:top-secret@h/d?timeout=soon", "timeout must be a number of seconds"),
        ("postgresql://u:top-secret@h/d?timeout=0", "at least 0.1"),
        ("postgresql://u:top-secret@h/d?timeout=nan", "timeout must be a number"),
        ("postgresql://u:top-secret@h/d?schema=A;drop", "schema must be small letters"),
        ("postgresql://u:top-secret@h/d?schema=pg_mine", "schema must be small letters"),
        ("postgresql://u:top-secret@h/d?prepare=maybe", "prepare must be 0 or 1"),
        ("postgresql://u:top-secret@h/d?pool=0", "pool must be a number of connections"),
        ("postgresql://u:top-secret@h/d?colour=red", "an option that neither budgetguard nor libpq has"),
        ("postgresql://u:top-%secret@h/d", "%25"),
        ("postgresql://u:top-secret@[h/d", "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
    ],
)
def test_a_bad_url_is_refused_with_the_remedy_and_without_the_password(url: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_store(url, project="p")
    assert remedy in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_without_psycopg_the_url_is_refused_with_what_to_install() -> None:
    program = """
import sys
import threading
import time
from types import FrameType
sys.modules["psycopg"] = None
from budgetguard.stores import open_store
try:
    open_store("postgresql://h/d", project="p")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigurationError postgresql:// needs psycopg 3.2: ")
    assert "pip install 'budgetguard-ai[postgres]'" in done.stdout


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (psycopg.errors.DiskFull("no space left"), "the disk is full: free some space; nothing was changed"),
        (psycopg.errors.OutOfMemory(""), "the server is out of memory"),
        (psycopg.errors.TooManyConnections(""), "raise max_connections, or lower ?pool="),
        (psycopg.errors.AdminShutdown(""), "the server is shutting down: try again"),
        (psycopg.errors.DeadlockDetected(""), "try again; nothing was changed"),
        (psycopg.errors.InvalidSqlStatementName(""), "add ?prepare=0"),
        (psycopg.errors.NumericValueOutOfRange("bigint out of range"), "see the cause"),
        (psycopg.OperationalError("server closed the connection unexpectedly"), "the connection broke"),
        (psycopg.OperationalError("what was top-secret is told"), "(OperationalError: what was *** is told)"),
    ],
)
def test_an_error_of_the_driver_says_what_to_do(error: psycopg.Error, remedy: str) -> None:
    text = explained(error, postgres_target("postgresql://u:top-secret@h/d"))
    assert text.startswith("cannot use the store at h, database d: ")
    assert remedy in text
    assert "secret" not in text


@pytest.mark.parametrize("text", ["", "plain", "nul\0", "\ud800\udfff", "\x1a", "\x1a0.", "\x1a1a.\0", "🎈é"])
def test_text_that_postgresql_cannot_hold_comes_back_as_it_was(text: str) -> None:
    kept = encode(text)
    assert "\0" not in kept
    kept.encode("utf-8")
    assert decode(kept) == text


def test_lists_are_written_as_arrays_whatever_their_text_holds() -> None:
    assert sql_value(['a"b', "c\\d", "", "NULL", "{e,f}"]) == rb'{"a\"b","c\\d","","NULL","{e,f}"}'
    assert sql_value([1, None, 2]) == b'{"1",NULL,"2"}'
    assert sql_value([]) == b"{}"
    assert sql_value([b"\x00\xff"]) == rb'{"\\x00ff"}'
    assert [sql_value(one) for one in (None, True, False, 7, b"\x01")] == [None, b"t", b"f", b"7", rb"\x01"]


def test_a_signal_handler_may_take_a_slot_while_its_thread_is_taking_one() -> None:
    """A handler runs between any two lines, as what traces them does; a lock it waits for is never let go."""
    link = PostgresLink(postgres_target("postgresql://h/d?pool=3"), lambda _: None)
    met: list[bool] = []

    def handle(frame: FrameType, event: str, _: object) -> object:
        sys.settrace(None)
        if link._slots.acquire(blocking=False):
            link._slots.release()
            met.append(True)
        sys.settrace(handle)
        frame.f_trace = handle
        return handle

    def work() -> None:
        sys.settrace(handle)
        assert take(link._slots, time.monotonic() + 60)
        link._slots.release()
        sys.settrace(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert met
