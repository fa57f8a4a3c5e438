"""Bad days of the disk store: what it says, what it leaves alone, and that it goes on afterwards."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pickle
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import diskcache
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.core.rows import new_account
from budgetguard.core.usage import Usage
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores import Store, open_store, sqlite_tables
from budgetguard.stores.sqlite import DiskStore
from budgetguard.stores.sqlite_file import PlainDisk
from budgetguard.testing.clock import FakeClock

AWKWARD = ["🎈", "a:b", "100%", "%3A", "it's", '"q"', "a/b", "a b", "*", "\\", "ünï"]


def opened(folder: Path, options: str = "", project: str = "p") -> Store:
    return open_store(f"disk://{folder}{options}", project=project)


def make_hold(amount: int = 10) -> Hold:
    now = system_clock()
    charge = Charge("user:1", required=True)
    return Hold(new_hold_id(now), (charge,), amount, amount, 600_000, now, "1", "m", "chat")


def spend(store: Store, cost: int) -> None:
    hold = make_hold(cost)
    assert isinstance(store.reserve(hold), Granted)
    store.settle(hold, Settlement(cost))


def spent(store: Store) -> int:
    balance = store.read("user:1")
    assert balance is not None
    return balance.spent_nanos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store in which user 1 has spent 5 of 1 000 Nanos."""
    folder = tmp_path / "store"
    store = opened(folder)
    store.set_budget("user:1", Budget(1_000))
    spend(store, 5)
    store.close()
    return folder


def connection(store: Store) -> sqlite3.Connection:
    assert isinstance(store, DiskStore)
    assert store._file is not None
    return store._file.connection


def in_a_process(code: str, *args: object) -> str:
    """Run code in a Python of its own, warnings being errors, and return what it printed."""
    program = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code), *map(str, args)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout.strip()


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Folders and files that are not what they should be


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_a_folder_that_may_not_be_written_is_a_store_error_that_says_so(folder: Path) -> None:
    for path in (folder, *folder.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o055)
    answer = in_a_process(
        """
        import os, sys
        from budgetguard.errors import StoreError
        from budgetguard.stores import open_store, sqlite
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            open_store(f"disk://{sys.argv[1]}", project="p")
        except StoreError as error:
            print(error, "<-", type(error.__cause__).__name__)
        """,
        folder,
    )
    assert "it is read-only to this process: give it write access, or choose another folder" in answer
    assert answer.endswith("<- OperationalError")


def test_a_file_where_the_folder_should_be_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below"):
        with pytest.raises(StoreError, match="there is a file where the folder should be"):
            opened(place)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_strangers_sqlite_database_is_left_alone(tmp_path: Path, mode: str) -> None:
    with closing(sqlite3.connect(tmp_path / "cache.db")) as con:
        con.execute(f"PRAGMA journal_mode = {mode}")
        con.execute("CREATE TABLE mine (x)")
        con.commit()
    before = everything_in(tmp_path)
    with pytest.raises(StoreError, match=r"another program's cache\.db.*a folder of its own"):
        opened(tmp_path)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("filled", [True, False])
def test_another_programs_diskcache_is_left_alone(tmp_path: Path, filled: bool) -> None:
    with diskcache.Cache(str(tmp_path), eviction_policy="least-recently-used", cull_limit=7) as cache:
        if filled:
            cache["mine"] = {"a": 1}
    before = everything_in(tmp_path)
    with pytest.raises(StoreError, match=r"another program's cache\.db.*nothing was changed"):
        opened(tmp_path)
    assert everything_in(tmp_path) == before
    with diskcache.Cache(str(tmp_path)) as cache:
        assert (cache.eviction_policy, cache.cull_limit) == ("least-recently-used", 7)


def test_garbage_in_place_of_the_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"garbage" * 1_000)
    before = everything_in(tmp_path)
    with pytest.raises(StoreError, match="move the folder away or restore it from a backup") as caught:
        opened(tmp_path)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("kept", [50, 512, 4_096, 9_000])
def test_a_truncated_database_is_a_store_error_and_never_an_empty_store(folder: Path, kept: int) -> None:
    os.truncate(folder / "cache.db", kept)

    def use() -> None:
        opened(folder).read("user:1")

    with pytest.raises(StoreError, match="is damaged"):
        use()


