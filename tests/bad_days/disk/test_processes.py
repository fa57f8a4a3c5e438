"""Bad days of the disk store: what other processes and forks do to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.stores import Store, open_store
from tests.bad_days.disk.opening import in_a_process, make_hold, opened, spend, spent

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


@pytest.mark.full
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
