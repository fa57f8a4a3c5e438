"""A store's URL is shown without what must stay secret."""

from __future__ import annotations

import tomllib
import traceback
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from budgetguard import Guard
from budgetguard.config import Settings
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.stores import open_store, targets
from budgetguard.stores.base import STORES, public_url
from budgetguard.stores.urls import shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@host:6379/0?timeout=3&password=secret", "redis://host:6379/0"),
        ("postgresql://me:sec%40ret@host/db#secret", "postgresql://host/db"),
        ("postgresql://secret@[::1]:5432/db", "postgresql://[::1]:5432/db"),
        ("postgresql://u:secret@h/db?schema=a&password=secret&prepare=0", "postgresql://h/db?schema=a"),
        ("postgresql:///db?host=/run/pg&user=secret", "postgresql:///db?host=/run/pg"),
        ("https://secret@budgets.example.com/?timeout=3", "https://budgets.example.com"),
        ("http://:secret@host:8080/team/a/", "http://host:8080/team/a"),
        ("redis://:secret@[bad", "redis://…"),
        ("disk:///var/lib/app?timeout=5", "disk:///var/lib/app"),
        ("disk:///var/lib/app#2?timeout=5", "disk:///var/lib/app#2"),
        ("memory://", "memory://"),
    ],
)
def test_no_credential_is_shown(url: str, shown: str) -> None:
    assert public_url(url) == shown
    assert "secret" not in repr(Guard(store=url, project="p"))


def test_a_folder_is_shown_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert public_url("disk://data/b") == f"disk://{tmp_path}/data/b"
    assert public_url("disk://~/b") == f"disk://{Path.home()}/b"


SECRET = "hunter2"
SCHEMES = ["redis", "rediss", "valkey", "redis+sentinel", "redis+cluster", "postgresql", "postgres"]
FORMS = [
    "{s}:/user:{p}@host/0",
    "{s}:user:{p}@host/0",
    "{s}//user:{p}@host/0",
    "{s}:///user:{p}@host/0",
    "{s}:// user:{p}@host",
    " {s}://user:{p}@host",
    "user:{p}@host",
    "//user:{p}@host",
    "{s}://user:{p}@host:port/0",
    "{s}://user:{p}@host:99999/0",
    "{s}://user:{p}@host name/0",
    "{s}://user:{p}@[bad/0",
    "{s}://user:{p}@/0",
    "{s}://user:{p}",
    "{s}://:{p}",
    "{s}://user:{p}@host/0/1/2",
    "{s}://user:{p}@host/0?timeout=soon",
    "{s}://user:{p}@host/0?schema=A-B",
    "{s}://user:{p}@host#x",
    "{s}://host/0?passwd={p}",
    "{s}://host/0?password={p}&timeout=x",
    "{s}://host/0?sslpassword={p}",
    "{s}://host/0?token={p}",
    "{s}://host/0?timeout=3;password={p}",
    "{s}://host/0?user:{p}@host",
    "{s}://user:{p}@one,user:{p}@two/0",
    "{s}://host@user:{p}",
    "{s}://host/0;password={p}",
    "{s}://host/password={p}",
    "{s}://host/0&password={p}",
]
PARSERS = {
    **dict.fromkeys(targets.REDIS_SCHEMES, targets.redis_target),
    **dict.fromkeys(targets.POSTGRES_SCHEMES, targets.postgres_target),
    **dict.fromkeys(targets.SERVICE_SCHEMES, targets.service_target),
}
AROUND = ["", "/", "@", "#", "?", ":", "%", "[", " ", "&", ";", "=", "\\", "é"]


@given(
    st.sampled_from(FORMS),
    st.sampled_from([*SCHEMES, "https", "http", "REDIS", "PostgreSQL", "rdis", "disk", "memory"]),
    st.sampled_from(AROUND),
    st.sampled_from(AROUND),
)
@settings(max_examples=400, deadline=None)
@example("{s}://user:{p}@host/0", "redis", "a/", "")
@example("{s}://host/0;password={p}", "redis+sentinel", "", "")
@example("{s}://user:{p}@/0", "https", "@", "/")
def test_a_secret_in_a_url_that_is_slightly_wrong_is_shown_nowhere(
    form: str, scheme: str, before: str, after: str
) -> None:
    # Where nothing follows, what stands behind an @ or a / is a host's or a database's name.
    assume(not before or form.partition("{p}")[2])
    url = form.format(s=scheme, p=before + SECRET + after)
    assume(not url.startswith("disk://"))  # a folder, which may be named so
    shown = [public_url(url), shown_url(url)]
    parse = PARSERS.get(url.partition("://")[0], partial(open_store, project="p"))
    for opening in (partial(parse, url), lambda: Settings(store=url), lambda: Guard(store=url)):
        try:
            made = opening()
        except BudgetGuardError as error:
            shown += [str(error), repr(error), str(error.to_dict()), *traceback.format_exception(error)]
        else:
            shown += [repr(made), str(made)]
    assert not [text for text in shown if SECRET in text]


def test_a_driver_that_is_older_than_a_store_can_use_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("redis.__version__", "5.2.0")
    with pytest.raises(
        ConfigurationError, match=r"needs redis 5\.2\.1, not 5\.2\.0: pip install 'budgetguard-ai\[redis\]'"
    ):
        open_store("redis://h", project="p")


@pytest.mark.parametrize("name", sorted({kind.extra for kind in STORES.values() if kind.extra}))
def test_the_oldest_driver_that_a_store_takes_is_the_one_that_its_extra_asks_for(name: str) -> None:
    (kind,) = {kind for kind in STORES.values() if kind.extra == name}
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    (wanted,) = project["optional-dependencies"][name]
    assert f">={'.'.join(map(str, kind.oldest))}," in wanted
