"""The site: every page and every public name is on it, and what pages name exists."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import budgetguard

from . import pages

DOCS = pages.ROOT / "docs"
page = pytest.mark.parametrize("path", pages.PAGES, ids=pages.name)
# Folders of the package as the page of the architecture names them.
PARTS = "core|engine|billing|pricing|tokens|providers|stores|litellm|server|cli|launch|testing"


def listed(nav: Any) -> Iterator[str]:
    """Yield the pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for inner in nav.values():
            yield from listed(inner)
    else:
        for inner in nav:
            yield from listed(inner)


def resolved(name: str) -> object:
    """Return what a dotted name of the package stands for; of a module, how it is found.

    A module is not imported for its own name alone: `budgetguard.auto` acts when it is.

    Raises:
        AttributeError: nothing.
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module, attributes = ".".join(parts[:end]), parts[end:]
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:  # what stands before the last dot is no package
            continue
        if spec is not None:
            found: object = importlib.import_module(module) if attributes else spec
            for attribute in attributes:
                found = getattr(found, attribute)
            return found
    raise AttributeError(name)


def spans(path: Path) -> list[str]:
    """Return what a page has in backquotes, outside of its blocks."""
    return pages.code(pages.prose(path.read_text()))


def test_the_navigation_has_every_page_once() -> None:
    nav = list(listed(yaml.safe_load((pages.ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_index_lists_the_pages_in_the_order_of_the_navigation() -> None:
    nav = list(listed(yaml.safe_load((pages.ROOT / "mkdocs.yml").read_text())["nav"]))
    links = [link for link in pages.links((DOCS / "index.md").read_text()) if link.endswith(".md")]
    assert [link for link in dict.fromkeys(links) if link in nav] == nav[1:]


def test_the_site_loads_nothing_from_elsewhere() -> None:
    theme = yaml.safe_load((pages.ROOT / "mkdocs.yml").read_text())["theme"]
    assert theme["font"] is False


def test_the_reference_has_every_public_name() -> None:
    found = re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    assert len(found) == len(set(found))
    # Those of frameworks need these: tests/test_import.py imports each where it is.
    shown = [resolved(name) for name in found if not name.startswith("budgetguard.integrations.")]
    here = {id(one) for one in shown}
    for one in shown:
        if isinstance(one, ModuleSpec):
            here |= {id(value) for value in vars(importlib.import_module(one.name)).values()}
    missing = [name for name in budgetguard.__all__ if id(getattr(budgetguard, name)) not in here]
    assert missing == []


@page
def test_every_file_and_folder_of_the_package_that_a_page_names_exists(path: Path) -> None:
    for span in spans(path):
        if re.fullmatch(r"(?:budgetguard|tests|benchmarks|examples|docs)/[\w./-]*", span):
            assert (pages.ROOT / span).exists() or "NAME" in span, span


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (DOCS / "architecture.md").read_text()
    named = re.findall(rf"\b(?:{PARTS})/[\w/]*(?:\.py)?", text)
    assert len(named) > 20
    for name in named:
        assert (pages.PACKAGE / name).exists() or "NAME" in name, name


@page
def test_every_dotted_name_of_the_package_that_a_page_names_exists(path: Path) -> None:
    for span in spans(path):
        # Not what a metric or an attribute of a span is called.
        if re.fullmatch(r"budgetguard(?:\.[A-Za-z_]\w*)+", span) and path.name != "opentelemetry.md":
            resolved(span)


def test_a_name_that_is_not_there_is_seen() -> None:
    assert resolved("budgetguard.Guard.budget_user") is budgetguard.Guard.budget_user
    with pytest.raises(AttributeError):
        resolved("budgetguard.Guard.budget_usr")
    with pytest.raises(AttributeError):
        resolved("budgetguard.ledger")