@pytest.mark.parametrize("step", [1, -1], ids=["newer", "older"])
def test_another_schema_is_left_alone(folder: Path, step: int) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        known = con.execute("PRAGMA user_version").fetchone()[0]
        con.execute(f"PRAGMA user_version = {known + step}")
    before = everything_in(folder)
    remedy = "update budgetguard" if step > 0 else "use the budgetguard that made it"
    told = f"schema {known + step}, and this budgetguard knows {known}: {remedy}, or give it another folder"
    with pytest.raises(StoreError, match=told):
        opened(folder)
    assert everything_in(folder) == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *itertools.product(
            ["limit", "spent", "held", "window", "opened", "crossed"],
            [pickle.dumps({"limit": 1}), b"7", "seven", 7.5, "", b""],
        ),
        ("timezone", pickle.dumps("UTC")),
        ("spent", None),
        ("crossed", "{}"),
    ],
    ids=repr,
)
def test_a_planted_value_is_refused_and_never_unpickled(folder: Path, column: str, value: object) -> None:
    plant(folder, "account", column, value)
    store = opened(folder)
    for verb in (
        lambda: store.read("user:1"),
        lambda: list(store.list()),
        lambda: store.set_budget("user:1", Budget(5)),
        lambda: store.reserve(make_hold()),
    ):
        with pytest.raises(StoreError, match="malformed row of account 'user:1'"):
            verb()
    store.set_budget("user:2", Budget(5))
    store.close()


@pytest.mark.parametrize("value", [pickle.dumps([]), b"[]", "[", '"x"', "7", 7])
@pytest.mark.parametrize("column", ["accounts", "epochs", "usage", "tags"])
def test_a_planted_hold_is_refused_and_never_unpickled(folder: Path, column: str, value: object) -> None:
    plant(folder, "hold", column, value)
    store = opened(folder)
    hold_id = hold_ids(folder)[0]
    with pytest.raises(StoreError, match=f"malformed row of hold '{hold_id}'"):
        list(store.calls())
    store.close()


def plant(folder: Path, table: str, column: str, value: object) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        assert con.execute(f'UPDATE {table} SET "{column}" = ?', (value,)).rowcount == 1
        con.commit()


