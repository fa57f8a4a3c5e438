"""The documentation is true: its code runs, its links lead somewhere, its tables are the code's."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest

import budgetguard
from budgetguard import errors, events
from budgetguard.config import Settings
from budgetguard.pricing.extra import EXTRA_PRICES, ExtraPrice
from budgetguard.pricing.other_names import OTHER_NAMES, OtherName
from budgetguard.pricing.parsing import parse
from budgetguard.providers.openai.endpoints import TABLE
from tests.anthropic_client.server import MessagesServer
from tests.provider.media import MediaServer
from tests.provider.realtime import RealtimeServer
from tests.provider.server import OpenAIServer
from tests.sdks.bedrock_server import bedrock
from tests.sdks.server import CountingServer
from tests.sdks.test_compatible import answer_chat

from . import pages, price_tables, tables
from .running import checked, environment, python, run

DOCS = pages.ROOT / "docs"
KINDS = ("python", "python {.no-run}", "console", "console {.no-run}", "text", "json", "toml", "")
# What pages show beside us; tests/beside/test_pages.py runs them where these are.
OF_OTHERS = {"docs/web.md": ("fastapi", "flask", "django"), "docs/queues.md": ("celery",)}
# What pages show of SDKs that only `tox -e clients` has; their own tests run them there.
OF_CLIENTS = {"docs/google.md": "tests/google_client/test_page.py"}
page = pytest.mark.parametrize("path", pages.PAGES, ids=pages.name)
# The README runs each time, the other pages before a release.
page_that_runs = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name, marks=() if name == "README.md" else pytest.mark.full)
        for path, name in ((path, pages.name(path)) for path in pages.PAGES)
        if name not in OF_CLIENTS
    ],
)


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    with MediaServer() as server:
        server.batches.ends_after = 1
        yield server


@pytest.fixture
def realtime_server() -> Iterator[RealtimeServer]:
    with RealtimeServer() as server:
        yield server


@pytest.fixture
def messages_server() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        server.batches.ends_after = 2
        yield server


@pytest.fixture
def bedrock_server() -> Iterator[CountingServer]:
    with CountingServer(bedrock) as server:
        yield server


@pytest.fixture
def groq_server() -> Iterator[CountingServer]:
    with CountingServer(answer_chat) as server:
        yield server


@page_that_runs
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(
    path: Path,
    tmp_path: Path,
    openai_server: OpenAIServer,
    realtime_server: RealtimeServer,
    messages_server: MessagesServer,
    bedrock_server: CountingServer,
    groq_server: CountingServer,
) -> None:
    text = path.read_text()
    for package in OF_OTHERS.get(pages.name(path), ()):
        pytest.importorskip(package, reason=f"the page shows {package}: tox -e beside has it")
    variables = environment(
        tmp_path,
        OPENAI_BASE_URL=openai_server.base_url,
        OPENAI_WEBSOCKET_URL=realtime_server.base_url,
        OPENAI_API_KEY="not-a-key",
        ANTHROPIC_BASE_URL=messages_server.base_url,
        ANTHROPIC_API_KEY="not-a-key",
        AWS_ENDPOINT_URL_BEDROCK_RUNTIME=bedrock_server.url,
        GROQ_BASE_URL=groq_server.url,
        GROQ_API_KEY="not-a-key",
        AWS_ACCESS_KEY_ID="not-a-key",
        AWS_SECRET_ACCESS_KEY="not-a-key",
    )
    program = pages.script(text)
    if program.strip():
        done = run(python(checked(program, tmp_path)), tmp_path, variables)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "Exception ignored" not in done.stderr, done.stderr
    for command in pages.commands(text):
        done = run(shlex.split(command, comments=True), tmp_path, variables)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.full
def test_the_store_that_a_page_shows_under_the_contract_passes_it(tmp_path: Path) -> None:
    program = tmp_path / "test_page.py"
    program.write_text(pages.script((DOCS / "stores.md").read_text()))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(program)]
    done = run(command, tmp_path, environment(tmp_path))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(r"\d+ passed", done.stdout)


@page
def test_python_is_left_out_only_where_the_page_says_so(path: Path) -> None:
    for block in pages.blocks(path.read_text()):
        assert block.info in KINDS, f"line {block.start - 1}: {block.info}"
        if not block.info:
            commands = [line for line in block.lines if line.strip()]
            assert all(line.startswith(("budgetguard ", "pip ")) for line in commands), commands


@page
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in pages.links(path.read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        file, _, anchor = unquote(link).partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{link} is no file"
        if anchor:
            assert anchor in pages.anchors(target.read_text()), f"{link} is no heading of {target.name}"


def test_every_page_can_be_found_from_the_index() -> None:
    index = {link.partition("#")[0] for link in pages.links((DOCS / "index.md").read_text())}
    assert {path.name for path in DOCS.glob("*.md")} - {"index.md"} <= index


@pytest.mark.parametrize("name", budgetguard.__all__)
def test_every_public_name_is_on_a_page(name: str) -> None:
    word = re.compile(rf"\b{name}\b")
    assert any(word.search(path.read_text()) for path in DOCS.glob("*.md"))


@page
def test_every_variable_that_a_page_names_exists(path: Path) -> None:
    known = {f"BUDGETGUARD_{one.name.upper()}" for one in fields(Settings)} - {"BUDGETGUARD_CLOCK"}
    for source in pages.PACKAGE.rglob("*.py"):
        known |= set(re.findall(r"[\"'](BUDGETGUARD_[A-Z_]*[A-Z])[\"']", source.read_text()))
    assert set(re.findall(r"BUDGETGUARD_[A-Z_]*[A-Z]", path.read_text())) <= known


def test_the_page_of_settings_lists_exactly_the_settings_and_their_defaults() -> None:
    rows = pages.table((DOCS / "settings.md").read_text(), "## All settings")
    home = str(Path.home())
    defaults = Settings()
    expected = []
    for one in fields(Settings):
        variable = [] if one.name == "clock" else [f"BUDGETGUARD_{one.name.upper()}"]
        value = getattr(defaults, one.name)
        default = "system_clock" if one.name == "clock" else repr(value).replace(home, "~")
        expected.append(([one.name], variable, [default]))
    listed = [(pages.code(row[0]), pages.code(row[1]), pages.code(row[2])) for row in rows]
    assert listed == expected


def test_the_page_of_errors_lists_exactly_the_errors_their_status_and_their_fields() -> None:
    rows = pages.table((DOCS / "errors.md").read_text(), "## All errors")
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.BudgetGuardError)
    ]
    expected = {kind.__name__: (str(kind.status), list(kind.fields)) for kind in kinds}
    assert {pages.code(row[0])[0]: (row[1], pages.code(row[2])) for row in rows} == expected


def test_the_page_of_events_lists_exactly_the_events_and_their_fields() -> None:
    rows = pages.table((DOCS / "events.md").read_text(), "## All events")
    common = {one.name for one in fields(events.CallEvent)}
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type)]
    expected = {}
    for kind in kinds:
        if issubclass(kind, events.Event) and kind not in (events.Event, events.CallEvent):
            left_out = common if issubclass(kind, events.CallEvent) else set()
            names = [one.name for one in fields(kind) if one.name not in left_out]
            expected[kind.__name__] = [n for n in names if n not in {f.name for f in fields(events.Event)}]
    assert {pages.code(row[0])[0]: pages.code(row[1]) for row in rows} == expected


@page
def test_the_price_files_that_a_page_shows_are_good(path: Path) -> None:
    for block in pages.blocks(path.read_text()):
        if block.info == "toml" and "[[price]]" in block.lines:
            assert parse("\n".join(block.lines).encode(), Path("prices.toml"))


@pytest.mark.parametrize("row", [*EXTRA_PRICES, *OTHER_NAMES])
def test_the_names_in_the_tables_of_prices_are_those_that_have_them(row: ExtraPrice | OtherName) -> None:
    pattern = row.models if isinstance(row, ExtraPrice) else row.names
    assert pattern is None or price_tables.expands(pattern)


@pytest.mark.parametrize("name", tables.PAGES)
def test_the_tables_of_a_page_are_what_the_code_says(name: str) -> None:
    text = tables.page(name).read_text()
    assert text == tables.written(text), "run python -m tests.docs.tables"


def test_every_table_of_the_code_is_on_a_page() -> None:
    found = [table for name in tables.PAGES for table in tables.names(tables.page(name).read_text())]
    assert sorted(found) == sorted(tables.TABLES)


def test_a_table_that_is_not_the_code_s_is_written_anew() -> None:
    text = "# A\n\n<!-- table: endpoints -->\n| stale |\n<!-- end -->\n\nMore.\n"
    new = tables.written(text)
    assert "stale" not in new
    assert new.startswith("# A\n\n<!-- table: endpoints -->\n| endpoint |")
    assert new.endswith("|\n<!-- end -->\n\nMore.\n")


def test_what_the_page_of_the_client_calls_refused_is_refused_unless_it_is_allowed() -> None:
    rows = pages.table((DOCS / "openai.md").read_text(), "## What is refused")
    refused = [name for row in rows for name in pages.code(row[0]) if name.startswith("POST /")]
    assert len(refused) > 10
    for name in refused:
        method, path = name.split()
        with pytest.raises(errors.UnknownEndpointError):
            TABLE.endpoint_of(method, path, base_url="https://api.openai.com/v1")


def test_what_the_page_of_the_client_calls_free_is_free() -> None:
    text = (DOCS / "openai.md").read_text()
    (said,) = re.findall(r"^Free are (.+?)\n\n", text, flags=re.MULTILINE | re.DOTALL)
    found = [name for name in pages.code(said) if name.startswith("/")]
    assert found
    for path in found:
        assert TABLE.endpoint_of("POST", path, base_url="https://api.openai.com/v1") is None
