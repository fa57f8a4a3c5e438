"""Every way in which google-genai makes a request that costs money, and what it is billed by the server.

The bills are written down here by hand, from the price page and what the server answers; no code that reads
answers has a part in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import google.genai as sdk
from google.genai import types

from .clients import client
from .server import COST, EMBEDDED, MODEL, Gemini

# Columns of the table in docs/google.md.
CALL: Final = "call"
STREAM: Final = "stream"
AWAIT: Final = "await"
AWAIT_STREAM: Final = "await stream"
COLUMNS: Final = (CALL, STREAM, AWAIT, AWAIT_STREAM)

VERSION: Final = tuple(map(int, sdk.__version__.split(".")[:2]))
HAS_INTERACTIONS: Final = VERSION >= (2, 10)
# Whether the SDK has every way there is: the table has those of one that does.
HAS_ALL: Final = HAS_INTERACTIONS and all(
    hasattr(types, name)
    for name in ("EmbeddingsBatchJobSource", "RecontextImageSource", "SegmentImageSource")
)
CONTENTS: Final = "Say hello to everybody in the room."
# A million tokens of gemini-embedding-001 cost 0.15.
EMBEDDING: Final = EMBEDDED * 150
IMAGEN: Final = "imagen-4.0-generate-001"
PICTURE: Final = types.Image(image_bytes=b"a picture", mime_type="image/png")
# Read at 0.30 a million, kept for two hours at 1.00.
KEPT: Final = 5_000 * 300 + 10_000 * 1_000


@dataclass(frozen=True, eq=False)
class Way:
    """One way.

    Attributes:
        title: of its row in the table.
        column: of its cell.
        method: the client's method, by its dotted name.
        make: client -> what the caller gets; awaited if it can be.
        billed: Nanos.
        paid: how many requests that cost money it makes.
        vertex: whether it is Vertex' alone.
        server: makes the server that it calls.
        estimated: whether what is booked is the projection.
        later: the answer comes later, so that the money stays held.
    """

    title: str
    column: str
    method: str
    make: Callable[[Any], Any]
    billed: int = COST
    paid: int = 1
    vertex: bool = False
    server: Callable[[], Gemini] = Gemini
    estimated: bool = False
    later: bool = False

    @property
    def id(self) -> str:
        return f"{self.title} | {self.column} | {self.method}" + (" | vertex" if self.vertex else "")


def run(way: Way, url: str, *, wrap: Callable[[Any], Any] = lambda one: one) -> Any:
    """Make the call in one way, and return what the caller gets."""
    made = wrap(client(url, vertex=way.vertex))
    found = way.make(made)
    if isinstance(found, Awaitable):
        return asyncio.run(_awaited(found, made))
    close(made)
    return found


def close(made: Any) -> None:
    """Close a client; older ones cannot be closed."""
    if hasattr(made, "close"):
        made.close()


async def _awaited(found: Awaitable[Any], made: Any) -> Any:
    try:
        return await found
    finally:
        await close_async(made)


async def close_async(made: Any) -> None:
    """Close both faces of a client."""
    if hasattr(made.aio, "aclose"):
        await made.aio.aclose()
    close(made)


async def _pieces(made: Awaitable[Any]) -> list[Any]:
    return [piece async for piece in await made]


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"sunny in {city}"


_TOOLS: Final = types.GenerateContentConfig(tools=[weather])


async def _chat(made: Any) -> list[Any]:
    chat = made.aio.chats.create(model=MODEL)
    return [await chat.send_message(CONTENTS), await chat.send_message("And again.")]


def _chat_stream(made: Any) -> Awaitable[list[Any]]:
    return _pieces(made.aio.chats.create(model=MODEL).send_message_stream(CONTENTS))


def _generating(vertex: bool) -> list[Way]:
    asked: dict[str, Any] = {"model": MODEL, "contents": CONTENTS}
    calls = lambda: Gemini(call=True)  # noqa: E731
    at = ", Vertex" if vertex else ""
    title = f"Contents{at}"
    return [
        Way(
            title,
            CALL,
            "models.generate_content",
            lambda c: c.models.generate_content(**asked),
            vertex=vertex,
        ),
        Way(
            title,
            STREAM,
            "models.generate_content_stream",
            lambda c: list(c.models.generate_content_stream(**asked)),
            vertex=vertex,
        ),
        Way(
            title,
            AWAIT,
            "aio.models.generate_content",
            lambda c: c.aio.models.generate_content(**asked),
            vertex=vertex,
        ),
        Way(
            title,
            AWAIT_STREAM,
            "aio.models.generate_content_stream",
            lambda c: _pieces(c.aio.models.generate_content_stream(**asked)),
            vertex=vertex,
        ),
        Way(
            f"Chats{at}",
            CALL,
            "chats.create",
            lambda c: c.chats.create(model=MODEL).send_message(CONTENTS),
            vertex=vertex,
        ),
        Way(
            f"Chats{at}",
            STREAM,
            "chats.create",
            lambda c: list(c.chats.create(model=MODEL).send_message_stream(CONTENTS)),
            vertex=vertex,
        ),
        Way(f"Chats{at}", AWAIT, "aio.chats.create", _chat, billed=2 * COST, paid=2, vertex=vertex),
        Way(f"Chats{at}", AWAIT_STREAM, "aio.chats.create", _chat_stream, vertex=vertex),
        # Each call of the model is one: that which asks for the function, and that which has its answer.
        *(
            Way(
                f"Function calling{at}",
                column,
                method,
                make,
                billed=2 * COST,
                paid=2,
                vertex=vertex,
                server=calls,
            )
            for column, method, make in (
                (
                    CALL,
                    "models.generate_content",
                    lambda c: c.models.generate_content(**asked, config=_TOOLS),
                ),
                (
                    STREAM,
                    "models.generate_content_stream",
                    lambda c: list(c.models.generate_content_stream(**asked, config=_TOOLS)),
                ),
                (
                    AWAIT,
                    "aio.models.generate_content",
                    lambda c: c.aio.models.generate_content(**asked, config=_TOOLS),
                ),
                (
                    AWAIT_STREAM,
                    "aio.models.generate_content_stream",
                    lambda c: _pieces(c.aio.models.generate_content_stream(**asked, config=_TOOLS)),
                ),
            )
        ),
    ]


def _both(title: str, method: str, make: Callable[[Any], Any], **more: Any) -> list[Way]:
    """Return a call of both faces of the client: `make` gets the one or the other."""
    return [
        Way(title, CALL, method, make, **more),
        Way(title, AWAIT, f"aio.{method}", lambda c: make(c.aio), **more),
    ]


def _embedding() -> list[Way]:
    return [
        *_both(
            "Embeddings",
            "models.embed_content",
            lambda c: c.models.embed_content(model="gemini-embedding-001", contents=["one", "two"]),
            billed=EMBEDDING,
        ),
        *_both(
            "Embeddings, Vertex",
            "models.embed_content",
            lambda c: c.models.embed_content(model="gemini-embedding-001", contents="one"),
            billed=EMBEDDING,
            vertex=True,
        ),
    ]


def _imaging() -> list[Way]:
    recontext = types.RecontextImageSource(
        person_image=PICTURE, product_images=[types.ProductImage(product_image=PICTURE)]
    )
    reference = types.RawReferenceImage(reference_id=1, reference_image=PICTURE)
    number: Any = {"number_of_images": 2}
    ways = _both(
        "Images, Vertex",
        "models.generate_images",
        lambda c: c.models.generate_images(model=IMAGEN, prompt="a cat", config=number),
        billed=2 * 40_000_000,
        vertex=True,
    )
    ways += _both(
        "Images, Vertex",
        "models.edit_image",
        lambda c: c.models.edit_image(model=IMAGEN, prompt="a cat", reference_images=[reference]),
        billed=40_000_000,
        vertex=True,
    )
    ways += _both(
        "Images, Vertex",
        "models.upscale_image",
        lambda c: c.models.upscale_image(model=IMAGEN, image=PICTURE, upscale_factor="x2"),
        billed=40_000_000,
        vertex=True,
    )
    if hasattr(types, "RecontextImageSource"):
        ways += _both(
            "Images, Vertex",
            "models.recontext_image",
            lambda c: c.models.recontext_image(model="virtual-try-on-001", source=recontext),
            billed=60_000_000,
            vertex=True,
        )
    if hasattr(types, "SegmentImageSource"):
        ways += _both(
            "Images, Vertex",
            "models.segment_image",
            lambda c: c.models.segment_image(
                model=IMAGEN, source=types.SegmentImageSource(image=PICTURE, prompt="a cat")
            ),
            billed=40_000_000,
            vertex=True,
        )
    return ways


def _later() -> list[Way]:
    source: Any = [{"contents": CONTENTS}, {"contents": CONTENTS}]
    seconds = types.GenerateVideosConfig(duration_seconds=8, number_of_videos=1)
    cached = types.CreateCachedContentConfig(contents=["word " * 5_000], ttl="7200s")
    return [
        *_both(
            "Videos, Vertex",
            "models.generate_videos",
            lambda c: c.models.generate_videos(model="veo-3.1-generate-001", prompt="a cat", config=seconds),
            billed=0,
            vertex=True,
            later=True,
        ),
        *(_filming() if VERSION < (2, 10) else ()),
        *_both(
            "Batches",
            "batches.create",
            lambda c: c.batches.create(model=MODEL, src=source),
            billed=0,
            later=True,
        ),
        *(_embedding_later() if hasattr(types, "EmbeddingsBatchJobSource") else ()),
        *_both(
            "Caches",
            "caches.create",
            lambda c: c.caches.create(model=MODEL, config=cached),
            billed=KEPT,
        ),
        *_both(
            "Caches",
            "caches.update",
            lambda c: c.caches.update(
                name="cachedContents/c1",
                config=types.UpdateCachedContentConfig(expire_time="2030-01-01T03:00:00Z"),
            ),
            # One hour more.
            billed=5_000 * 1_000,
            estimated=True,
        ),
    ]


def _filming() -> list[Way]:
    """Return what newer clients do at Vertex only."""
    return _both(
        "Videos",
        "models.generate_videos",
        lambda c: c.models.generate_videos(model="veo-3.1-generate-preview", prompt="a cat"),
        billed=0,
        later=True,
    ) + _both(
        "Images",
        "models.generate_images",
        lambda c: c.models.generate_images(model=IMAGEN, prompt="a cat"),
        billed=40_000_000,
    )


def _embedding_later() -> list[Way]:
    source = types.EmbeddingsBatchJobSource(inlined_requests={"contents": ["one", "two"]})
    return _both(
        "Batches",
        "batches.create_embeddings",
        lambda c: c.batches.create_embeddings(model="gemini-embedding-001", src=source),
        billed=0,
        later=True,
    )


def _interacting(vertex: bool) -> list[Way]:
    title = "Interactions, Vertex" if vertex else "Interactions"
    asked: dict[str, Any] = {"model": MODEL, "input": CONTENTS}
    return [
        Way(title, CALL, "interactions.create", lambda c: c.interactions.create(**asked), vertex=vertex),
        Way(
            title,
            STREAM,
            "interactions.create",
            lambda c: list(c.interactions.create(**asked, stream=True)),
            vertex=vertex,
        ),
        Way(
            title,
            AWAIT,
            "aio.interactions.create",
            lambda c: c.aio.interactions.create(**asked),
            vertex=vertex,
        ),
        Way(
            title,
            AWAIT_STREAM,
            "aio.interactions.create",
            lambda c: _pieces(c.aio.interactions.create(**asked, stream=True)),
            vertex=vertex,
        ),
    ]


WAYS: Final = (
    *_generating(vertex=False),
    *_generating(vertex=True),
    *_embedding(),
    *_imaging(),
    *_later(),
    *(_interacting(vertex=False) + _interacting(vertex=True) if HAS_INTERACTIONS else ()),
)
