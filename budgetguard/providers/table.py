"""A table of an API's endpoints: whether a request is priced, free, or refused by name."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, urlsplit

from budgetguard.errors import UnknownEndpointError
from budgetguard.events import logger
from budgetguard.providers.base import Endpoint, Polled, RefusedEndpoints

# Of these, none does any work that is paid for.
FREE_METHODS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_WILDCARD: Final = re.compile(r"\*|\{\w*\}")
_PLAIN_WORD: Final = re.compile(r"[A-Za-z]+")

_warned: set[str] = set()


class EndpointTable:
    """The endpoints of one API. What is in no row is refused.

    Args:
        priced: what costs money, and how it is read.
        free: paths of POST, PUT and PATCH that cost nothing; `{}` is an id. With a method before it, as in
            `PATCH /models/{}`, a path of that alone.
        refused: what costs money that nobody can project, and why.
        polled: free requests that tell what earlier calls cost.
        free_below: paths below which everything costs nothing.
        prefix: what a path may begin with that does not count, such as a version.
    """

    def __init__(
        self,
        priced: Iterable[Endpoint],
        free: Iterable[str],
        refused: Iterable[RefusedEndpoints],
        polled: Iterable[Polled] = (),
        *,
        free_below: Iterable[str] = (),
        prefix: str = r"/v1(?=/)",
    ) -> None:
        self._by_path = {row.path: row for row in priced}
        self._with_ids = tuple(row for row in self._by_path.values() if "{}" in row.path)
        self._free = tuple(free)
        self._free_below = tuple(f"{path}/" for path in free_below)
        self._refused = tuple(refused)
        self._polled = tuple(polled)
        self._polling = frozenset(row.method for row in self._polled)
        self._prefix = re.compile(f"^(?:{prefix})")

    def endpoint_of(
        self, method: str, url: str, *, base_url: str, allowed: Iterable[str] = (), free: bool = False
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
        path = self.path_of(url, base_url)
        row = self._by_path.get(path)
        if row is None and not self.is_free(method, path):
            row = next((one for one in self._with_ids if _matches(one.path, path)), None)
        if row is not None and row.method == method:
            return row
        if not free and not self.is_free(method, path):
            self.check_allowed(method, path, allowed)
        return None

    def is_free(self, method: str, path: str) -> bool:
        """Whether a request costs nothing, wherever it is sent; `path` as the table has it."""
        method = method.upper()
        if method in FREE_METHODS or f"{path}/".startswith(self._free_below):
            return True
        for row in self._free:
            of, _, pattern = row.rpartition(" ")
            if of in ("", method) and _is_free(pattern, path):
                return True
        return False

    def polled(self, method: str, url: str, *, base_url: str) -> Polled | None:
        """Return how a request for the answers of earlier calls is read, or None if it asks for none."""
        method = method.upper()
        if method not in self._polling:
            return None
        path = self.path_of(url, base_url)
        return next((row for row in self._polled if row.method == method and _matches(row.path, path)), None)

    def check_allowed(self, method: str, path: str, allowed: Iterable[str], why: str | None = None) -> None:
        """Let a request of unknown cost pass if the user allows its path, and warn of it once.

        Args:
            method: such as `POST`.
            path: as the table has it.
            allowed: path patterns from the settings.
            why: what it does, where the table does not say.

        Raises:
            UnknownEndpointError: it is not allowed.
        """
        name = f"{method} {path}"
        if any(_matches(_bare("/" + pattern.strip().strip("/"), self._prefix), path) for pattern in allowed):
            if name not in _warned:
                _warned.add(name)
                logger.warning("budgetguard: %s is allowed by allow_endpoints, and charged to nobody", name)
            return
        raise UnknownEndpointError(
            f"{name} {why or self._why(path)}, so it was not sent. "
            f"Allow it unpriced with configure(allow_endpoints=[{path!r}])",
            endpoint=name,
        )

    def path_of(self, url: str, base_url: str) -> str:
        """Return a request's path as the table has it: no host, query or prefix.

        Dots and escapes are resolved first, so that `/files/../chat/completions` is what it is. What follows
        two slashes is a host, which clients leave out: `//chat/completions` is sent to `/completions`.
        """
        return _bare(_plain(url, base_url), self._prefix)

    def _why(self, path: str) -> str:
        for row in self._refused:
            if any(_matches(pattern, path) for pattern in row.paths):
                return row.why
        return "may cost money, and budgetguard does not know how much"


# Calls differ little in these.
@lru_cache(maxsize=1_024)
def _plain(url: str, base_url: str) -> str:
    if url.startswith(base_url):
        url = "/" + url[len(base_url) :]
    parts = urlsplit(url) if "://" in url or url.startswith("//") else urlsplit("//host/" + url.lstrip("/"))
    return posixpath.normpath("/" + unquote(parts.path).lstrip("/"))


@lru_cache(maxsize=1_024)
def _bare(path: str, prefix: re.Pattern[str]) -> str:
    return prefix.sub("", path)


def _is_free(pattern: str, path: str) -> bool:
    # In a free row `{}` is an id, and ids have digits or marks in them. A word there is another endpoint,
    # perhaps one of tomorrow: `/threads/runs` runs a model, and is no thread.
    return _matches(pattern, path) and not any(
        _PLAIN_WORD.fullmatch(have) for want, have in _segments(pattern, path) if want == "{}"
    )


def _matches(pattern: str, path: str) -> bool:
    segments = _segments(pattern, path)
    return bool(segments) and all(want == have or (have and _is_any(want, have)) for want, have in segments)


def _is_any(want: str, have: str) -> bool:
    """Whether a segment is an id, alone or with the verb that is wanted behind it: `{}:predict`."""
    if want.startswith("{}:"):
        return have.endswith(want[2:]) and len(have) > len(want) - 2
    return _WILDCARD.fullmatch(want) is not None


def _segments(pattern: str, path: str) -> list[tuple[str, str]]:
    """Return a pattern's and a path's segments side by side; none if they are not as many."""
    wanted, found = pattern.split("/"), path.split("/")
    return list(zip(wanted, found, strict=True)) if len(wanted) == len(found) else []
