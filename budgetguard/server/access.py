"""Who may do what: a request's key, its role and project, how often it may ask, which budgets it may change.

A key that spends takes nothing away that is booked. What an account has spent goes with the end of its
window, so only an administrator's key may move, shorten or lengthen a window. A budget without a window may
be given one while nothing is booked on it and nothing held: one that begins now and takes at least a day, the
shortest that LiteLLM's clients know.
"""

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

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.windows import Milliseconds, window_at
from budgetguard.server.keys import EVERYBODY, OWN_PROJECTS, Key, Keyring, Role
from budgetguard.server.problems import Forbidden, TooManyRequests, Unauthorized

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_PATIENCE_S: Final = 1.0
_OWN_PAGES: Final = frozenset({"same-origin", "none"})
_STRANGERS: Final = 10
_SHORTEST: Final[Milliseconds] = 86_400_000


class Access:
    """Authentication and rate limits of requests.

    Args:
        keyring: the keys.
        private: only this machine can reach the service, so that it may run without a key.
        rate: how often one key may ask this process; None for no limit.
    """

    def __init__(self, keyring: Keyring, *, private: bool, rate: RateLimitItem | None) -> None:
        self._keyring = keyring
        self._private = private
        self._rate = rate
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._refreshing = anyio.Lock()

    async def key_of(self, request: Request) -> Key:
        """Return the key of a request.

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
        # A slow reading is waited for only where the last one may not be used any more.
        with anyio.move_on_after(_PATIENCE_S if self._keyring.is_usable else math.inf):
            async with self._refreshing:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._keyring.refresh)

    def _count(self, who: str, weight: int) -> None:
        if self._rate is not None and not self._limiter.hit(self._rate, who, cost=weight):
            raise TooManyRequests(f"more than {self._rate}: wait a moment, then go on more slowly")


def _network(request: Request) -> str:
    """Return where a request comes from: of IPv6 the /64, as one client may have all addresses of that."""
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


def keeps_booked(present: Balance, budget: Budget, now: Milliseconds) -> bool:
    """Return whether a budget leaves a window as it is, or gives a first one where nothing is booked."""
    if present.duration is None and budget.duration is None and budget.starts_at is None:
        return True
    if (present.duration, present.timezone) != (budget.duration, budget.timezone):
        if present.duration is not None or budget.starts_at is not None:
            return False
        if present.spent_nanos or present.open_holds:
            return False
        end = window_at(budget.duration, now, budget.timezone, now).end
        return end is None or end - now >= _SHORTEST
    if budget.starts_at is None:
        return True
    window = window_at(budget.duration, budget.starts_at, budget.timezone, now)
    return (window.start, window.end) == (present.starts_ms, present.resets_ms)


def _check_local(request: Request) -> None:
    # Without keys, what must be kept out are web pages in a browser of this machine. They may send their
    # site's name as Host (once its DNS leads here), or as Origin. Requests of an <img> have neither; browsers
    # then send Sec-Fetch-Site, where "same-site" is another port of this machine.
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
