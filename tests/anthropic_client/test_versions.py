"""A version of the package that nobody here has tried is refused in words when it is patched."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import _base_client

from budgetguard.errors import ConfigurationError
from budgetguard.providers.anthropic.sdk import ANTHROPIC

from .server import MessagesServer
from .test_client import BODY


@pytest.mark.parametrize("version", ["0.59.9", "3.0.0", "4.1"])
def test_a_version_that_was_not_tried_is_refused(
    version: str, open_books: Any, patch: Any, monkeypatch: Any
) -> None:
    books = open_books(MessagesServer(), patched=False)
    monkeypatch.setattr("anthropic._version.__version__", version)
    says = rf"anthropic {re.escape(version)} is not one that budgetguard knows: .* from 0\.60\.0 to 2"
    with pytest.raises(ConfigurationError, match=says):
        patch.patch(books.engine)
    with books.client() as client, pytest.raises(ConfigurationError, match=says):
        patch.wrap(client, books.engine)
    assert not patch.is_patched


@pytest.mark.parametrize("version", ["0.60.0", "0.117.1", "1.17.0", "2.99.0"])
def test_a_version_between_those_that_were_tried_is_guarded(
    version: str, open_books: Any, patch: Any, monkeypatch: Any
) -> None:
    books = open_books(MessagesServer(), patched=False)
    monkeypatch.setattr("anthropic._version.__version__", version)
    patch.patch(books.engine)
    with books.client() as client:
        client.messages.create(**BODY)
    assert books.spent > 0


def test_middleware_that_could_not_be_seen_is_refused(open_books: Any, patch: Any, monkeypatch: Any) -> None:
    if not hasattr(_base_client.SyncAPIClient, "_attempt_request"):
        pytest.skip("clients of this anthropic have no middleware")
    patch.unpatch()
    monkeypatch.delattr(_base_client.SyncAPIClient, "_attempt_request")
    books = open_books(MessagesServer(), patched=False)
    with pytest.raises(
        ConfigurationError, match=r"it has no SyncAPIClient\._attempt_request, which its middle"
    ):
        patch.patch(books.engine)


def test_the_versions_that_are_guarded_are_those_that_the_tests_run_on() -> None:
    root = Path(__file__).parents[2]
    groups = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]
    wanted = next(one for one in groups["test-basis"] if isinstance(one, str) and one.startswith("anthropic"))
    oldest, too_new = (".".join(map(str, version)) for version in (ANTHROPIC.oldest, ANTHROPIC.too_new))
    assert wanted.partition("]")[2] == f">={oldest.removesuffix('.0')},<{too_new}"
    assert f"anthropic=={oldest}\n" in (root / "tests/oldest.txt").read_text()
    assert anthropic.__version__
