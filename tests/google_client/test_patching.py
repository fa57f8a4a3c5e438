"""Patching: before and after the import, one client, two guards, versions; and answers of unknown shape."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pydantic
import pytest
from google import genai
from google.genai import types

import budgetguard
from budgetguard.config import Settings
from budgetguard.core.accounts import Budget
from budgetguard.engine.engine import Engine
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetExceededError, ConfigurationError, MissingUserError
from budgetguard.providers.google import generate
from budgetguard.providers.google.sdk import GOOGLE
from budgetguard.providers.method_patch import MethodPatch
from budgetguard.providers.sdks import SDKS, check, wrap
from tests.sdks.books import USER
from tests.sdks.server import Answer, CountingServer

from .clients import client, google_books
from .server import COST, MODEL, Gemini, whole
from .ways import CONTENTS, HAS_INTERACTIONS, close, close_async


def ask(made: Any) -> Any:
    return made.models.generate_content(model=MODEL, contents=CONTENTS)


@pytest.mark.parametrize("first", ["the SDK", "budgetguard"])
def test_before_and_after_the_import(first: str) -> None:
    """A program that imports the SDK, or patches, first."""
    imports = ["from google import genai", "import budgetguard; budgetguard.patch_google()"]
    if first == "budgetguard":
        imports.reverse()
    program = "\n".join(
        [
            *imports,
            textwrap.dedent(
                """
                import sys
                options = {"base_url": sys.argv[1]}
                client = genai.Client(api_key="test", http_options=options)
                budgetguard.BudgetManager("p").create_budget(total_budget=0.000001, user="u")
                with budgetguard.budget_user("u"):
                    try:
                        client.models.generate_content(model="gemini-2.5-flash", contents="hello")
                    except budgetguard.BudgetExceededError:
                        print("refused")
                print(*[one for one in budgetguard.check() if one.sdk == "google.genai"])
                """
            ),
        ]
    )
    with CountingServer(Gemini()) as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={"BUDGETGUARD_STORE": "memory://", "PATH": ""},
        )
        assert done.stdout.split("\n")[:2] == ["refused", "google.genai: guarded"]
        assert server.requests == []


def test_unpatch_undoes_it() -> None:
    with google_books(unguarded="allow") as books:
        made = client(books.server.url)
        SDKS["google"].unpatch()
        ask(made)
        assert (books.sent, books.spent) == (1, 0)
        SDKS["google"].patch(books.engine)
        SDKS["google"].patch(books.engine)
        ask(made)
        assert (books.sent, books.spent) == (2, COST)
        close(made)


def test_one_client_is_wrapped() -> None:
    with google_books(patched=False) as books:
        ours, other = wrap(client(books.server.url), books.engine), client(books.server.url)
        ask(ours)
        assert books.spent == COST
        ask(other)
        assert (books.sent, books.spent) == (2, COST)
        assert wrap(ours, books.engine) is ours
        assert wrap(other.aio, books.engine) is other.aio
        ask(other)
        assert books.spent == 2 * COST
        for one in (ours, other):
            close(one)


@pytest.mark.skipif(not HAS_INTERACTIONS, reason="an SDK without them")
@pytest.mark.filterwarnings("ignore")
def test_interactions_of_a_wrapped_client_are_guarded() -> None:
    with google_books(patched=False) as books:
        ours, other = wrap(client(books.server.url), books.engine), client(books.server.url)
        ours.interactions.create(model=MODEL, input=CONTENTS)
        assert books.spent == COST
        other.interactions.create(model=MODEL, input=CONTENTS)
        assert (books.sent, books.spent) == (2, COST)
        for one in (ours, other):
            close(one)


def test_the_wrap_pays_where_both_would() -> None:
    with google_books() as books:
        other = Engine(Settings(store="memory://"))
        other.store.set_budget(f"user:{USER}", Budget(limit=10**10))
        made = wrap(client(books.server.url), other)
        ask(made)
        balance = other.store.read(f"user:{USER}")
        assert balance is not None
        assert (balance.spent_nanos, books.spent, books.sent) == (COST, 0, 1)
        with pytest.raises(ConfigurationError, match="wrapped already"):
            wrap(made, books.engine)
        with pytest.raises(ConfigurationError, match="patched already"):
            SDKS["google"].patch(other)
        close(made)
        other.close()


def test_names_of_its_own() -> None:
    with google_books(patched=False) as books:
        made = wrap(client(books.server.url), books.engine, {"tunedModels/mine": MODEL})
        made.models.generate_content(model="tunedModels/mine", contents=CONTENTS)
        assert books.spent == COST
        close(made)


def test_no_client_of_it() -> None:
    with pytest.raises(ConfigurationError, match="make a client"):
        budgetguard.wrap(genai.Client)


@pytest.mark.parametrize("changed", [{"oldest": (99,)}, {"too_new": (1, 0)}])
def test_a_version_that_nobody_has_tried_is_refused(changed: dict[str, Any]) -> None:
    """Readably, and before anything is wrapped."""
    tried = MethodPatch(replace(GOOGLE, name=f"google {changed}", **changed))
    engine = Engine(Settings(store="memory://"))
    with pytest.raises(
        ConfigurationError, match=r"google-genai .* is not one that budgetguard knows.*Install"
    ):
        tried.patch(engine)
    assert not tried.is_patched
    with google_books() as books:
        books.limit(1)
        made = client(books.server.url)
        with pytest.raises(BudgetExceededError):
            ask(made)
    engine.close()


def test_one_that_sends_otherwise_is_refused() -> None:
    other = replace(GOOGLE.methods[0], parameters=("http_method", "made_up_tomorrow"))
    tried = MethodPatch(replace(GOOGLE, name="google otherwise", methods=(other,)))
    engine = Engine(Settings(store="memory://"))
    with pytest.raises(ConfigurationError, match=r"BaseApiClient.request takes no made_up_tomorrow"):
        tried.patch(engine)
    engine.close()


def test_check_tells_what_is_guarded() -> None:
    def said() -> list[str]:
        return [str(one) for one in check() if one.sdk == "google.genai"]

    with google_books():
        assert said() == ["google.genai: guarded"]
    assert "NOT guarded" in said()[0]


def test_nobody_to_pay() -> None:
    with google_books() as books:
        made = client(books.server.url)
        with budget_user("nobody"), pytest.raises((MissingUserError, KeyError, BudgetExceededError)):
            ask(made)
        assert books.sent == 0
        close(made)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"candidates": []},
        {"something": "else"},
        {"candidates": [{"content": {"parts": [{"text": "x"}]}}]},
        whole(usageMetadata={"madeUpTomorrow": 3}),
        whole(usageMetadata=[1, 2]),
    ],
)
def test_an_answer_of_unknown_shape_books_the_projection(answer: dict[str, Any]) -> None:
    with google_books(lambda _arrived: Answer(answer)) as books:
        made = client(books.server.url)
        with suppress(pydantic.ValidationError):  # the SDK's own, of what it cannot read
            ask(made)
        settled = books.of("Settled")[0]
        assert books.spent == books.of("Projected")[0].cost * 10**9
        assert settled.estimated
        close(made)


def test_strict_writes_a_cap_into_the_request() -> None:
    """The largest that the budget affords, into what the SDK sends."""
    with google_books(strict=True) as books:
        books.limit(3_000_000)
        made = client(books.server.url)
        ask(made)
        sent = books.server.requests[0].body["generationConfig"]["maxOutputTokens"]
        assert 16 <= sent < 1_300
        assert books.of("Projected")[-1].output_cap == sent
        close(made)


def test_the_provider_counts_the_input() -> None:
    with google_books(count="provider") as books:
        made = client(books.server.url)
        ask(made)
        first, second = books.server.requests
        assert first.path.endswith(f"models/{MODEL}:countTokens")
        assert first.body["generateContentRequest"]["contents"] == second.body["contents"]
        assert books.of("Projected")[0].usage.units["input_tokens"] == 1_000
        assert (books.spent, books.held) == (COST, 0)
        close(made)


FILE = "https://generativelanguage.googleapis.com/v1beta/files/"


@pytest.mark.parametrize("patched", [True, False])
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_is_fetched_for_a_projection_is_no_call_around_the_guard(
    patched: bool, is_async: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(generate, "_warned", set())
    name = f"{patched}-{is_async}"
    cached = types.GenerateContentConfig(cached_content=f"cachedContents/{name}", max_output_tokens=10)
    part = {"type": "audio", "uri": f"{FILE}{name}", "mime_type": "audio/wav"}
    with google_books(patched=patched, count="provider") as books:
        host = urlsplit(books.server.url).netloc
        books.engine.configure(replace(books.engine.settings, unguarded="block", provider_hosts=(host,)))
        made = client(books.server.url)
        if not patched:
            wrap(made, books.engine)
        face: Any = made.aio if is_async else made
        calls = [partial(face.models.generate_content, model=MODEL, contents=CONTENTS, config=cached)]
        if HAS_INTERACTIONS:
            calls.append(partial(face.interactions.create, model=MODEL, input=[part]))
        for call in calls:
            found = call()
            if is_async:
                await found
        fetched = ["GET", "POST", "POST", *(["GET", "POST"] if HAS_INTERACTIONS else [])]
        assert [one.method for one in books.server.requests] == fetched
        assert books.spent == len(calls) * COST
        assert caplog.messages == []
        await close_async(made)


def test_what_is_added_to_a_body_is_priced() -> None:
    """`extra_body` is merged into the request on its way."""
    with google_books() as books:
        made = client(books.server.url, extra_body={"generationConfig": {"maxOutputTokens": 7}})
        ask(made)
        assert books.of("Projected")[0].output_cap == 7
        assert books.server.requests[0].body["generationConfig"]["maxOutputTokens"] == 7
        close(made)


def test_a_free_server() -> None:
    with CountingServer(Gemini()) as free, google_books(free_base_urls=(free.url,)) as books:
        made = client(free.url)
        books.limit(1)
        ask(made)
        assert (len(free.requests), books.spent) == (1, 0)
        close(made)


@pytest.mark.parametrize("way", ["call", "stream"])
def test_a_tier_that_is_asked_for(way: str) -> None:
    if "service_tier" not in types.GenerateContentConfig.model_fields:
        pytest.skip("an SDK without tiers")
    config = types.GenerateContentConfig(service_tier="priority", max_output_tokens=10)
    with google_books() as books:
        made = client(books.server.url)
        if way == "call":
            made.models.generate_content(model=MODEL, contents=CONTENTS, config=config)
        else:
            list(made.models.generate_content_stream(model=MODEL, contents=CONTENTS, config=config))
        # It was served at the standard one, as the answer says.
        assert books.spent == COST
        close(made)
