"""Patching and wrapping: everybody once, before or after the import, and off again."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import wrapt
from openai import _base_client
from openai.resources.responses import Responses

from budgetguard.engine.engine import Engine
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import ConfigurationError, UnknownEndpointError
from budgetguard.providers.openai.sdk import OPENAI
from tests.adapters.books import MESSAGES, MODEL, USER, Books, keeper_on
from tests.adapters.clients import is_patched, patch, unpatch, wrap
from tests.provider.server import OpenAIServer

CHAT: Any = {"model": MODEL, "messages": MESSAGES}
CLIENTS = (_base_client.SyncAPIClient, _base_client.AsyncAPIClient)


@pytest.fixture
def unpatched(server: OpenAIServer, tmp_path: Path) -> Iterator[Books]:
    """Books that nothing is patched for."""
    books = Books(keeper_on("memory", tmp_path), server)
    books.limit(10**10)
    with budget_user(USER):
        yield books
    unpatch()


def other_books(server: OpenAIServer, folder: Path) -> Books:
    books = Books(keeper_on("memory", folder), server)
    books.limit(10**10)
    return books


def test_patching_twice_is_patching_once(unpatched: Books) -> None:
    patch(unpatched.engine)
    patch(unpatched.engine)
    with unpatched.client() as client:
        client.chat.completions.create(**CHAT)
    unpatched.check()
    assert unpatched.names().count("Held") == 1
    unpatch()
    assert not is_patched()
    unpatch()


def test_another_guard_cannot_patch_over_the_first(unpatched: Books, tmp_path: Path) -> None:
    patch(unpatched.engine)
    with pytest.raises(ConfigurationError, match="unpatch_openai"):
        patch(keeper_on("memory", tmp_path))
    with unpatched.client() as client:
        client.chat.completions.create(**CHAT)
    unpatched.check()


def test_clients_and_resources_that_exist_already_are_covered(unpatched: Books) -> None:
    with unpatched.client() as client:
        create = client.chat.completions.create
        patch(unpatched.engine)
        create(**CHAT)
        unpatched.check()
        assert unpatched.spent > 0


def test_the_methods_look_as_they_did(unpatched: Books) -> None:
    before = [kind.__dict__["request"] for kind in CLIENTS]
    signatures = [inspect.signature(method) for method in before]
    patch(unpatched.engine)
    for kind, method, signature in zip(CLIENTS, before, signatures, strict=True):
        assert inspect.signature(kind.request) == signature
        assert kind.request.__qualname__ == method.__qualname__
        assert inspect.iscoroutinefunction(kind.request) == inspect.iscoroutinefunction(method)
    unpatch()
    for kind, method in zip(CLIENTS, before, strict=True):
        assert kind.__dict__["request"] is method  # a wrapper would be equal to what it wraps


def test_unpatching_leaves_a_wrapper_on_top_of_ours(unpatched: Books) -> None:
    seen: list[str] = []

    def theirs(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append("theirs")
        return wrapped(*args, **kwargs)

    original = _base_client.SyncAPIClient.__dict__["request"]
    patch(unpatched.engine)
    wrapt.wrap_function_wrapper(_base_client, "SyncAPIClient.request", theirs)
    try:
        unpatch()
        with unpatched.client() as client:
            client.chat.completions.create(**CHAT)
        assert (seen, unpatched.names(), unpatched.spent) == (["theirs"], [], 0)
        patch(unpatched.engine)
        with unpatched.client() as client:
            client.chat.completions.create(**CHAT)
        assert seen == ["theirs", "theirs"]
        assert unpatched.names().count("Held") == 1
    finally:
        unpatch()
        _base_client.SyncAPIClient.request = original  # type: ignore[method-assign]  # as it was


def test_unpatching_leaves_a_wrapper_below_ours(unpatched: Books) -> None:
    seen: list[str] = []

    def theirs(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append("theirs")
        return wrapped(*args, **kwargs)

    original = _base_client.SyncAPIClient.__dict__["request"]
    wrapt.wrap_function_wrapper(_base_client, "SyncAPIClient.request", theirs)
    try:
        patch(unpatched.engine)
        with unpatched.client() as client:
            client.chat.completions.create(**CHAT)
        unpatch()
        with unpatched.client() as client:
            client.chat.completions.create(**CHAT)
        assert seen == ["theirs", "theirs"]
        assert unpatched.names().count("Held") == 1
    finally:
        _base_client.SyncAPIClient.request = original  # type: ignore[method-assign]  # as it was


@pytest.mark.full
@pytest.mark.parametrize("first", ["openai", "budgetguard.providers.sdks"])
def test_the_order_of_imports_does_not_matter(first: str, server: OpenAIServer) -> None:
    program = f"""
        import sys
        import {first}
        from budgetguard.core.accounts import Budget
        from budgetguard.engine.engine import Engine
        from budgetguard.config import Settings
        from budgetguard.engine.surrounding import budget_user
        from budgetguard.providers.sdks import SDKS
        patch = SDKS["openai"].patch
        assert ("openai" in sys.modules) == ({first!r} == "openai"), "openai was imported for nothing"
        engine = Engine(Settings(store="memory://"))
        engine.store.set_budget("user:1", Budget(limit=10**9))
        patch(engine)
        import openai
        with budget_user("1"), openai.OpenAI(base_url={server.base_url!r}, api_key="test") as client:
            messages = [{{"role": "user", "content": "hi"}}]
            client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        assert engine.store.read("user:1").spent_nanos > 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)
    assert server.count() == 1


