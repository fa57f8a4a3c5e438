"""What the page and the examples of the service say is what the service does."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from budgetguard.server.app import ROUTES
from budgetguard.server.keys import KEYS_PROJECT, ROLES
from budgetguard.server.options import Options
from tests.cli.helpers import run
from tests.docs import pages

PAGE = (pages.ROOT / "docs" / "server.md").read_text()
EXAMPLES = pages.ROOT / "examples" / "serve"


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    found.read(EXAMPLES / "budgetguard.service")
    return found


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    return found


def commands() -> list[str]:
    servers = [one for one in compose()["services"].values() if "command" in one]
    assert len(servers) == 2
    return [unit()["Service"]["ExecStart"], *(one["command"] for one in servers)]


def test_the_page_lists_exactly_the_routes_and_their_roles() -> None:
    rows = pages.table(PAGE, "## The protocol under /v1")
    listed = {(pages.code(row[0])[0], row[1]) for row in rows}
    assert listed == {(f"{route.method} {route.path}", route.role) for route in ROUTES}


def test_the_page_lists_exactly_the_roles() -> None:
    assert [pages.code(row[0])[0] for row in pages.table(PAGE, "## Keys")] == list(ROLES)


@pytest.mark.full
@pytest.mark.parametrize("command", commands())
def test_the_examples_start_the_service_with_options_that_it_has(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert Path(program).name == "budgetguard"
    assert arguments[0] == "serve"
    done = run(*arguments, "--help")
    assert done.code == 0, done.err
    assert run(*arguments, "--no-such-option", "--help").code == 2


def test_the_servers_of_the_example_have_a_key_and_a_store_that_they_share() -> None:
    variables = [one["environment"] for one in compose()["services"].values() if "command" in one]
    assert variables[0] == variables[1]
    values = {name: text.split(":?")[0].strip("${}") * 3 for name, text in variables[0].items()}
    values["BUDGETGUARD_STORE"] = variables[0]["BUDGETGUARD_STORE"].replace("${POSTGRES_PASSWORD}", "secret")
    options = Options.from_environment({**values})
    assert options.store.startswith("postgresql://budgetguard:secret@database/")
    assert options.given is not None
    assert KEYS_PROJECT not in values.values()


def test_the_unit_keeps_its_store_where_systemd_lets_it_write() -> None:
    service = unit()["Service"]
    folder = f"/var/lib/{service['StateDirectory']}/"
    assert f"disk://{folder}" in service["ExecStart"]
