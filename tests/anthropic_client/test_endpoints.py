"""Every method of the real client: what it sends is priced, free, or refused with a reason."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from budgetguard.errors import UnknownEndpointError
from budgetguard.providers.anthropic.endpoints import FREE, PRICED, REFUSED, TABLE

from .methods import BASE, Sent, methods

FOUND = list(methods(anthropic.Anthropic))
# The unexplained refusal, of what nobody here has looked at.
UNEXPLAINED = "does not know how much"


def fate(sent: Sent) -> str:
    try:
        row = TABLE.endpoint_of(sent.method, sent.url, base_url=BASE)
    except UnknownEndpointError as error:
        return "in no table" if UNEXPLAINED in str(error) else "refused"
    return "free" if row is None else row.name


@pytest.mark.parametrize(("name", "sent"), FOUND, ids=[name for name, _ in FOUND])
def test_what_a_method_sends_is_priced_free_or_refused_with_a_reason(name: str, sent: Sent) -> None:
    assert fate(sent) in {"messages", "batches", "free", "refused"}


def test_what_runs_a_model_is_priced_or_refused() -> None:
    """By name, so that a row that lets too much pass is seen."""
    fates = {name: fate(sent) for name, sent in FOUND}
    priced = {name for name, found in fates.items() if found in {"messages", "batches"}}
    wanted = {"messages.create", "messages.stream", "messages.batches.create"}
    wanted |= {f"beta.{name}" for name in wanted}
    assert priced >= wanted
    assert priced - wanted <= {"messages.parse", "beta.messages.parse", "beta.messages.tool_runner"}
    refused = {name for name, found in fates.items() if found == "refused"}
    assert refused <= {
        "completions.create",
        "beta.deployments.create",
        "beta.deployments.run",
        "beta.deployments.unpause",
        "beta.deployments.update",
        "beta.dreams.create",
        "beta.sessions.create",
        "beta.sessions.events.send",
    }
    running = ("create", "run", "send", "stream", "parse", "unpause")
    free_creations = {
        name for name, found in fates.items() if found == "free" and name.rpartition(".")[2] in running
    }
    below = ("organization", "compliance", "memory_stores", "tunnels", "user_profiles", "vaults")
    # `list`s of events stream what happened; they are asked by GET.
    assert {name for name in free_creations if not any(part in name for part in below)} <= {
        "beta.agents.create",
        "beta.environments.create",
        "beta.sessions.events.stream",
        "beta.sessions.threads.events.stream",
        "beta.skills.create",
        "beta.skills.versions.create",
        "skills.create",
        "skills.versions.create",
    }


def test_it_finds_what_the_sdk_has() -> None:
    """Else all of the above would hold of nothing."""
    assert len(FOUND) > 20
    assert {"POST", "GET", "DELETE"} <= {sent.method.upper() for _, sent in FOUND}


def test_no_path_is_in_two_tables() -> None:
    priced = {row.path for row in PRICED}
    refused = {path for row in REFUSED for path in row.paths}
    assert not priced & set(FREE)
    assert not priced & refused
    assert not refused & set(FREE)


UNKNOWN: dict[str, str] = {
    "an endpoint of tomorrow": "/v1/made/up",
    "a word where an id is": "/v1/agents/run",
    "below an id": "/v1/sessions/sess_1/rerun",
    "a path that looks free": "/v1/organizationsx/1",
    "a file's way around": "/v1/files/../complete",
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_in_no_table_is_refused(kind: str, open_books: Any) -> None:
    from .server import MessagesServer

    books = open_books(MessagesServer())
    with books.client() as client, pytest.raises(UnknownEndpointError, match="allow_endpoints"):
        client.post(UNKNOWN[kind], body={}, cast_to=object)
    assert books.server.requests == []


def test_administration_and_files_pass_on_an_empty_budget(open_books: Any) -> None:
    from .server import MessagesServer

    books = open_books(MessagesServer())
    books.limit(0)
    paths = ["/v1/files", "/v1/organizations/invites", "/v1/skills/s_1/versions", "/v1/agents/a_1/archive"]
    with books.client(max_retries=0) as client:
        for path in paths:
            with pytest.raises(anthropic.NotFoundError):  # the tests' server knows none of these
                client.post(path, body={}, cast_to=object)
    assert [one.path for one in books.server.requests] == paths
    assert books.of("Held") == []