class Other:
    """A client of an SDK that was turned inside out."""

    def request(self, options: Any) -> None: ...


class OtherOptions:
    method: str
    url: str


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"SyncAPIClient": None}, r"no SyncAPIClient\.request\(self, cast_to, options"),
        ({"SyncAPIClient": Other}, r"no SyncAPIClient\.request\(self, cast_to, options"),
        ({"AsyncAPIClient": Other}, r"no AsyncAPIClient\.request\(self, cast_to, options"),
        ({"FinalRequestOptions": OtherOptions}, r"FinalRequestOptions lack .*json_data.*post_parser"),
    ],
)
def test_an_openai_of_unknown_shape_is_refused_in_words(
    changed: dict[str, Any], says: str, unpatched: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [kind.__dict__["request"] for kind in CLIENTS]
    client = unpatched.aclient() if "AsyncAPIClient" in changed else unpatched.client()
    for name, thing in changed.items():
        monkeypatch.setattr(_base_client, name, thing)
    with pytest.raises(ConfigurationError, match=rf"openai .* is not one .*{says}.*Install an openai"):
        patch(unpatched.engine)
    with pytest.raises(ConfigurationError, match=says):
        wrap(client, unpatched.engine)
    assert not is_patched()
    assert [kind.__dict__["request"] for kind in CLIENTS] == before
    assert "request" in vars(Other)


@pytest.mark.parametrize("version", ["0.28.1", "1.66.0", "1.109.0", "4.0.0", "4.0.0b1", "10.0", "unheard of"])
def test_an_openai_that_was_never_tried_is_refused_in_words(
    version: str, unpatched: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._version.__version__", version)
    with pytest.raises(ConfigurationError, match=f"openai {version} is not one that budgetguard knows"):
        patch(unpatched.engine)
    assert not is_patched()
    with unpatched.client() as client, pytest.raises(ConfigurationError, match=r"1\.109\.1 to 3"):
        wrap(client, unpatched.engine)


@pytest.mark.full
def test_an_openai_that_was_never_tried_is_refused_however_often_it_is_imported() -> None:
    program = """
        from dataclasses import replace
        from budgetguard.providers.openai.sdk import OPENAI
        from budgetguard.providers.patching import ClientPatch
        from budgetguard.engine.engine import Engine
        from budgetguard.config import Settings
        from budgetguard.errors import ConfigurationError
        under_test = ClientPatch(replace(OPENAI, oldest=(99,)))
        under_test.patch(Engine(Settings(store="memory://")))
        for _ in range(3):
            try:
                import openai
            except ConfigurationError as error:
                print(error)
        under_test.unpatch()
        import openai
        print(openai.OpenAI.__name__)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert re.findall(r"is not one that budgetguard knows|^OpenAI$", done.stdout, re.MULTILINE) == [
        *["is not one that budgetguard knows"] * 3,
        "OpenAI",
    ]


@pytest.mark.parametrize("version", ["1.109.1", "2.0.0", "2.0.0-alpha.1", "3.54.0", "3.999"])
def test_an_openai_of_a_version_between_those_that_were_tried_is_guarded(
    version: str, unpatched: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._version.__version__", version)
    patch(unpatched.engine)
    assert is_patched()


def test_the_versions_that_are_guarded_are_those_that_are_installed_with_us() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    oldest, too_new = (".".join(map(str, version)) for version in (OPENAI.oldest, OPENAI.too_new))
    assert f"openai>={oldest},<{too_new}" in project["dependencies"]


def test_a_wrapped_client_is_guarded_and_no_other(unpatched: Books) -> None:
    with unpatched.client() as client, unpatched.client() as other:
        kind, cached = type(client), client.chat.completions
        assert wrap(client, unpatched.engine) is client
        assert isinstance(client, openai.OpenAI)
        assert (type(client).__name__, type(client).__module__) == (kind.__name__, kind.__module__)
        other.chat.completions.create(**CHAT)
        assert unpatched.names() == []
        cached.create(**CHAT)
        client.with_options(timeout=5).chat.completions.create(**CHAT)
        client.copy().chat.completions.with_raw_response.create(**CHAT)
        list(client.chat.completions.create(**CHAT, stream=True))
        assert unpatched.names().count("Settled") == 4
        (first, *_) = unpatched.of("Settled")
        assert unpatched.held == 0
        assert unpatched.spent * 5 == unpatched.billed * 4
        assert first.cost > 0


async def test_a_wrapped_async_client_is_guarded(unpatched: Books) -> None:
    async with unpatched.aclient() as client:
        assert wrap(client, unpatched.engine) is client
        assert isinstance(client, openai.AsyncOpenAI)
        await client.chat.completions.create(**CHAT)
        async for _ in await client.with_options(timeout=9).chat.completions.create(**CHAT, stream=True):
            pass
        assert inspect.iscoroutinefunction(client.request)
    unpatched.check()
    assert unpatched.names().count("Settled") == 2


def test_wrapping_twice_is_wrapping_once(unpatched: Books, tmp_path: Path) -> None:
    with unpatched.client() as client:
        wrap(wrap(client, unpatched.engine), unpatched.engine)
        client.chat.completions.create(**CHAT)
        assert unpatched.names().count("Held") == 1
        with pytest.raises(ConfigurationError, match="wrapped already"):
            wrap(client, keeper_on("memory", tmp_path))


@pytest.mark.parametrize("order", ["wrap first", "patch first"])
def test_a_client_wrapped_and_patched_is_charged_once_by_the_wrap(
    order: str, unpatched: Books, tmp_path: Path
) -> None:
    wraps = other_books(unpatched.server, tmp_path)
    with unpatched.client() as client:
        if order == "patch first":
            patch(unpatched.engine)
        wrap(client, wraps.engine)
        if order == "wrap first":
            patch(unpatched.engine)
        client.chat.completions.create(**CHAT)
    wraps.check()
    assert (wraps.names().count("Held"), unpatched.names()) == (1, [])


def test_only_clients_of_openai_are_wrapped(unpatched: Books) -> None:
    for thing in (object(), "client", openai):
        with pytest.raises(ConfigurationError, match="@budgeted"):
            wrap(thing, unpatched.engine)


def test_an_azure_client_is_guarded_by_its_deployment_s_model(unpatched: Books) -> None:
    patch(unpatched.engine)
    client = openai.AzureOpenAI(
        azure_endpoint=unpatched.server.url, api_version="2024-10-21", api_key="test", max_retries=0
    )
    with client, pytest.raises(openai.NotFoundError):  # the server has no such path: guarded all the same
        client.chat.completions.create(**CHAT)
    assert unpatched.names() == ["Projected", "Held", "Voided"]
    assert unpatched.server.requests[0].path == f"/openai/deployments/{MODEL}/chat/completions"


def test_an_endpoint_that_nobody_taught_is_refused_by_name(unpatched: Books) -> None:
    patch(unpatched.engine)
    with unpatched.client() as client:
        with pytest.raises(UnknownEndpointError) as error:
            client.post("/made/up", body={}, cast_to=object)
        assert error.value.endpoint == "POST /made/up"
        assert "allow_endpoints" in str(error.value)
    assert unpatched.server.count() == 0
    assert unpatched.names() == []


def test_an_endpoint_that_the_user_allows_passes_unpriced_with_one_warning(
    server: OpenAIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    books = Books(keeper_on("memory", tmp_path, allow_endpoints=("made/{}",)), server)
    wrapped = wrap(books.client(max_retries=0), books.engine)
    with wrapped as client:
        for _ in range(2):
            with pytest.raises(openai.NotFoundError):
                client.post("/made/to-measure", body={}, cast_to=object)
    assert server.count("/v1/made/to-measure") == 2
    assert books.names() == []
    assert [record.getMessage() for record in caplog.records if record.name == "budgetguard"] == [
        "budgetguard: POST /made/to-measure is allowed by allow_endpoints, and charged to nobody"
    ]


def test_free_endpoints_pass_without_a_user_or_a_hold(server: OpenAIServer, tmp_path: Path) -> None:
    books = Books(keeper_on("memory", tmp_path), server)
    patch(books.engine)
    try:
        with books.client() as client:
            assert client.models.list().data
            assert client.moderations.create(model="omni-moderation-latest", input="hello").results
    finally:
        unpatch()
    assert server.count() == 2
    assert books.names() == []


def _realtime(client: Any) -> Any:
    return getattr(client, "realtime", None) or client.beta.realtime


def _join_call(client: Any) -> Any:
    return _realtime(client).connect(model="gpt-realtime", extra_query={"call_id": "rtc_1"})


WEBSOCKETS = {"/realtime?call_id": _join_call}
if hasattr(Responses, "connect"):
    WEBSOCKETS["/responses"] = lambda client: client.responses.connect()


@pytest.mark.parametrize("path", WEBSOCKETS)
@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
def test_websockets_are_refused_by_name_while_guarded(kind: Any, path: str, unpatched: Books) -> None:
    client = kind(base_url=unpatched.server.base_url, api_key="test")
    WEBSOCKETS[path](client)  # makes a connection manager, and connects to nothing yet
    patch(unpatched.engine)
    for one in (client, client.with_options(timeout=3)):
        with pytest.raises(UnknownEndpointError) as error:
            WEBSOCKETS[path](one)
        assert error.value.endpoint == f"WEBSOCKET {path}"
    unpatch()
    WEBSOCKETS[path](client)
    wrap(client, unpatched.engine)
    with pytest.raises(UnknownEndpointError):
        WEBSOCKETS[path](client)
    WEBSOCKETS[path](kind(base_url=unpatched.server.base_url, api_key="test"))


def test_every_websocket_of_this_sdk_is_refused_or_guarded(unpatched: Books) -> None:
    """Every `connect` in the package, found by looking, so that a new one cannot slip by."""
    import importlib
    import pkgutil

    import openai.resources

    source = Path(openai.resources.__path__[0]).rglob("*.py")
    expected = sum(len(re.findall(r"^    def connect\(", path.read_text(), re.MULTILINE)) for path in source)
    patch(unpatched.engine)
    client = unpatched.client()
    found = 0
    for module in pkgutil.walk_packages(openai.resources.__path__, "openai.resources."):
        for kind in list(vars(importlib.import_module(module.name)).values()):
            # By `type`: the SDK's stand-in for a package that is not here imports it when it is asked.
            if not issubclass(type(kind), type) or kind.__module__ != module.name:
                continue
            if "connect" not in vars(kind) or not any(
                base.__name__.endswith("APIResource") for base in kind.__mro__
            ):
                continue
            found += 1
            if module.name.endswith("realtime.realtime"):
                assert hasattr(kind(client).connect(model="gpt-realtime"), "_budgetguard")
                continue
            with pytest.raises(UnknownEndpointError, match="WEBSOCKET /"):
                kind(client).connect()
    assert found == expected > 0


@pytest.mark.parametrize("allowed", WEBSOCKETS)
def test_websockets_connect_where_they_are_allowed_and_nowhere_else(
    allowed: str, server: OpenAIServer, tmp_path: Path
) -> None:
    engine: Engine = keeper_on("memory", tmp_path, allow_endpoints=(allowed, "/made/up"))
    with openai.OpenAI(base_url=server.base_url, api_key="test") as client:
        wrap(client, engine)
        WEBSOCKETS[allowed](client)
        for other in WEBSOCKETS.keys() - {allowed}:
            with pytest.raises(UnknownEndpointError):
                WEBSOCKETS[other](client)


def test_a_class_is_not_taken_for_its_client(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not the class OpenAI itself: make a client of it"):
        wrap(openai.OpenAI, keeper_on("memory", tmp_path))