def hold_ids(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        return [row[0] for row in con.execute("SELECT id FROM hold ORDER BY id")]


def test_a_name_that_is_no_text_is_refused(folder: Path) -> None:
    plant(folder, "hold", "model", b"\xff\xfe")
    store = opened(folder)
    with pytest.raises(StoreError, match="a name that is no text"):
        list(store.calls())
    plant(folder, "hold", "model", b"text that is stored as text")
    with pytest.raises(StoreError, match="a name that is no text"):
        list(store.calls())
    store.close()


def test_diskcache_keeps_nothing_of_its_own_beside_its_settings(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        assert con.execute("SELECT COUNT(*) FROM Cache").fetchone() == (0,)


def test_the_database_holds_integers_and_text_no_float_no_pickle_and_no_file(folder: Path) -> None:
    store = opened(folder)
    hold = make_hold()
    store.reserve(hold)
    usage = Usage.of(input_tokens=3, output_tokens=4)
    store.settle(hold, Settlement(3, usage=usage, observed=(("m", 4),), thresholds=(1,)))
    attached = make_hold()
    store.reserve(attached)
    assert store.attach(attached.id, "answer")
    spend(store, 0)
    store.close()

    def no_float(text: str) -> float:
        raise AssertionError(f"a float: {text}")

    filled = set()
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        tables = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in set(tables) - {"Settings"}:
            for row in con.execute(f"SELECT * FROM {table}"):
                filled.add(table)
                for value in row:
                    assert type(value) in (int, str, type(None))
                    if isinstance(value, str) and value[:1] in ("{", "["):
                        json.loads(value, parse_float=no_float)
    assert filled == {"project", "account", "hold", "answer", "observation"}
    assert [p.name for p in folder.iterdir()] == ["cache.db"]


def test_the_folder_is_a_diskcache_that_evicts_nothing_and_refuses_pickle(folder: Path) -> None:
    with diskcache.Cache(str(folder), disk=PlainDisk) as cache:
        assert (cache.eviction_policy, cache.cull_limit) == ("none", 0)
        cache["k"] = "text"
        assert cache["k"] == "text"
        for bad in (1, 1.5, b"x", None, {"a": 1}, object()):
            with pytest.raises(TypeError, match="holds text only"):
                cache["k"] = bad
            with pytest.raises(TypeError, match="holds text only"):
                cache[bad] = "v"


# A disk that is full


def test_a_full_disk_is_a_store_error_changes_nothing_and_heals_by_itself(tmp_path: Path) -> None:
    answer = in_a_process(
        """
        import os, resource, signal, sys
        from budgetguard.core.accounts import Budget
        from budgetguard.errors import StoreError
        from budgetguard.core.holds import *
        from budgetguard.stores import open_store
        from budgetguard.core.process import system_clock

        def call():
            now = system_clock()
            hold = Hold(new_hold_id(now), (Charge("user:1"),), 10, 10, 10**6, now, "1", "m" * 2000, "chat")
            answer = store.reserve(hold)
            assert isinstance(answer, Granted), answer
            store.settle(hold, Settlement(10))

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = open_store(f"disk://{sys.argv[1]}/store", project="p")
        store.set_budget("user:1", Budget(10**12))
        limit = 400_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        done = 0
        try:
            while done < 10_000:
                call()
                done += 1
        except StoreError as error:
            print(error)
        full = store.read("user:1")
        try:
            call()
        except StoreError:
            pass
        else:
            raise SystemExit("a call went through on a full disk")
        assert store.read("user:1") == full
        assert full.spent_nanos == done * 10, (full, done)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        call()
        assert store.read("user:1").spent_nanos == done * 10 + 10
        store.close()
        """,
        tmp_path,
    )
    assert answer.startswith("cannot write the store in")
    assert "the disk may be full, over its quota, or failing; nothing was changed" in answer


def test_a_database_that_may_not_grow_says_that_the_disk_is_full(folder: Path) -> None:
    store = opened(folder)
    con = connection(store)
    pages = con.execute("PRAGMA page_count").fetchone()[0]
    con.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for i in range(1_000):
            store.set_budget(f"user:{i + 2}", Budget(1))

    with pytest.raises(StoreError, match="the disk is full: free some space; nothing was changed"):
        fill()
    made = len(list(store.list()))
    store.close()
    store.set_budget("user:next", Budget(1))
    assert len(list(store.list())) == made + 1
    assert spent(store) == 5
    store.close()


# A database that another process has locked


@contextmanager
def locked(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None, check_same_thread=False)) as con:
        con.execute("BEGIN IMMEDIATE")
        yield con


def test_a_locked_database_is_waited_for(folder: Path) -> None:
    store = opened(folder)
    with locked(folder) as con:
        timer = threading.Timer(0.3, con.execute, ("COMMIT",))
        timer.start()
        begun = time.monotonic()
        assert isinstance(store.reserve(make_hold(10)), Granted)
        assert time.monotonic() - begun > 0.1
        timer.join()
    store.close()


def test_a_lock_held_too_long_is_a_store_error_and_never_a_refusal(folder: Path) -> None:
    store = opened(folder, "?timeout=0.2")
    hold = make_hold(995)
    with locked(folder):
        for verb in (
            lambda: store.reserve(hold),
            lambda: store.settle(hold, Settlement(5)),
            lambda: store.set_budget("user:1", Budget(1)),
            lambda: store.delete("user:1"),
            lambda: opened(folder, "?timeout=0.2"),
        ):
            begun = time.monotonic()
            with pytest.raises(StoreError, match=r"held its lock for more than 0\.2 s.*timeout=") as caught:
                verb()
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert time.monotonic() - begun < 10
        assert spent(store) == 5  # reading waits for nobody
    assert store.reserve(hold) == Granted(("user:1",))
    store.close()


# What another process has done since


def test_a_threshold_is_announced_again_though_it_was_another_process_that_reset_the_account(
    folder: Path,
) -> None:
    store, other = opened(folder), opened(folder)

    def reached(cost: int) -> list[int]:
        hold = make_hold(0)
        store.reserve(hold)
        answer = store.settle(hold, Settlement(cost, thresholds=(50, 80)))
        assert isinstance(answer, Booked)
        return [crossing.threshold for crossing in answer.crossings]

    assert reached(600) == [50]
    assert reached(1) == []
    other.reset("user:1")
    assert reached(600) == [50]
    store.close()
    other.close()


def test_an_account_that_another_process_made_is_charged_from_then_on(folder: Path) -> None:
    store, other = opened(folder), opened(folder)
    charges = (Charge("user:1", required=True), Charge("project:p"))
    for expected in (("user:1",), ("user:1", "project:p"), ("user:1",)):
        now = system_clock()
        assert store.reserve(Hold(new_hold_id(now), charges, 1, 1, 600_000, now)) == Granted(expected)
        if expected == ("user:1",):
            other.set_budget("project:p", Budget(5))
        else:
            other.delete("project:p")
    store.close()
    other.close()


def test_a_settle_in_another_process_than_the_reserve_books_as_much(folder: Path) -> None:
    store, other = opened(folder), opened(folder)
    for model in ("a", "b", "b", "b"):
        hold = replace(make_hold(10), model=model)
        store.reserve(hold)
        assert other.settle(hold, Settlement(7)) == Booked(7)
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos, balance.open_holds) == (33, 0, 0)
    assert balance.models == {"m": 5, "a": 7, "b": 21}
    store.close()
    other.close()


