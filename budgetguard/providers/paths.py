"""Find the row of a request's path: priced, free, or refused by name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

from budgetguard.errors import UnknownEndpointError
from budgetguard.events import logger
from budgetguard.providers.base import Endpoint, Polled
from budgetguard.providers.openai.endpoints import FREE, FREE_METHODS, POLLED, PRICED, REFUSED

_BY_PATH: Final = {row.path: row for row in PRICED}
_WITH_IDS: Final = tuple(row for row in PRICED if "{}" in row.path)
_POLLING: Final = frozenset(row.method for row in POLLED)
_warned: set[str] = set()
_AZURE_DEPLOYMENT: Final = re.compile(r"^(?:/openai)?/deployments/([^/]+)(?=/)")
# Gateways put a path of their own before it.
_DEPLOYMENT_ANYWHERE: Final = re.compile(r"(?:^|/openai)/deployments/([^/]+)(?=/)")
_WILDCARD: Final = re.compile(r"\*|\{\w*\}")
_PLAIN_WORD: Final = re.compile(r"[A-Za-z]+")
_VERSION: Final = re.compile(r"^(?:/openai)?/v1(?=/)")


def endpoint_of(
    method: str, url: str, *, base_url: str, allowed: Iterable[str] = (), free: bool = False
) -> Endpoint | None:
    """Return how a request is read, or None if it may pass: it is free, or the user allows it.

    Args:
        method: such as `POST`, in any case.
        url: a path, or an absolute URL.
        base_url: the client's.
        allowed: path patterns from the settings; `{}` and `*` are one segment each.
        free: the server is declared to cost nothing, so what is not in the table may pass.

    Raises:
        UnknownEndpointError: it may cost money, and nobody knows how much.
    """
    method = method.upper()
    path = plain_path(url, base_url)
    if method == "POST":
        row = _BY_PATH.get(path) or next((one for one in _WITH_IDS if _matches(one.path, path)), None)
        if row is not None:
            return row
    if not free and method not in FREE_METHODS and not any(_is_free(pattern, path) for pattern in FREE):
        check_allowed(method, path, allowed)
    return None


def polled(method: str, url: str, *, base_url: str) -> Polled | None:
    """Return how a request is read that asks for answers of earlier calls, or None if it asks for none."""
    method = method.upper()
    if method not in _POLLING:
        return None
    path = plain_path(url, base_url)
    return next((row for row in POLLED if row.method == method and _matches(row.path, path)), None)


def check_allowed(method: str, path: str, allowed: Iterable[str], why: str | None = None) -> None:
    """Let a request of unknown cost pass if the user allows its path; warn of it once.

    Args:
        method: such as `POST`.
        path: as the table has it.
        allowed: path patterns from the settings.
        why: what it does, where the table does not say.

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
        f"{name} {why or _why(path)}, so it was not sent. "
        f"Allow it unpriced with configure(allow_endpoints=[{path!r}])",
        endpoint=name,
    )


def _why(path: str) -> str:
    for row in REFUSED:
        if any(_matches(pattern, path) for pattern in row.paths):
            return row.why
    return "may cost money, and budgetguard does not know how much"


def plain_path(url: str, base_url: str) -> str:
    """Return a request's path as the table has it: no host, query, `/v1` or Azure deployment.

    Dots and escapes are resolved first, so that `/files/../chat/completions` is what it is. What follows two
    slashes is a host, which the client leaves out: `//chat/completions` is sent to `/completions`.
    """
    if url.startswith(base_url):
        url = "/" + url[len(base_url) :]
    parts = urlsplit(url) if "://" in url or url.startswith("//") else urlsplit("//host/" + url.lstrip("/"))
    path = posixpath.normpath("/" + unquote(parts.path).lstrip("/"))
    return _AZURE_DEPLOYMENT.sub("", _VERSION.sub("", path))


def deployment(url: str) -> str | None:
    """Return the Azure deployment that a path or an absolute URL names, or None."""
    found = _DEPLOYMENT_ANYWHERE.search("/" + urlsplit(url).path.lstrip("/"))
    return found and unquote(found[1])


def _is_free(pattern: str, path: str) -> bool:
    # In a free row `{}` is an id, and ids have digits or marks in them. A word there is another endpoint,
    # perhaps one of tomorrow: `/threads/runs` runs a model, and is no thread.
    return _matches(pattern, path) and not any(
        _PLAIN_WORD.fullmatch(have) for want, have in _segments(pattern, path) if want == "{}"
    )


def _matches(pattern: str, path: str) -> bool:
    segments = _segments(pattern, path)
    return bool(segments) and all(
        want == have or (have and _WILDCARD.fullmatch(want) is not None) for want, have in segments
    )


def _segments(pattern: str, path: str) -> list[tuple[str, str]]:
    """Return a pattern's and a path's segments side by side; none if they are not as many."""
    wanted = _VERSION.sub("", "/" + pattern.strip().strip("/")).split("/")
    found = path.split("/")
    return list(zip(wanted, found, strict=True)) if len(wanted) == len(found) else []
