"""A store's URL is shown without what must stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from budgetguard import Guard
from budgetguard.stores.base import public_url


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
