"""No method of the client spends past its guard, and every one that costs money is in the matrix.

Each method is called with an empty budget. What it sends then must be free; what it wanted to send is told by
how it was refused.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pytest
from google.genai import types
from google.oauth2.credentials import Credentials

from budgetguard.errors import BudgetExceededError, BudgetGuardError, UnknownEndpointError
from budgetguard.providers.google.endpoints import TABLE, TABLE_VERTEX

from .clients import client, google_books
from .ways import CONTENTS, IMAGEN, PICTURE, WAYS, close_async

pytestmark = pytest.mark.filterwarnings("ignore")

_MADE: Final = {"sdk_http_response", "close", "aclose"}
# Resources below others, which are attributes.
_BELOW: Final = (
    "interactions.auth_tokens",
    "environments.files",
    "file_search_stores.documents",
    "live.music",
)
_MISSING: Final = re.compile(r"'(\w+)'")
# What answers without a request.
_LOCAL: Final = {"chats.create"}
# What these take is not said by their parameters' names.
_OPERATION: Final = types.GenerateVideosOperation(name="models/veo-3.1-generate-001/operations/op1")
_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "agents.create": {"id": "a", "base_agent": "b"},
    "batches.create": {"model": "gemini-2.5-flash", "src": [{"contents": CONTENTS}]},
    "caches.create": {
        "model": "gemini-2.5-flash",
        "config": types.CreateCachedContentConfig(contents=["x"]),
    },
    "caches.update": {
        "name": "cachedContents/c1",
        "config": types.UpdateCachedContentConfig(expire_time="2030-01-01T03:00:00Z"),
    },
    "credentials.create": {"id": "c1", "type": "bearer_token", "token": "t"},
    "credentials.update": {"id": "c1", "type": "bearer_token", "token": "t"},
    "decisions.create": {"model": "gemini-2.5-flash", "input": "x", "questions": {}},
    "environments.files.download": {"environment": "e1", "path": "/x"},
    "environments.files.upload": {"environment": "e1", "path": "/x", "file": io.BytesIO(b"x")},
    "file_search_stores.download_media": {"media_id": "fileSearchStores/s1/media/m1"},
    "files.register_files": {"auth": Credentials(token="t"), "uris": ["gs://b/f1"]},
    "file_search_stores.import_file": {
        "file_search_store_name": "fileSearchStores/s",
        "file_name": "files/f1",
    },
    "file_search_stores.upload_to_file_search_store": {
        "file_search_store_name": "fileSearchStores/s1",
        "file": io.BytesIO(b"x"),
        "config": {"mime_type": "text/plain"},
    },
    "files.upload": {"file": io.BytesIO(b"x"), "config": {"mime_type": "text/plain"}},
    "interactions.create": {"model": "gemini-2.5-flash", "input": "x"},
    "models.edit_image": {
        "model": IMAGEN,
        "prompt": "x",
        "reference_images": [types.RawReferenceImage(reference_id=1, reference_image=PICTURE)],
    },
    "models.embed_content": {"model": "gemini-embedding-001", "contents": "x"},
    "models.generate_images": {"model": IMAGEN, "prompt": "x"},
    "models.generate_videos": {"model": "veo-3.1-generate-001", "prompt": "x"},
    "models.upscale_image": {"model": IMAGEN, "image": PICTURE, "upscale_factor": "x2"},
    "operations.get": {"operation": _OPERATION},
    "triggers.create": {
        "interaction": {"agent": "a1", "input": "x"},
        "schedule": "* * * * *",
        "time_zone": "UTC",
    },
    "tunings.tune": {
        "base_model": "gemini-2.5-flash",
        "training_dataset": types.TuningDataset(gcs_uri="gs://b/f.jsonl"),
    },
    "tunings.validate_reward": {
        "parent": "projects/p/locations/l",
        "sample_response": {"role": "model", "parts": [{"text": "x"}]},
        "example": {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
    },
    "voices.create": {"voice": {"type": "replicated", "display_name": "v"}},
    "webhooks.create": {"subscribed_events": [], "uri": "https://example.org"},
}
if hasattr(types, "EmbeddingsBatchJobSource"):
    _ARGUMENTS["batches.create_embeddings"] = {
        "model": "gemini-embedding-001",
        "src": types.EmbeddingsBatchJobSource(inlined_requests={"contents": ["x"]}),
    }
if hasattr(types, "RecontextImageSource"):
    _ARGUMENTS["models.recontext_image"] = {
        "model": "virtual-try-on-001",
        "source": types.RecontextImageSource(person_image=PICTURE, product_images=[]),
    }
if hasattr(types, "SegmentImageSource"):
    _ARGUMENTS["models.segment_image"] = {
        "model": IMAGEN,
        "source": types.SegmentImageSource(image=PICTURE, prompt="x"),
    }
# Of the same methods at Vertex.
_ARGUMENTS_VERTEX: Final[dict[str, dict[str, Any]]] = {
    "batches.create": {"model": "gemini-2.5-flash", "src": "gs://b/f.jsonl"},
    **{
        f"batches.{name}": {"name": "projects/p/locations/l/batchPredictionJobs/1"}
        for name in ("cancel", "delete", "get")
    },
}
# What the SDK says of a method that an API does not have.
_NOT_HERE: Final = (
    "nly supported in",
    "parameter is not supported in Gemini API",
    "is currently Gemini API only",
    "does not support",
)
_BY_PARAMETER: Final[dict[str, Any]] = {
    "model": "gemini-2.5-flash",
    "contents": CONTENTS,
    "name": "batches/b1",
    "path": "/x",
    "file": "files/f1",
}


def methods(made: Any) -> Iterator[tuple[str, Any]]:
    """Yield the methods of a client's resources, by their dotted names."""
    for name, resource in _resources(made):
        for part, _ in inspect.getmembers(type(resource), inspect.isfunction):
            if not part.startswith("_") and not part.startswith("do_request") and part not in _MADE:
                yield f"{name}.{part}", getattr(resource, part)


