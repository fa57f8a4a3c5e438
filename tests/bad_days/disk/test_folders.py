"""Folders of the disk store: their names, whose they are, and what is written into them."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import diskcache
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Settlement
from budgetguard.core.usage import Usage
from budgetguard.errors import ConfigurationError
from budgetguard.stores import open_store
from budgetguard.stores.sqlite_file import PlainDisk
from tests.bad_days.disk.opening import in_a_process, make_hold, opened, spend

AWKWARD = ["🎈", "a:b", "100%", "%3A", "it's", '"q"', "a/b", "a b", "*", "\\", "ünï"]


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
    assert filled == {"project", "accounts", "hold", "answer", "observation"}
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
