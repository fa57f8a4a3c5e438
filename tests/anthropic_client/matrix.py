"""Every endpoint and every client, in every way of calling it: what the tests of `test_matrix` go through.

The table of docs/anthropic.md is made from the same cases: a mark there is a test.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, Final

import anthropic
import pydantic

from budgetguard.config import Settings
from budgetguard.core.accounts import Budget
from budgetguard.engine.engine import Engine
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetExceededError
from budgetguard.events import Event
from budgetguard.providers.sdks import SDKS
from tests.matrix.ways import (
    CALL,
    HELPER,
    PARSE,
    POST,
    RAW,
    STREAM,
    STREAMING,
    Make,
    Way,
    calls,
    done,
    every,
    faces,
    finish,
    posts,
    stream_faces,
    streams,
    within,
)

from .methods import CLOUDS_COPY
from .server import MessagesServer, Reply

RUNNER: Final = "tool_runner"
RESULTS: Final = "results"
COLUMNS: Final = (CALL, STREAM, HELPER, PARSE, RUNNER, RAW, STREAMING, POST, RESULTS)
USER: Final = "1234"
# Nanos: more than any of the calls costs, and less than any of them is projected at.
RICH: Final = 100 * 10**9
POOR: Final = 100


@dataclass(frozen=True, eq=False)
class Case:
    """One row of the matrix.

    Attributes:
        title: in the table.
        kind: the client's class, without `Async`.
        resource: where its methods are, such as `beta.messages`.
        model: what is asked for.
        price: Nanos a token of input and of output.
        ways: every way in which the SDK makes the call. Each makes one paid request.
        options: what the client is made with.
        replies: what the server answers, in turn; one for each request by default.
    """

    title: str
    kind: str
    resource: str
    model: str
    price: tuple[int, int]
    ways: tuple[Way, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    replies: tuple[Reply, ...] = ()

    @property
    def there(self) -> bool:
        """Whether this SDK has the client."""
        return hasattr(anthropic, self.kind)

    def client(self, base_url: str, *, asynchronous: bool = False) -> Any:
        kind = getattr(anthropic, f"Async{self.kind}" if asynchronous else self.kind)
        return kind(base_url=base_url, **self.options)

    def has(self, way: Way) -> bool:
        """Whether this SDK's client has a way."""
        if not self.there:
            return False
        try:
            attrgetter(way.method)(_a_client(self))
        except AttributeError:
            return False
        if way.name == "with_options" and self.kind != "Anthropic" and not CLOUDS_COPY:
            return False
        return way.column not in (PARSE, RUNNER) or hasattr(anthropic, "beta_tool")

    def billed(self, server: MessagesServer) -> int:
        """Price the server's own log, with no code that reads answers."""
        usages = [one.billed for one in server.requests if one.billed is not None] + server.batches.billed
        read, written = self.price
        return sum(usage["input_tokens"] * read + usage["output_tokens"] * written for usage in usages)


@cache
def _a_client(case: Case) -> Any:
    """Return a client to ask what clients have; it never calls."""
    return case.client("http://127.0.0.1:9")


class Room(pydantic.BaseModel):
    name: str


HELLO: Final = [{"role": "user", "content": "Say hello to everybody in the room."}]
TOOL: Final = {
    "name": "greet",
    "input_schema": {"type": "object", "properties": {"name": {"type": "string"}}},
}
MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "a system prompt and tools": {"system": "Be brief.", "tools": [TOOL]},
    "kept in the cache": {"system": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
    "a timeout and headers": {"timeout": 30.0, "extra_headers": {"X-One": "1"}},
    "extra body": {"extra_body": {"top_k": 5}},
}


def _greet(asynchronous: bool) -> Any:
    if asynchronous:

        @anthropic.beta_async_tool
        async def greet(name: str) -> str:
            """Greet somebody."""
            return f"Hello {name}"

    else:

        @anthropic.beta_tool
        def greet(name: str) -> str:
            """Greet somebody."""
            return f"Hello {name}"

    return greet


def _helper(resource: str, body: Mapping[str, Any], read: str) -> Make:
    async def make(client: Any) -> Any:
        async with within(attrgetter(resource)(client).stream(**body)) as stream:
            if read == "events":
                return [event.type for event in await every(stream)]
            if read == "text":
                return await every(stream.text_stream)
            return await done(getattr(stream, read)())

    return make


def _runner(resource: str, body: Mapping[str, Any], *, stream: bool) -> Make:
    async def make(client: Any) -> Any:
        asynchronous = isinstance(client, anthropic._base_client.AsyncAPIClient)
        runner = attrgetter(resource)(client).tool_runner(
            **body, tools=[_greet(asynchronous)], **({"stream": True} if stream else {})
        )
        if not stream:
            return await done(runner.until_done())
        seen = []
        if asynchronous:
            async for one in runner:
                seen.append(await one.get_final_message())
        else:
            for one in runner:
                seen.append(one.get_final_message())
        return seen

    return make


