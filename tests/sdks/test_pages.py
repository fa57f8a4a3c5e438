"""The page of these clients tells what the tests prove, where all of them are installed."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs import tables

OLDEST = (Path(__file__).parents[1] / "oldest-clients.txt").read_text().split()


@pytest.mark.parametrize("name", tables.NEEDS)
def test_the_table_is_what_the_tests_prove(name: str) -> None:
    for package in tables.NEEDS[name]:
        if not find_spec(package):
            pytest.skip(f"{package} is not installed")
        if f"{package}=={metadata.version(package)}" in OLDEST:
            pytest.skip("the page tells of the newest versions")
    text = tables.page("docs/other-clients.md").read_text()
    begin = f"<!-- table: {name} -->\n"
    (found,) = (part.partition("<!-- end -->")[0] for part in text.split(begin)[1:])
    assert found == "".join(f"{line}\n" for line in tables.TABLES[name]()), "run python -m tests.docs.tables"
