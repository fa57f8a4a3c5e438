"""Ask a provider's administration API: pages, retries, errors that name the remedy. No key is ever shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from budgetguard.engine.context import passing
from budgetguard.errors import BillError, ConfigurationError

TIMEOUT: Final = 60.0
_TRIES: Final = 5
_LONGEST_WAIT: Final = 60.0
_MOST_BYTES: Final = 64 * 1_024 * 1_024
_MOST_PAGES: Final = 1_000
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class AdminAPI:
    """A provider's administration API.

    Attributes:
        name: the provider, for people.
        base_url: what paths follow.
        key_variable: the variable that has the key, for the error's text.
        key_page: where such keys are made, likewise.
        headers: what every request has; the key is in it.
        timeout: seconds for each wait for the server.
        wait: waits so many seconds before another try.
    """

    name: str
    base_url: str
    key_variable: str
    key_page: str
    headers: Mapping[str, str] = field(repr=False)
    timeout: float = TIMEOUT
    wait: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        where = urlsplit(self.base_url)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise ConfigurationError(
                f"the address of {self.name}'s API must begin with https://, not {self.base_url!r}"
            )
        if where.scheme == "http" and where.hostname not in _LOOPBACK:
            raise ConfigurationError(
                f"{self.base_url!r} would send {self.name}'s admin key unencrypted: write https://"
            )

    def pages(self, path: str, query: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """Yield the pages of an answer, in order.

        Raises:
            ConfigurationError: the key is refused.
            BillError: the API cannot be reached, fails, or answers something else.
        """
        token, seen = "", set[str]()
        while True:
            page = self._page(path, [*query, *([("page", token)] if token else [])])
            yield page
            if not page.get("has_more"):
                return
            after = page.get("next_page")
            if not isinstance(after, str) or not after or after in seen or len(seen) >= _MOST_PAGES:
                raise BillError(
                    f"{self.name} says that {path} has more, and not where (next_page is {after!r}), so the "
                    "bill would not be whole. Try again later"
                )
            seen.add(after)
            token = after

    def _page(self, path: str, query: Sequence[tuple[str, str]]) -> dict[str, Any]:
        url = f"{self.base_url.rstrip('/')}{path}?{urlencode(query)}"
        for tried in range(1, _TRIES + 1):
            status, content, after = self._get(url, path)
            if status == 200:
                return self._parsed(content, path)
            again = status in (408, 409, 429) or status >= 500
            if not again or tried == _TRIES:
                raise self._refused(status, content, path)
            self.wait(min(after if after is not None else 2.0 ** (tried - 1), _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _get(self, url: str, path: str) -> tuple[int, bytes, float | None]:
        """Return status, body and `Retry-After`; what fails to connect is tried again."""
        import http.client
        import urllib.error
        import urllib.request

        class NoRedirects(urllib.request.HTTPRedirectHandler):
            # Another host would be sent the key.
            def redirect_request(self, *_: Any) -> None:
                return None

        opener = urllib.request.build_opener(NoRedirects)
        request = urllib.request.Request(url, headers=dict(self.headers))  # noqa: S310 - checked above
        last: object = None
        for tried in range(1, _TRIES + 1):
            try:
                # The guard watches for what goes around it, and this does not.
                with passing(), opener.open(request, timeout=self.timeout) as answer:
                    content: bytes = answer.read(_MOST_BYTES + 1)
                    announced = answer.headers.get("Content-Length")
                if announced is not None and announced.isdigit() and int(announced) > len(content):
                    raise http.client.IncompleteRead(content)
                return answer.status, content, None
            except urllib.error.HTTPError as error:
                with error:
                    after = error.headers.get("Retry-After", "")
                    content = error.read(_MOST_BYTES)
                waits = float(after) if after.isascii() and after.isdecimal() else None
                return error.code, content, waits
            except (OSError, http.client.HTTPException) as error:
                last = getattr(error, "reason", None) or error
                if tried < _TRIES:
                    self.wait(2.0 ** (tried - 1))
        raise BillError(
            f"{self.name} could not be reached at {self.base_url}{path}: {last}. Nothing was compared; try "
            "again, or save the bill elsewhere and name it with --file"
        )

    def _parsed(self, content: bytes, path: str) -> dict[str, Any]:
        try:
            page = json.loads(content, parse_float=Decimal)
        except (ValueError, RecursionError):
            page = None
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise BillError(
                f"what {self.name} answers to {path} is no page of a report (an object with `data`), so "
                "nothing was compared. Is the address right?"
            )
        return page

    def _refused(self, status: int, content: bytes, path: str) -> BillError | ConfigurationError:
        said = self._without_key(_message(content))
        tail = f" It says: {said}" if said else ""
        if status in (401, 403):
            return ConfigurationError(
                f"{self.name} refuses the key for {path} ({status}). It must be an admin key, which the "
                f"organisation's owners make at {self.key_page}; a key for calls cannot read bills. Put one "
                f"into {self.key_variable}.{tail}"
            )
        if status == 429:
            return BillError(
                f"{self.name} allows no more requests for now (429 for {path}), after {_TRIES} tries. Try "
                f"again in a minute, or with fewer days.{tail}"
            )
        if status >= 500:
            return BillError(
                f"{self.name} fails ({status} for {path}), after {_TRIES} tries. Try again later.{tail}"
            )
        return BillError(f"{self.name} answers {status} to {path}, so nothing was compared.{tail}")

    def _without_key(self, text: str) -> str:
        """Return text of the server's without the key, which some answers repeat."""
        for value in self.headers.values():
            secret = value.removeprefix("Bearer ")
            if len(secret) > 8:
                text = text.replace(secret, "(the key)")
        return text


def admin_key(key: str | None, variable: str, page: str, prefix: str, name: str) -> str:
    """Return the key to use: the one given, else that of the variable.

    Raises:
        ConfigurationError: there is none, or it is plainly no admin key.
    """
    import os

    found = (key if key is not None else os.environ.get(variable, "")).strip()
    if not found:
        raise ConfigurationError(
            f"{name}'s bills need an admin key: make one at {page} and put it into {variable}"
        )
    if not found.isascii() or any(not " " < ch < "\x7f" for ch in found):
        raise ConfigurationError(f"the key in {variable} has characters that no key has; copy it again")
    if not found.startswith(prefix):
        raise ConfigurationError(
            f"the key in {variable} is no admin key, which begins with {prefix}: make one at {page}"
        )
    return found


def _message(content: bytes) -> str:
    try:
        error = json.loads(content).get("error")
        said = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        return ""
    return " ".join(said.split())[:300] if isinstance(said, str) else ""