def _parse(resource: str, body: Mapping[str, Any], *, face: str = "") -> Make:
    async def make(client: Any) -> Any:
        found = attrgetter(resource)(client)
        found = getattr(found, face) if face else found
        answer = await done(found.parse(**body, output_format=Room))
        return await done(answer.parse()) if face else answer.parsed_output

    return make


def messages(resource: str, model: str) -> tuple[Way, ...]:
    """Return the ways of asking for a message."""
    body = {"model": model, "max_tokens": 100, "messages": HELLO}
    create = f"{resource}.create"

    def found() -> Iterator[Way]:
        yield from calls(create, {name: {**body, **more} for name, more in MORE.items()})
        generated = lambda client: done(  # noqa: E731
            attrgetter(create)(client)(**{**body, "messages": (one for one in HELLO)})
        )
        if resource == "messages":  # in beta, the SDK itself reads one to its end before it sends it
            yield Way(CALL, create, "messages from a generator", generated)
        yield from streams(create, {name: {**body, **more} for name, more in MORE.items()})
        yield from faces(create, body)
        yield from stream_faces(create, body)
        for read in ("events", "text", "get_final_message", "get_final_text", "until_done"):
            yield Way(HELPER, f"{resource}.stream", read, _helper(resource, body, read))
        yield Way(PARSE, f"{resource}.parse", "plain", _parse(resource, body))
        if resource == "beta.messages":
            for name, stream in (("until done", False), ("streams", True)):
                yield Way(RUNNER, f"{resource}.tool_runner", name, _runner(resource, body, stream=stream))
        casts = (anthropic.types.Message, object, dict[str, object], str)
        yield from posts("/v1/messages", {"body": {"body": body}}, casts)
        yield from posts("/v1/messages?beta=true", {"beta": {"body": body}}, (object,))

    return tuple(found())


def _batch(resource: str, model: str, begin: str, read: str) -> Make:
    params = {"model": model, "max_tokens": 100, "messages": HELLO}
    body = {"requests": [{"custom_id": f"{number}", "params": params} for number in range(3)]}

    async def make(client: Any) -> Any:
        batches = attrgetter(resource)(client)
        if begin == POST:
            made = await done(client.post("/v1/messages/batches", body=body, cast_to=object))
            ident = made["id"]
        elif begin == RAW:
            made = await done((await done(batches.with_raw_response.create(**body))).parse())
            ident = made.id
        elif begin == STREAMING:
            async with within(batches.with_streaming_response.create(**body)) as response:
                made = await done(response.parse())
                ident = made.id
        else:
            made = await done(batches.create(**body))
            ident = made.id
        for _ in range(3):
            await done(batches.retrieve(ident))
        if read == "client.get":
            return made, await done(client.get(f"/v1/messages/batches/{ident}/results", cast_to=str))
        return made, await every(await done(batches.results(ident)))

    return make


def batches(resource: str, model: str) -> tuple[Way, ...]:
    """Return the ways of creating a batch, and of reading its results when it has ended."""
    create = f"{resource}.create"
    return (
        *(
            Way(begin, create, "results", _batch(resource, model, begin, "results"))
            for begin in (CALL, RAW, STREAMING)
        ),
        Way(POST, "post", "results", _batch(resource, model, POST, "results")),
        Way(RESULTS, f"{resource}.results", "results", _batch(resource, model, CALL, "results")),
        Way(RESULTS, f"{resource}.results", "client.get", _batch(resource, model, CALL, "client.get")),
    )


_KEY: Final = {"api_key": "k"}
_AWS: Final = {"aws_access_key": "k", "aws_secret_key": "s", "aws_region": "us-east-1"}
_ANSWER: Final = Reply(text='{"name": "Hello there, everybody."}')


def _cloud(
    title: str, kind: str, model: str, price: tuple[int, int], options: Mapping[str, Any]
) -> Iterator[Case]:
    for beta in (False, True):
        resource = "beta.messages" if beta else "messages"
        name = f"{title}, beta" if beta else title
        ways = messages(resource, model)
        yield Case(name, kind, resource, model, price, ways, options, (_ANSWER,))