# Forks


def test_parent_and_child_both_go_on_after_a_fork(folder: Path) -> None:
    store = opened(folder)
    spend(store, 5)
    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for _ in range(20):
                    spend(store, 1)
                store.close()
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    for _ in range(20):
        spend(store, 1)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    assert spent(store) == 10 + 80
    store.close()


def _spend_in_child(store: Store) -> None:
    spend(store, 1)
    store.close()


def test_a_multiprocessing_child_made_by_fork_uses_the_store_that_it_was_given(folder: Path) -> None:
    store = opened(folder)
    children = [
        multiprocessing.get_context("fork").Process(target=_spend_in_child, args=(store,)) for _ in "ab"
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert spent(store) == 7
    store.close()


def test_a_child_loses_nothing_when_its_parent_and_everybody_else_closes(folder: Path) -> None:
    # Whoever closes last empties SQLite's write-ahead log and removes it. A child that had only its
    # parent's word for holding a lock would then write on into a file that is no longer there.
    store = opened(folder)
    spend(store, 5)
    told, tell = os.pipe()
    heard, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            spend(store, 1)
            os.write(say, b"1")
            os.read(told, 1)
            spend(store, 1)
            os.write(say, b"2")
            os.read(told, 1)
            code = 0
        finally:
            os._exit(code)
    os.read(heard, 1)
    store.close()
    in_a_process(
        """
        import sys
        from budgetguard.stores import open_store
        store = open_store(f"disk://{sys.argv[1]}", project="p")
        assert store.read("user:1").spent_nanos == 11
        store.close()
        """,
        folder,
    )
    os.write(tell, b"x")
    os.read(heard, 1)
    other = opened(folder)
    assert spent(other) == 12
    other.close()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for end in (told, tell, heard, say):
        os.close(end)
    other = opened(folder)
    assert spent(other) == 12
    other.close()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_fork_while_other_threads_work_leaves_the_child_able_to_work(kind: str, tmp_path: Path) -> None:
    store = open_store("memory://" if kind == "memory" else f"disk://{tmp_path}/store", project="p")
    store.set_budget("user:1", Budget(10**9))
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            spend(store, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    signal.alarm(20)
                    spend(store, 1)
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    store.close()


# Who may look


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_every_folder_that_is_made_is_private(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        opened(tmp_path / "a" / "b" / "c").close()
    finally:
        os.umask(before)
    for made in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / made).stat().st_mode) == 0o700


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    opened(tmp_path).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


# Names


@pytest.mark.parametrize("name", AWKWARD)
def test_folders_projects_and_users_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name.replace("?", "")
    store = opened(folder, project=name)
    store.set_budget(f"user:{name}", Budget(7))
    store.close()
    assert (folder / "cache.db").exists()
    store = opened(folder, project=name)
    assert [(b.account, b.limit_nanos) for b in store.list("user")] == [(f"user:{name}", 7)]
    store.close()


@pytest.mark.parametrize("folder", ["a#b", "a%20b", "[x", "a&b=c", "a;b"])
def test_a_url_is_read_as_it_stands(tmp_path: Path, folder: str) -> None:
    opened(tmp_path / folder).close()
    assert (tmp_path / folder / "cache.db").exists()


@pytest.mark.parametrize(
    "url",
    [
        "disk://",
        "disk:///",
        "disk:///x?wait=3",
        "disk:///x?timeout=soon",
        "disk:///x?timeout=-1",
        "disk:///x?timeout=nan",
        "disk:///x\0y",
        "disk://~nobody-of-this-name/x",
        "memory://name",
        "memcached://x",
        "//[",
        "",
    ],
)
def test_a_bad_url_is_a_configuration_error_that_shows_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="store ") as caught:
        open_store(url, project="p")
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("project", ["", "a\nb", "\ud800", "x" * 300])
def test_a_project_that_cannot_be_stored_is_a_configuration_error(tmp_path: Path, project: str) -> None:
    with pytest.raises(ConfigurationError, match="project"):
        opened(tmp_path, project=project)


