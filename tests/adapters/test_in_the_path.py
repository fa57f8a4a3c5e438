"""Whatever else stands around `request`, and however openai was imported, each call is guarded once."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import _base_client

from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetExceededError, UnknownEndpointError
from tests.adapters.books import MESSAGES, MODEL, USER, Books, keeper_on
from tests.adapters.clients import patch, unguarded, unpatch, wrap
from tests.provider.server import OpenAIServer

CHAT: Any = {"model": MODEL, "messages": MESSAGES}
Undo = Callable[[], None]


@pytest.fixture
def books(server: OpenAIServer, tmp_path: Path) -> Iterator[Books]:
    """Books that nothing is patched for."""
    made = Books(keeper_on("memory", tmp_path), server)
    made.limit(10**10)
    with budget_user(USER):
        yield made
    unpatch()


def around(original: Any) -> Any:
    """Stand before a `request` as instrumentation does."""

    @functools.wraps(original)
    def request(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)  # of the async client, what is awaited

    return request


def on_the_subclass(client: Any) -> Undo:
    """As OpenInference and logfire do; afterwards they put there what was the class's before."""
    kind = next(kind for kind in type(client).__mro__ if kind in (openai.OpenAI, openai.AsyncOpenAI))
    original = kind.request
    kind.request = around(original)  # type: ignore[method-assign]

    def undo() -> None:
        kind.request = original  # type: ignore[method-assign]

    return undo


def on_the_base(client: Any) -> Undo:
    kind = next(kind for kind in type(client).__mro__ if kind.__name__ in ("SyncAPIClient", "AsyncAPIClient"))
    original = kind.request
    kind.request = around(original)

    def undo() -> None:
        kind.request = original

    return undo


def on_one_client(client: Any) -> Undo:
    original = client.request
    client.request = around(original)

    def undo() -> None:
        client.request = original

    return undo


@pytest.fixture(autouse=True)
def as_they_were() -> Iterator[None]:
    kinds = (openai.OpenAI, openai.AsyncOpenAI, _base_client.SyncAPIClient, _base_client.AsyncAPIClient)
    before: list[Any] = [kind.__dict__.get("request") for kind in kinds]
    yield
    unpatch()
    for kind, method in zip(kinds, before, strict=True):
        if method is not None:
            kind.request = method
        elif "request" in kind.__dict__:
            del kind.request  # type: ignore[attr-defined]


async def called(client: Any) -> None:
    made = client.chat.completions.create(**CHAT)
    if hasattr(made, "__await__"):
        await made


@pytest.mark.parametrize("guard", [patch, wrap])
@pytest.mark.parametrize("first", [True, False], ids=["instrumented first", "guarded first"])
@pytest.mark.parametrize("instrument", [on_the_subclass, on_the_base, on_one_client])
@pytest.mark.parametrize("kind", ["client", "aclient"])
async def test_a_call_is_guarded_once_beside_instrumentation_in_any_order(
    kind: str, instrument: Callable[[Any], Undo], first: bool, guard: Any, books: Books
) -> None:
    client = getattr(books, kind)()
    undo: Undo | None = instrument(client) if first else None
    guard(*([client] if guard is wrap else []), books.engine)
    undo = undo or instrument(client)
    for times, one in enumerate((client, client.with_options(timeout=60)), 1):
        await called(one)
        assert books.names().count("Held") == times
    assert guard is wrap or unguarded() is None
    undo()
    await called(client)
    assert books.names().count("Held") == 3
    sent = books.server.count()
    books.limit(0)
    with pytest.raises(BudgetExceededError):
        await called(client)
    assert books.server.count() == sent
    if guard is patch:
        unpatch()
        await called(client)
        assert books.server.count() == sent + 1
    closing = client.close()
    if closing is not None:
        await closing


def test_a_method_that_was_kept_from_before_is_guarded(books: Books) -> None:
    with books.client() as client:
        kept = type(client).request
        type(client).request = lambda self, *args, **kwargs: kept(self, *args, **kwargs)  # type: ignore[method-assign]
        patch(books.engine)
        del type(client).request
        client.request = functools.partial(kept, client)  # type: ignore[method-assign]
        client.chat.completions.create(**CHAT)
        assert books.names().count("Held") == 1


@pytest.mark.parametrize("own", [True, False], ids=["a class's", "a client's"])
def test_a_request_that_sends_by_itself_is_guarded(own: bool, books: Books) -> None:
    """Nothing of it reaches the function of openai."""
    with books.client() as other:
        answer = other.chat.completions.create(**CHAT)

        class Own(openai.OpenAI):
            pass

        client = Own(api_key="not-a-key", base_url=books.server.base_url)
        if own:
            Own.request = lambda *_args, **_kwargs: answer  # type: ignore[method-assign]
        else:
            client.request = lambda *_args, **_kwargs: answer  # type: ignore[method-assign]
        patch(books.engine)
        client.chat.completions.create(**CHAT)
        client.close()
    assert books.names().count("Settled") == 1