CASES: Final[tuple[Case, ...]] = (
    Case(
        "Messages",
        "Anthropic",
        "messages",
        "claude-sonnet-4-6",
        (3_000, 15_000),
        messages("messages", "claude-sonnet-4-6"),
        _KEY,
        (_ANSWER,),
    ),
    Case(
        "Messages, beta",
        "Anthropic",
        "beta.messages",
        "claude-sonnet-4-6",
        (3_000, 15_000),
        messages("beta.messages", "claude-sonnet-4-6"),
        _KEY,
        (_ANSWER,),
    ),
    *(
        Case(
            f"Message batches{', beta' if beta else ''}",
            "Anthropic",
            f"{beta}messages.batches",
            "claude-sonnet-4-6",
            (1_500, 7_500),
            batches(f"{beta}messages.batches", "claude-sonnet-4-6"),
            _KEY,
        )
        for beta in ("", "beta.")
    ),
    *_cloud(
        "Bedrock",
        "AnthropicBedrock",
        "us.anthropic.claude-haiku-4-5-20251001-v1:0",
        (1_100, 5_500),
        _AWS,
    ),
    *_cloud(
        "Bedrock Mantle",
        "AnthropicBedrockMantle",
        "anthropic.claude-opus-4-8",
        (5_500, 27_500),
        {"api_key": "k", "aws_region": "us-east-1"},
    ),
    *_cloud(
        "Vertex",
        "AnthropicVertex",
        "claude-haiku-4-5@20251001",
        (1_100, 5_500),
        {"project_id": "p", "access_token": "t", "region": "us-east5"},
    ),
    *_cloud("Foundry", "AnthropicFoundry", "claude-sonnet-5", (2_000, 10_000), _KEY),
    *_cloud(
        "Claude Platform on AWS",
        "AnthropicAWS",
        "claude-opus-5",
        (5_000, 25_000),
        {"api_key": "k", "aws_region": "us-east-1", "workspace_id": "w"},
    ),
    *_cloud(
        "Google Cloud, by Anthropic",
        "AnthropicGoogleCloud",
        "claude-opus-5",
        (5_000, 25_000),
        {"project": "p", "workspace_id": "w", "skip_auth": True},
    ),
)


def cells(case: Case) -> dict[str, list[Way]]:
    """Return the ways of a case by column."""
    found: dict[str, list[Way]] = {}
    for way in case.ways:
        found.setdefault(way.column, []).append(way)
    return found


@dataclass(frozen=True)
class Made:
    """What came of a guarded call.

    Attributes:
        answers: what the caller got, of each try: values, or refusals.
        projected: before the calls, USD each.
        spent, held: by the books, Nanos.
        billed: by the server, Nanos.
        sent: how many requests arrived that cost money.
    """

    answers: list[Any]
    projected: list[Decimal]
    spent: int
    held: int
    billed: int
    sent: int


def serve(case: Case) -> MessagesServer:
    server = MessagesServer(case.replies or None)
    server.batches.ends_after = 2
    return server


def make(case: Case, base_url: str, way: Way, *, asynchronous: bool, times: int = 1) -> list[Any]:
    """Make a call so often in one way; return answers and refusals."""
    if asynchronous:
        return asyncio.run(_make_async(case, base_url, way, times))
    found = []
    with case.client(base_url) as client:
        for _ in range(times):
            try:
                found.append(finish(way.make(client)))
            except BudgetExceededError as refused:
                found.append(refused)
    return found


async def _make_async(case: Case, base_url: str, way: Way, times: int) -> list[Any]:
    found: list[Any] = []
    async with case.client(base_url, asynchronous=True) as client:
        for _ in range(times):
            try:
                found.append(await way.make(client))
            except BudgetExceededError as refused:
                found.append(refused)
    return found


def guarded(case: Case, way: Way, *, asynchronous: bool, nanos: int = RICH, times: int = 1) -> Made:
    """Make a call so often with anthropic patched and so much money."""
    engine, events = Engine(Settings(store="memory://")), []
    engine.hooks.add(events.append, ())
    engine.store.set_budget(f"user:{USER}", Budget(limit=nanos))
    patch = SDKS["anthropic"]
    patch.patch(engine)
    try:
        with serve(case) as server, budget_user(USER):
            answers = make(case, server.base_url, way, asynchronous=asynchronous, times=times)
            balance = engine.store.read(f"user:{USER}")
            assert balance is not None
            paid = ("/v1/messages/batches",) if "batches" in case.resource else ()
            return Made(
                answers,
                [event.cost for event in _of("Projected", events)],
                balance.spent_nanos,
                balance.held_nanos,
                case.billed(server),
                sum(one.method == "POST" and one.path in paid for one in server.requests) or server.count(),
            )
    finally:
        patch.unpatch()
        engine.store.close()


def _of(kind: str, events: list[Event]) -> list[Any]:
    return [event for event in events if type(event).__name__ == kind]


def unguarded(case: Case, way: Way, *, asynchronous: bool) -> list[Any]:
    """Make a call with nobody between."""
    with serve(case) as server:
        return make(case, server.base_url, way, asynchronous=asynchronous)


def plain(value: Any) -> Any:
    """Write a value so that two of equal types and contents are equal."""
    if isinstance(value, pydantic.BaseModel):
        return type(value).__name__, value.model_dump(mode="json", warnings=False)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if inspect.isclass(value):
        return value.__qualname__
    return value