# Leaving


def test_a_store_that_nobody_closed_leaves_no_warning_and_no_open_file(tmp_path: Path) -> None:
    open_files = in_a_process(
        """
        import gc, os, sys
        from budgetguard.stores import open_store
        for _ in range(3):
            open_store(f"disk://{sys.argv[1]}/store", project="p")
        gc.collect()
        print(*[p for p in map(os.readlink, map("/proc/self/fd/{}".format, os.listdir("/proc/self/fd")[:-1]))
                if "cache.db" in p])
        kept = open_store(f"disk://{sys.argv[1]}/store", project="p")
        """,
        tmp_path,
    )
    assert open_files == ""


def test_an_open_that_fails_leaves_no_open_file(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"garbage" * 1_000)
    in_a_process(
        """
        import gc, sys
        from budgetguard.errors import StoreError
        from budgetguard.stores import open_store
        for _ in range(3):
            try:
                open_store(f"disk://{sys.argv[1]}", project="p")
            except StoreError:
                continue
            raise SystemExit("opened garbage")
        gc.collect()
        """,
        tmp_path,
    )


# Many users: how SQLite goes about it, since how long it takes proves nothing


# An INSERT looks for nothing, and of projects there are few.
STATEMENTS = {
    name: text
    for name, text in vars(sqlite_tables).items()
    if isinstance(text, str) and re.match(r"\s*(SELECT|UPDATE|DELETE) ", text) and "FROM project" not in text
}


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_every_statement_finds_its_rows_by_an_index(folder: Path, name: str) -> None:
    statement = STATEMENTS[name]
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        plan = con.execute(f"EXPLAIN QUERY PLAN {statement}", [0] * statement.count("?")).fetchall()
    steps = [step for *_, step in plan]
    assert any("SEARCH" in step for step in steps), steps
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in steps), steps


