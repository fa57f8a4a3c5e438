"""OpenAI's endpoints: what costs money and how it is read, what is free. All else is refused by name.

To teach an endpoint, add a row to `PRICED`; its functions get the request's JSON body.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from budgetguard.adapters.answers import StreamTally, reported
from budgetguard.errors import UnknownEndpointError
from budgetguard.events import logger
from budgetguard.projection import Projection, project_chat, project_embeddings
from budgetguard.rates import Rates
from budgetguard.request_tokens import given
from budgetguard.usage import Reported

Body: TypeAlias = Mapping[str, Any]
Projector: TypeAlias = Callable[[Body, str, Rates, int | None], Projection]


class Tally(Protocol):
    """Read a stream's events as they pass."""

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""

    def feed(self, chunk: object) -> None:
        """Take one event's JSON."""

    def seen_tokens(self) -> int:
        """Count the output tokens seen so far."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Say how one endpoint is read.

    Attributes:
        name: what calls to it are known by, such as `chat`.
        path: without `/v1`.
        project: (body, model, rates, learned output cap) -> what the call will cost at most.
        choices: body -> how many answers are asked for.
        read: whole answer -> what it reports.
        tally: model -> a reader of its stream; None if it does not stream.
        asks_usage: its stream reports usage only if `stream_options.include_usage` asks.
        unreported: body -> units that are billed but that no answer counts.
    """

    name: str
    path: str
    project: Projector
    choices: Callable[[Body], int] = lambda body: 1
    read: Callable[[object], Reported] = reported
    tally: Callable[[str], Tally] | None = None
    asks_usage: bool = False
    unreported: Callable[[Body], Mapping[str, int]] = field(default=lambda body: {})


def _chat(body: Body, model: str, rates: Rates, learned: int | None) -> Projection:
    return project_chat(body, model, rates, learned_cap=learned)


def _embeddings(body: Body, model: str, rates: Rates, _learned: int | None) -> Projection:
    return project_embeddings(body, model, rates)


def _n(body: Body) -> int:
    return given(body, "n") or 1


def _searches(body: Body) -> Mapping[str, int]:
    return {} if given(body, "web_search_options") is None else {"web_searches": 1}


PRICED: Final = (
    Endpoint(
        "chat",
        "/chat/completions",
        _chat,
        choices=_n,
        tally=StreamTally,
        asks_usage=True,
        unreported=_searches,
    ),
    Endpoint("embeddings", "/embeddings", _embeddings),
)

# POST, PUT and PATCH here cost nothing; `{}` is one path segment. What runs a model, stores by the gigabyte,
# rents a machine, or opens a session elsewhere is not here.
FREE: Final = (
    "/moderations",
    "/files",
    "/uploads",
    "/uploads/{}/parts",
    "/uploads/{}/complete",
    "/uploads/{}/cancel",
    "/chat/completions/{}",
    "/responses/input_tokens",
    "/responses/{}/cancel",
    "/conversations",
    "/conversations/{}",
    "/conversations/{}/items",
    "/batches/{}/cancel",
    "/fine_tuning/jobs/{}/cancel",
    "/fine_tuning/jobs/{}/pause",
    "/fine_tuning/alpha/graders/validate",
    "/assistants",
    "/assistants/{}",
    "/threads",
    "/threads/{}",
    "/threads/{}/messages",
    "/threads/{}/messages/{}",
    "/threads/{}/runs/{}",
    "/threads/{}/runs/{}/cancel",
    "/evals",
    "/evals/{}",
    "/evals/{}/runs/{}/cancel",
    "/vector_stores/{}",
    "/vector_stores/{}/file_batches/{}/cancel",
    "/chatkit/sessions/{}/cancel",
    "/realtime/calls/{}/hangup",
    "/realtime/calls/{}/reject",
)
FREE_METHODS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})

_BY_PATH: Final = {row.path: row for row in PRICED}
_warned: set[str] = set()
_AZURE_DEPLOYMENT: Final = re.compile(r"^(?:/openai)?/deployments/([^/]+)(?=/)")
_VERSION: Final = re.compile(r"^(?:/openai)?/v1(?=/)")


def endpoint_of(method: str, url: str, *, base_url: str, allowed: Iterable[str] = ()) -> Endpoint | None:
    """Return how a request is read, or None if it may pass: it is free, or the user allows it.

    Args:
        method: such as `POST`, in any case.
        url: a path, or an absolute URL.
        base_url: the client's.
        allowed: path patterns from the settings; `{}` and `*` are one segment each.

    Raises:
        UnknownEndpointError: it may cost money, and nobody knows how much.
    """
    method = method.upper()
    path = plain_path(url, base_url)
    if method == "POST" and (row := _BY_PATH.get(path)) is not None:
        return row
    if method not in FREE_METHODS and not any(_matches(pattern, path) for pattern in FREE):
        check_allowed(method, path, allowed)
    return None


def check_allowed(method: str, path: str, allowed: Iterable[str]) -> None:
    """Let a request of unknown cost pass if the user allows its path; warn of it once.

    Raises:
        UnknownEndpointError: it is not allowed.
    """
    name = f"{method} {path}"
    if any(_matches(pattern, path) for pattern in allowed):
        if name not in _warned:
            _warned.add(name)
            logger.warning("budgetguard: %s is allowed by allow_endpoints, and charged to nobody", name)
        return
    raise UnknownEndpointError(
        f"{name} may cost money, and budgetguard does not know how much, so it was not sent. "
        f"Allow it unpriced with configure(allow_endpoints=[{path!r}])",
        endpoint=name,
    )


def plain_path(url: str, base_url: str) -> str:
    """Return a request's path as the table has it: no host, query, `/v1` or Azure deployment.

    Dots and escapes are resolved first, so that `/files/../chat/completions` is what it is.
    """
    if url.startswith(base_url):
        url = "/" + url[len(base_url) :]
    parts = urlsplit(url) if "://" in url else urlsplit("//host/" + url.lstrip("/"))
    path = posixpath.normpath("/" + unquote(parts.path).lstrip("/"))
    return _AZURE_DEPLOYMENT.sub("", _VERSION.sub("", path))


def deployment(url: str) -> str | None:
    """Return the Azure deployment that a path names, or None."""
    found = _AZURE_DEPLOYMENT.search("/" + urlsplit(url).path.lstrip("/"))
    return found and unquote(found[1])


def _matches(pattern: str, path: str) -> bool:
    wanted = _VERSION.sub("", "/" + pattern.strip().strip("/")).split("/")
    found = path.split("/")
    return len(wanted) == len(found) and all(
        want == have or (have and re.fullmatch(r"\*|\{\w*\}", want) is not None)
        for want, have in zip(wanted, found, strict=True)
    )
