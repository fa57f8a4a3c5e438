"""Read what requests name: accounts, ids, pages, spans. Each refusal says which value is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from budgetguard.core.accounts import check_id
from budgetguard.core.holds import Hold, Settlement
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError
from budgetguard.stores.wire.fields import LATEST, Fields, read_number, read_text
from budgetguard.stores.wire.requests import hold_from_json, settlement_from_json

PAGE: Final = 500
"""Rows of a page unless the request says how many."""

LONGEST_PAGE: Final = 5_000

VIEW: Final = "view"
"""The kind of the accounts in which the service keeps what clients of LiteLLM's have reported."""

_KIND = re.compile(r"[a-z]{1,20}")
# The store sorts and sweeps holds by the time that their ids begin with.
_HOLD_ID = re.compile(r"[0-9a-f]{12}[!-~]{8,100}")


def account(value: object, name: str) -> str:
    """Return an account's name, such as `user:1234`.

    Raises:
        ConfigurationError: it is none, or one of the service's own.
    """
    text = read_text(value, name)
    kind, colon, ident = text.partition(":")
    if not colon or not _KIND.fullmatch(kind):
        raise ConfigurationError(f"{name} must be a kind and an id such as 'user:1234', not {text[:60]!r}")
    if kind == VIEW:
        raise ConfigurationError(f"{name}: accounts of the kind {VIEW!r} are the service's own")
    check_id(ident, name=f"the id of {name}")
    return text


def hold(value: object) -> Hold:
    """Return the hold that a body tells of, its id, accounts and lengths checked.

    Raises:
        ConfigurationError: what is wrong, by name.
    """
    found = hold_from_json(value)
    hold_id(found.id, "hold.id")
    read_number(found.ttl, "hold.ttl", LONGEST_TTL)
    read_number(found.created, "hold.created", LATEST - LONGEST_TTL)
    names = [account(charge.account, "charge.account") for charge in found.charges]
    if len(names) > _MOST_CHARGES:
        raise ConfigurationError(
            f"hold.charges has {len(names)} accounts: at most {_MOST_CHARGES} share a hold"
        )
    if len(found.tags) > _MOST_TAGS:
        raise ConfigurationError(f"hold.tags has {len(found.tags)} tags: at most {_MOST_TAGS} label a call")
    if len(found.model) > LONGEST_MODEL:
        raise ConfigurationError(
            f"hold.model must be at most {LONGEST_MODEL} characters, and {found.model[:20] + '…'!r} has "
            f"{len(found.model)}"
        )
    length = sum(map(len, (*found.tags, *names, found.user or "", found.model, found.endpoint)))
    if length > _MOST_TEXT:
        raise ConfigurationError(
            f"the names and tags of hold are {length} characters: at most {_MOST_TEXT} are kept of a call"
        )
    return found


def settlement(value: object) -> Settlement:
    """Return the settlement that a body tells of.

    Raises:
        ConfigurationError: what is wrong, by name.
    """
    found = settlement_from_json(value)
    if len(found.observed) > MOST_OBSERVED:
        raise ConfigurationError(
            f"settlement.observed has {len(found.observed)} pairs: at most {MOST_OBSERVED} are taken at once"
        )
    if len(found.thresholds) > _MOST_THRESHOLDS:
        raise ConfigurationError(
            f"settlement.thresholds has {len(found.thresholds)} percentages: at most {_MOST_THRESHOLDS} are "
            "told of at once"
        )
    units = {} if found.usage is None else found.usage.units
    if len(units) > _MOST_UNITS or any(len(unit) > _LONGEST_UNIT for unit in units):
        raise ConfigurationError(
            f"settlement.usage must be at most {_MOST_UNITS} units of at most {_LONGEST_UNIT} characters"
        )
    return replace(found, thresholds=tuple(dict.fromkeys(found.thresholds)))


def is_ahead(ident: str, now: Milliseconds) -> bool:
    """Tell whether a hold's id is of a year to come, until which it would be kept; clocks err by less."""
    return made_at(ident) > now + LONGEST_TTL


def made_at(ident: str) -> Milliseconds:
    """Return the time that a hold's id begins with, by which stores find and sweep it."""
    return int(ident[:12], 16)


LONGEST_TTL: Final[Milliseconds] = 366 * 86_400_000
"""How long a hold may live: a year, which is longer than any call, batch or queue takes."""

MOST_OBSERVED: Final = 1_000
"""Observations that one settlement may bring: clients send those of some calls at once."""

LONGEST_MODEL: Final = 500
"""Characters of a model's name: each account keeps the names of all that it paid for."""

_MOST_TEXT: Final = 20_000
_MOST_THRESHOLDS: Final = 100
_MOST_UNITS: Final = 100
_LONGEST_UNIT: Final = 100
_MOST_CHARGES: Final = 100
_MOST_TAGS: Final = 100


def hold_id(value: object, name: str) -> str:
    """Return a hold's id: 12 hexadecimal digits of time, then at least 8 printable ASCII characters.

    Raises:
        ConfigurationError: it is none.
    """
    text = read_text(value, name)
    if not _HOLD_ID.fullmatch(text):
        raise ConfigurationError(
            f"{name} must be 12 hexadecimal digits of time and 8 to 100 more characters, not {text[:60]!r}"
        )
    return text


def one_field(body: object, name: str) -> object:
    """Return the only field of a body.

    Raises:
        ConfigurationError: it is missing, or there are others.
    """
    fields = Fields(body, "body")
    value = fields.take(name)
    fields.end()
    return value


def page_size(query: Mapping[str, str]) -> int:
    """Return how many rows a page is to have.

    Raises:
        ConfigurationError: `limit` is no number from 1 to `LONGEST_PAGE`.
    """
    return _number(query.get("limit", str(PAGE)), "limit", 1, LONGEST_PAGE)


def instant(query: Mapping[str, str], name: str) -> Milliseconds | None:
    """Return a point in time, given as milliseconds since 1970 or as an ISO date or time (UTC).

    Raises:
        ConfigurationError: it is neither.
    """
    text = query.get(name)
    if text is None:
        return None
    if text.isdecimal():
        return _number(text, name, 0, LATEST)
    try:
        found = datetime.fromisoformat(text)
        stamp = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{name} must be milliseconds since 1970, or a date or time such as 2026-11-01 or "
            f"2026-11-01T14:30Z, not {text[:60]!r}"
        ) from None
    return max(0, round(stamp * 1000))


def _number(text: str, name: str, least: int, most: int) -> int:
    # Digits of other scripts are decimal, too, and a long text would be slow to read.
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and least <= int(text) <= most):
        raise ConfigurationError(f"{name} must be a whole number from {least} to {most}, not {text[:60]!r}")
    return int(text)