def count_steps(store: Store, verb: Callable[[], object]) -> int:
    """Return how many instructions SQLite's machine runs for a verb."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    con = connection(store)
    con.set_progress_handler(tick, 1)
    verb()
    con.set_progress_handler(None, 0)
    return ticks


def test_reserving_and_settling_touches_no_more_of_a_store_with_many_users(tmp_path: Path) -> None:
    def steps_of_a_call(users: int) -> int:
        store = opened(tmp_path / str(users))
        assert isinstance(store, DiskStore)
        row = new_account(Budget(10**9), 0)
        store._run(lambda rows: [rows.save_account(f"user:{i}", row) for i in range(users)])

        def verbs() -> None:
            spend(store, 1)
            assert store.read("user:1") is not None
            next(store.list("user"))

        verbs()
        steps = count_steps(store, verbs)
        store.close()
        return steps

    few, many = steps_of_a_call(1_000), steps_of_a_call(20_000)
    assert many < few * 1.05


@pytest.mark.parametrize(
    "verb",
    [
        lambda store: spend(store, 1),
        lambda store: store.reserve(make_hold(10**12)),
        lambda store: store.settle(make_hold(1), Settlement(1)),
        lambda store: store.settle(make_hold(1), Settlement(1, thresholds=(0,))),
        lambda store: store.read("user:1"),
        lambda store: store.reset("user:1"),
        lambda store: list(store.list()),
    ],
    ids=["reserve and settle", "refuse", "settle the unknown", "cross", "read", "reset", "list"],
)
def test_verbs_touch_no_more_of_an_account_with_many_open_holds(
    folder: Path, verb: Callable[[Store], object]
) -> None:
    store = opened(folder)
    store.set_budget("user:1", Budget(10**9))
    verb(store)
    few = count_steps(store, lambda: verb(store))
    for _ in range(1_000):
        assert isinstance(store.reserve(make_hold(1)), Granted)
    verb(store)
    assert count_steps(store, lambda: verb(store)) < few * 1.05
    balance = store.read("user:1")
    assert balance is not None
    assert balance.open_holds >= 1_000
    store.close()


def test_open_holds_are_searched_for_expired_ones_once_and_not_again_before_the_next_can_expire(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    store = open_store(f"disk://{tmp_path}", project="p", clock=clock)
    store.set_budget("user:1", Budget(1_000))

    def hold(amount: int, ttl: int) -> Hold:
        return Hold(new_hold_id(clock()), (Charge("user:1"),), amount, 1, ttl, clock(), "1", "m", "chat")

    first = hold(1, 1_000)
    store.reserve(first)
    store.settle(first, Settlement(1))
    for _ in range(300):
        store.reserve(hold(1, 600_000))
    clock.advance(2)  # when the first would have expired
    steps = [count_steps(store, lambda: store.reserve(hold(5_000, 1_000))) for _ in range(3)]
    assert steps[1] == steps[2] < steps[0] / 2
    store.close()


def test_a_clock_that_jumps_back_leaves_records_and_accounts_usable(tmp_path: Path) -> None:
    clock = FakeClock()
    store = open_store(f"disk://{tmp_path}", project="p", clock=clock, retention="1d")
    store.set_budget("user:1", Budget(10**6, "daily"))
    hold = Hold(new_hold_id(clock()), (Charge("user:1"),), 10, 10, 60_000, clock(), "1", "m", "chat")
    store.reserve(hold)
    clock.advance(-10 * 365 * 86_400)
    store.settle(hold, Settlement(7))
    assert spent(store) == 7
    assert [(c.id, c.state, c.cost_nanos) for c in store.calls()] == [(hold.id, "settled", 7)]
    store.close()


# Sums beyond what a number can hold, and other damage to one account


def test_an_account_that_was_ruined_can_be_reset_and_deleted_and_the_others_are_listed(folder: Path) -> None:
    store = opened(folder)
    for user in (0, 2):
        store.set_budget(f"user:{user}", Budget(5))
    held = make_hold(10)
    assert isinstance(store.reserve(held), Granted)
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        # As sums past 2^63 became in the past.
        con.execute("UPDATE account SET spent = 1.8e19 WHERE name = 'user:1'")
        con.commit()
    told = "what it has of account 'user:1' is damaged: reset the account, or delete it"
    with pytest.raises(StoreError, match=told):
        store.read("user:1")
    listing = store.list()
    assert [next(listing).account for _ in range(2)] == ["user:0", "user:2"]
    with pytest.raises(StoreError, match=told):
        next(listing)
    mended = store.reset("user:1")
    assert mended is not None
    assert (mended.limit_nanos, mended.spent_nanos, mended.held_nanos) == (1_000, 0, 10)
    store.settle(held, Settlement(7))
    assert spent(store) == 7
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        con.execute("UPDATE account SET \"window\" = 'x', spent = 1e19 WHERE name = 'user:1'")
        con.commit()
    assert store.delete("user:1")
    assert [balance.account for balance in store.list()] == ["user:0", "user:2"]
    store.close()


@pytest.mark.parametrize(
    ("statement", "verb"),
    [
        ("UPDATE account SET timezone = CAST(x'ff41' AS TEXT)", lambda s: s.read("user:1")),
        ("UPDATE account SET duration = 'fortnightly', \"end\" = 5", lambda s: s.read("user:1")),
        ("UPDATE account SET \"end\" = 5, duration = 'daily', anchor = -9e18", lambda s: s.read("user:1")),
        ("UPDATE hold SET usage = replace(hex(zeroblob(50000)), '00', '[')", lambda s: list(s.calls())),
        ("UPDATE hold SET accounts = '[1]'", lambda s: list(s.calls())),
        ("UPDATE hold SET model = CAST(x'ff41' AS TEXT)", lambda s: list(s.calls())),
    ],
)
def test_whatever_python_raises_over_a_damaged_file_is_a_store_error(
    folder: Path, statement: str, verb: Callable[[Store], object]
) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        con.execute(statement)
        con.commit()
    store = opened(folder)
    with pytest.raises(StoreError, match="damaged"):
        verb(store)
    store.set_budget("user:2", Budget(5))
    store.close()


# Waiting, by threads


def test_the_timeout_is_a_deadline_for_each_verb_and_not_for_each_thread_in_turn(folder: Path) -> None:
    store = opened(folder, "?timeout=0.4")
    waited: list[float] = []

    def wait() -> None:
        begun = time.monotonic()
        with pytest.raises(StoreError, match="timeout="):
            store.set_budget("user:1", Budget(2))
        waited.append(time.monotonic() - begun)

    with locked(folder):
        threads = [threading.Thread(target=wait) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(waited) == 12
    assert max(waited) < 3  # one after the other: 4.8 s
    store.set_budget("user:1", Budget(2))
    store.close()


# A folder that goes away


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be deleted there")
@pytest.mark.parametrize("anew", [False, True])
def test_a_folder_that_is_deleted_while_open_is_noticed(folder: Path, tmp_path: Path, anew: bool) -> None:
    store = opened(folder)
    kept = tmp_path / "kept"
    folder.rename(kept)
    if anew:
        other = opened(folder)
        other.set_budget("user:1", Budget(10**9))
        other.close()
    hold = make_hold()
    for verb in (
        lambda: store.reserve(hold),
        lambda: store.settle(hold, Settlement(5)),
        lambda: store.read("user:1"),
        lambda: list(store.list()),
    ):
        with pytest.raises(StoreError, match="was deleted or replaced while this program used it"):
            verb()
    store.close()
    with pytest.raises(StoreError, match="was deleted or replaced"):
        store.read("user:1")
    assert folder.exists() is anew
    if not anew:
        kept.rename(folder)
        assert spent(store) == 5
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
@pytest.mark.parametrize("umask", [0, 0o022])
def test_the_databases_files_are_their_owners_alone_in_a_folder_that_others_may_read(
    tmp_path: Path, umask: int
) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(umask)
    try:
        store = opened(tmp_path)
        store.set_budget("user:1", Budget(1_000))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("cache.db*")}
    assert set(modes.values()) == {0o600}, modes
    store.close()
    (tmp_path / "cache.db").chmod(0o644)  # as an older version made it
    opened(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "cache.db").stat().st_mode) == 0o600


def test_a_variable_in_the_url_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    for url in ("disk://$PLACE/a", "disk://${PLACE}/a"):
        open_store(url, project="p").close()
    assert (tmp_path / "a" / "cache.db").exists()
    with pytest.raises(ConfigurationError, match=r"no variable \$NO_SUCH_PLACE in the environment"):
        open_store("disk://$NO_SUCH_PLACE/b", project="p")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users")
def test_another_users_store_says_whose_it_is(folder: Path) -> None:
    for parent in folder.parents:
        parent.chmod(parent.stat().st_mode | 0o055)
    answer = in_a_process(
        """
        import os, sys
        from budgetguard.errors import StoreError
        from budgetguard.stores import open_store, sqlite
        os.setgid(65534)
        os.setuid(65534)
        try:
            open_store(f"disk://{sys.argv[1]}", project="p")
        except StoreError as error:
            print(error)
        """,
        folder,
    )
    assert "it belongs to another user (id 0, and this process runs as 65534)" in answer


def test_a_transaction_that_sqlite_has_ended_by_itself_does_not_hide_why(folder: Path) -> None:
    store = opened(folder)
    assert isinstance(store, DiskStore)
    # A full disk does so; then there is nothing to roll back, which SQLite calls an error.
    statement = "INSERT OR ROLLBACK INTO project (name) VALUES ('p')"
    with pytest.raises(StoreError, match="UNIQUE"):
        store._run(lambda rows: rows._execute(statement))  # type: ignore[attr-defined]  # of TableRows
    assert not connection(store).in_transaction
    spend(store, 5)
    store.close()