def test_who_sends_a_request_again_below_us_pays_again(books: Books) -> None:
    original = openai.OpenAI.request

    def twice(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        return original(*args, **kwargs)

    openai.OpenAI.request = twice  # type: ignore[method-assign]
    patch(books.engine)
    with books.client() as client:
        client.chat.completions.create(**CHAT)
    assert books.names().count("Settled") == 1
    assert books.server.count() == 2
    assert books.spent > books.billed  # of the one that was not shown, what it may have cost at most


def test_a_client_that_sends_through_another_is_wrapped_with_it(books: Books) -> None:
    class Inner:
        def __init__(self, client: openai.OpenAI) -> None:
            self.completions = client.chat.completions

    class Outer(openai.OpenAI):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.inner = {"one": [openai.OpenAI(**options)]}
            object.__setattr__(self, "chat", Inner(self.inner["one"][0]))

    client = wrap(Outer(api_key="not-a-key", base_url=books.server.base_url), books.engine)
    for times, one in enumerate((client, client.with_options(timeout=60)), 1):
        one.chat.completions.create(**CHAT)
        assert books.names().count("Held") == times
        one.inner["one"][0].close()


IMPORTS = {
    "a monitor of imports": """
import builtins
original = builtins.__import__
def monitor(name, globals=None, locals=None, fromlist=(), level=0):
    module = original(name, globals, locals, fromlist, level)
    if name.split(".")[0] == "openai" and not hasattr(monitor, "busy"):
        monitor.busy = True
        original("openai._base_client", {}, {}, ("x",), 0)
    return module
builtins.__import__ = monitor
""",
    "a finder before all others": """
from importlib.machinery import PathFinder
class First:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, path, target)
sys.meta_path.insert(0, First)
""",
    "imported again": """
import openai
for name in [name for name in sys.modules if name.split(".")[0] == "openai"]:
    del sys.modules[name]
""",
    "three modules imported again": """
import openai
for name in ("openai", "openai._base_client", "openai._client"):
    del sys.modules[name]
""",
    "reloaded": """
import openai
for name in ("openai._base_client", "openai._client", "openai"):
    importlib.reload(sys.modules[name])
""",
}


@pytest.mark.full
@pytest.mark.parametrize(
    "statement",
    ["import openai", pytest.param("openai = importlib.import_module('openai')", marks=pytest.mark.full)],
)
@pytest.mark.parametrize("how", IMPORTS)
def test_openai_is_guarded_however_it_is_imported(how: str, statement: str, tmp_path: Path) -> None:
    program = f"""
import importlib, sys
import budgetguard
from budgetguard.errors import MissingUserError
budgetguard.configure(store="memory://")
budgetguard.patch_openai()
{IMPORTS[how]}
{statement}
client = openai.OpenAI(api_key="not-a-key", base_url="http://127.0.0.1:9/v1", max_retries=0)
try:
    client.embeddings.create(model="text-embedding-3-small", input="hi")
except MissingUserError:
    print("guarded", *budgetguard.check())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "guarded openai: guarded\n", done.stderr


SOCKETS = """
import asyncio, sys
import budgetguard
from budgetguard.errors import UnknownEndpointError
kept = []
{before}
budgetguard.configure(store="memory://", free_base_urls=["http://127.0.0.1:9/free"])
budgetguard.patch_openai()

async def opens(url):
    import websockets
    await websockets.connect(url)
async def opens_legacy(url):
    from websockets.legacy.client import connect
    await connect(url)
async def opens_sync(url):
    from websockets.sync.client import connect
    (kept or [connect])[0](url)

for opened in opens, opens_legacy, opens_sync:
    for url in sys.argv[1:]:
        try:
            asyncio.run(opened(url))
        except UnknownEndpointError as error:
            print(error.endpoint)
        except OSError:
            print("connects")
"""


@pytest.mark.parametrize("before", ["", "import websockets.asyncio.client, websockets.legacy.client"])
def test_a_websocket_past_the_client_is_refused_by_name(before: str) -> None:
    urls = {
        "ws://127.0.0.1:9/v1/realtime?model=gpt-realtime": "WEBSOCKET /realtime",
        "wss://api.openai.com/v1/responses": "WEBSOCKET /responses",
        "wss://API.openai.com/v2/tomorrow": "WEBSOCKET /v2/tomorrow",
        "ws://127.0.0.1:9/free/v1/realtime": "connects",
        "ws://127.0.0.1:9/realtime/v1/websocket": "connects",
        "ws://127.0.0.1:9/chat": "connects",
    }
    program = SOCKETS.format(before=before)
    command = [sys.executable, "-W", "ignore", "-c", program, *urls]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == list(urls.values()) * 3, done.stderr


def test_a_kept_function_that_connects_is_refused_before_it_says_hello(server: OpenAIServer) -> None:
    before = "from websockets.sync.client import connect\nkept.append(connect)"
    program = SOCKETS.format(before=before)
    url = server.base_url.replace("http", "ws") + "/realtime?model=gpt-realtime"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, url], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["WEBSOCKET /realtime"] * 3, done.stderr
    assert server.count() == 0


def test_websockets_pass_again_after_unpatching(books: Books) -> None:
    from websockets.sync.client import connect

    patch(books.engine)
    import websockets.sync.client

    with pytest.raises(UnknownEndpointError):
        websockets.sync.client.connect("ws://127.0.0.1:9/v1/realtime")
    unpatch()
    assert websockets.sync.client.connect is connect
    with pytest.raises(OSError, match="refused"):
        connect("ws://127.0.0.1:9/v1/realtime")
