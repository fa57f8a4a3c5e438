"""The page of these clients tells what the tests prove; a table is looked at where its SDK is installed."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs import tables

PAGE = "docs/other-clients.md"
TEXT = tables.page(PAGE).read_text()
OLDEST = (Path(__file__).parents[1] / "oldest-clients.txt").read_text().split()
OLD = [
    one
    for one in ("cohere", "litellm", "mistralai")
    if find_spec(one) and f"{one}=={metadata.version(one)}" in OLDEST
]

pytestmark = pytest.mark.skipif(bool(OLD), reason="the page tells of the newest versions")


@pytest.mark.parametrize("name", tables.names(TEXT))
def test_the_table_is_what_the_tests_prove(name: str) -> None:
    try:
        table = tables.TABLES[name]()
        told = "".join(f"{line}\n" for line in table)
    except tables.NotInstalledError as missing:
        pytest.skip(f"{missing} is not installed")
    assert f"<!-- table: {name} -->\n{told}<!-- end -->" in TEXT, "run python -m tests.docs.tables"