def _resources(made: Any) -> Iterator[tuple[str, Any]]:
    for name, found in inspect.getmembers(type(made), lambda one: isinstance(one, property)):
        if name.startswith("_") or name == "aio":
            continue
        del found
        yield name, getattr(made, name)
    for name in _BELOW:
        above, _, part = name.partition(".")
        inner = getattr(getattr(made, above, None), part, None)
        if inner is not None:
            yield name, inner


def _arguments(name: str, method: Any, vertex: bool) -> dict[str, Any]:
    if vertex and name in _ARGUMENTS_VERTEX:
        return _ARGUMENTS_VERTEX[name]
    if name in _ARGUMENTS:
        return _ARGUMENTS[name]
    return {
        one.name: _BY_PARAMETER.get(one.name, "x1")
        for one in inspect.signature(method).parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }


async def _call(name: str, method: Any, vertex: bool) -> BaseException | None:
    """Call a method as far as it comes; return what it raised."""
    arguments = _arguments(name, method, vertex)
    for _ in range(3):
        try:
            await _finish(method(**arguments))
        except TypeError as error:
            # The newer resources say what they take when they are called.
            missing = _MISSING.findall(str(error).partition("argument")[2])
            if "missing" not in str(error) or not missing:
                return error
            arguments = {**arguments, **dict.fromkeys(missing, "x1")}
        except Exception as error:
            return error
        else:
            return None
    return None


async def _finish(found: Any) -> None:
    if hasattr(found, "__aenter__"):
        async with found:
            return
    if inspect.isawaitable(found):
        found = await found
    if hasattr(found, "__aiter__") and not hasattr(found, "__next__"):
        async for _ in found:
            pass
    elif inspect.isgenerator(found):
        for _ in found:
            pass


@dataclass(frozen=True)
class Called:
    """What came of calling every method of one face of the client with an empty budget.

    Attributes:
        errors: by method, what it raised.
        sent: by method, what arrived: method and path.
        spent: Nanos.
    """

    errors: dict[str, BaseException | None]
    sent: dict[str, list[tuple[str, str]]]
    spent: int


@cache
def called(vertex: bool, is_async: bool) -> Called:
    with google_books() as books:
        books.limit(1)
        made = client(books.server.url, vertex=vertex)
        errors: dict[str, BaseException | None] = {}
        sent: dict[str, list[tuple[str, str]]] = {}

        async def call_all() -> None:
            try:
                for name, method in methods(made.aio if is_async else made):
                    before = books.sent
                    errors[name] = await _call(name, method, vertex)
                    sent[name] = [(one.method, one.path) for one in books.server.requests[before:]]
            finally:
                await close_async(made)

        asyncio.run(call_all())
        return Called(errors, sent, books.spent)


faces = pytest.mark.parametrize(
    ("vertex", "is_async"), [(v, a) for v in (False, True) for a in (False, True)]
)


@faces
def test_nothing_is_spent_past_the_guard(vertex: bool, is_async: bool) -> None:
    found, table = called(vertex, is_async), TABLE_VERTEX if vertex else TABLE
    for name, arrived in found.sent.items():
        for method, path in arrived:
            assert table.is_free(method, table.path_of(path, "")), f"{name} sent {method} {path}"
    assert found.spent == 0


@faces
def test_every_method_that_costs_money_is_in_the_matrix(vertex: bool, is_async: bool) -> None:
    priced = {
        f"aio.{name}" if is_async else name
        for name, error in called(vertex, is_async).errors.items()
        if isinstance(error, BudgetExceededError)
    }
    assert priced <= {way.method for way in WAYS}
    assert len(priced) > 3


@faces
def test_every_method_was_called(vertex: bool, is_async: bool) -> None:
    """What neither sent anything nor was refused was not called, or is no method of this API."""
    found = called(vertex, is_async)
    silent = {
        name: repr(error)
        for name, error in found.errors.items()
        if not found.sent[name] and not isinstance(error, BudgetGuardError) and name not in _LOCAL
    }
    left = {name: said for name, said in silent.items() if not any(reason in said for reason in _NOT_HERE)}
    assert left == {}
    assert len(found.errors) > 25


def test_what_spends_where_nobody_sees_it_is_refused_by_name() -> None:
    errors = {**called(False, False).errors, **called(False, True).errors}
    refused = {name for name, error in errors.items() if isinstance(error, UnknownEndpointError)}
    wanted = {
        "agents.create",
        "auth_tokens.create",
        "decisions.create",
        "environments.create",
        "file_search_stores.import_file",
        "file_search_stores.upload_to_file_search_store",
        "interactions.auth_tokens.create",
        "interactions.connect",
        "live.connect",
        "live.music.connect",
        "triggers.create",
        "triggers.run",
        "voices.create",
    }
    # Older clients have fewer.
    assert wanted & errors.keys() <= refused
    assert {"live.connect", "auth_tokens.create"} <= refused
