"""The real clients of google-genai, brought to a server on loopback, and books beside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials

from tests.sdks.books import SdkBooks, sdk_books

from .server import Gemini

PROJECT = {"project": "p", "location": "us-central1"}


def client(url: str, *, vertex: bool = False, **options: Any) -> genai.Client:
    """Return a client of the Developer API, or of Vertex."""
    http = types.HttpOptions(base_url=url, **options)
    if vertex:
        return genai.Client(vertexai=True, credentials=Credentials(token="t"), http_options=http, **PROJECT)
    return genai.Client(api_key="test", http_options=http)


@contextmanager
def google_books(server: Gemini | None = None, **settings: Any) -> Iterator[SdkBooks]:
    """Open books for a Gemini server, with google-genai patched and $10 for the current user."""
    with warnings.catch_warnings(), sdk_books(server or Gemini(), "google", **settings) as books:
        warnings.simplefilter("ignore")  # of what the SDK calls experimental
        yield books
        assert not books.of("Unguarded")


def seen(answer: Any) -> Any:
    """Return what a caller sees of an answer, such that what is equal for it is equal."""
    if isinstance(answer, list):
        return [seen(one) for one in answer]
    dump = getattr(answer, "model_dump", None)
    if not callable(dump):
        return answer
    shown = dump()
    if isinstance(shown, dict):
        shown.pop("sdk_http_response", None)  # which has the time
        shown.pop("http_headers", None)
    return type(answer).__name__, shown
