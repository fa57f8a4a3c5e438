"""Who may: the key of a request, its role and project, and how often it may ask."""

from __future__ import annotations

import math
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

import anyio
from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.requests import Request

from budgetguard.server.keys import EVERYBODY, OWN_PROJECTS, Key, Keyring, Role
from budgetguard.server.problems import Forbidden, TooManyRequests, Unauthorized

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_PATIENCE_S: Final = 1.0
_OWN_PAGES: Final = frozenset({"same-origin", "none"})
_STRANGERS: Final = 10


class Access:
    """Let requests in.

    Args:
        keyring: which keys there are.
        private: only this machine can reach the service, so that it may go without a key.
        rate: how often one key may ask this process; None for no limit.
    """

    def __init__(self, keyring: Keyring, *, private: bool, rate: RateLimitItem | None) -> None:
        self._keyring = keyring
        self._private = private
        self._rate = rate
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._refreshing = anyio.Lock()

    async def key_of(self, request: Request) -> Key:
        """Return the key with which a request is made.

        Raises:
            Unauthorized: none, or one that is unknown or revoked.
            Forbidden: no key is needed, but another site's page asks through a browser.
            TooManyRequests: more than the rate.
            StoreError: the keys cannot be read.
        """
        await self._refresh()
        if not self._keyring.keyed and self._private:
            _check_local(request)
            self._count(EVERYBODY.id, 1)
            return EVERYBODY
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        key = self._keyring.find(text.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            self._count(f"from {_network(request)}", _STRANGERS)
            raise Unauthorized(
                "this needs a key that is known and not revoked: send `Authorization: Bearer KEY` "
                "(make one with `budgetguard keys create PROJECT`)"
            )
        self._count(key.id, 1)
        return key

    async def _refresh(self) -> None:
        if self._keyring.is_fresh:
            return
        # A reading that takes long is waited for only where the last one may not be used any more.
        with anyio.move_on_after(_PATIENCE_S if self._keyring.is_usable else math.inf):
            async with self._refreshing:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._keyring.refresh)

    def _count(self, who: str, weight: int) -> None:
        if self._rate is not None and not self._limiter.hit(self._rate, who, cost=weight):
            raise TooManyRequests(f"more than {self._rate}: wait a moment, then go on more slowly")


def _network(request: Request) -> str:
    """Return where a request comes from, in a bounded text: who has one IPv6 address has 2^64."""
    try:
        address = ip_address(request.client.host if request.client else "")
    except ValueError:
        return "elsewhere"
    return str(ip_network((address, 64), strict=False) if address.version == 6 else address)


def check_role(key: Key, role: Role) -> None:
    """Refuse a key whose role does not include another.

    Raises:
        Forbidden: it does not.
    """
    if not key.may(role):
        raise Forbidden(f"this needs a key of the role {role}, and this one's is {key.role}")


def check_key_project(key: Key, project: str) -> None:
    """Refuse a key of another project.

    Raises:
        Forbidden: it is of another, or nobody may name the project.
    """
    if project in OWN_PROJECTS or key.project not in (None, project):
        raise Forbidden("this key is not for that project")


def _check_local(request: Request) -> None:
    # Without keys, a page of some site in a browser of this machine is all that has to be kept out: it may
    # send the site's name as Host (its name leading here by now), or its own as Origin. What it asks by <img>
    # has neither; browsers then say whose page asks, and "same-site" is another port of this machine.
    if request.headers.get("sec-fetch-site", "none") not in _OWN_PAGES:
        raise Forbidden("without keys, this service answers no pages of other sites")
    names = [request.headers.get("host", "")]
    if "origin" in request.headers:
        names.append(request.headers["origin"].partition("://")[2])
    for name in names:
        try:
            host = urlsplit(f"//{name}").hostname
        except ValueError:
            host = None
        if host not in _LOOPBACK:
            raise Forbidden("without keys, this service answers only to names of this machine")
