"""Fetch genai-prices' newest list. Only `budgetguard prices update` does, when the user says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from budgetguard.core.wording import count
from budgetguard.errors import ConfigurationError, PriceListError
from budgetguard.pricing.lists import (
    FETCHED,
    FORMAT,
    FetchedList,
    ListFacts,
    PriceList,
    forget_kept,
    installed_version,
    newest_day,
    providers_of,
    write_kept,
)

TIMEOUT: Final = 30.0
_MOST_BYTES: Final = 64 * 1_024 * 1_024
# A list without these, or with far fewer models than the installed one, is not the whole list.
_NEEDED: Final = ("openai", "anthropic", "google")
_LEAST_PART: Final = 2


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update found.

    Attributes:
        before: the list that was in force.
        after: the list in force now.
        kept: where the fetched list was written; None if it is older than the installed one.
        url: where it came from.
        changed: models that it adds or whose prices differ, as `provider/model`.
    """

    before: ListFacts
    after: ListFacts
    kept: Path | None
    url: str
    changed: tuple[str, ...]


def default_url() -> str:
    """Return where the installed genai-prices fetches its list."""
    from genai_prices.update_prices import DEFAULT_UPDATE_URL

    return DEFAULT_UPDATE_URL


def update(kept: Path, url: str, *, timeout: float = TIMEOUT) -> Updated:
    """Fetch the newest list, check it and keep it for every later process.

    Args:
        kept: where to write it.
        url: where it is; see `default_url`.
        timeout: seconds for each wait for the server.

    Raises:
        ConfigurationError: a bad address.
        PriceListError: it could not be fetched, is no list, or cannot be written. Nothing was changed.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigurationError(f"--url must be an address with http or https, not {url!r}")
    from genai_prices.data_snapshot import DataSnapshot

    installed = PriceList()
    before = PriceList(str(kept))
    facts = before.facts()
    content = _fetched(url, timeout)
    now = datetime.now(UTC)
    try:
        raw = json.loads(content)
        providers = providers_of(raw)
    except ValueError as error:
        raise _unusable(url, f"is not genai-prices' list: {error}") from error
    missing = [name for name in _NEEDED if not any(one.id == name and one.models for one in providers)]
    if missing:
        raise _unusable(url, f"lacks {', '.join(missing)}")
    models = sum(len(one.models) for one in providers)
    least = installed.facts().models // _LEAST_PART
    if models < least:
        raise _unusable(url, f"has {count(models, 'model')}, fewer than half of those installed")
    day = newest_day(iter([content.decode("utf-8", "replace")]), now.date())
    fetched = FetchedList(now, installed_version(), day, DataSnapshot(providers, from_auto_update=False))
    if not fetched.is_newer(installed_version(), installed.facts().dated):
        return Updated(facts, facts, None, url, ())
    changed = _differing(before.snapshot(), fetched.snapshot)
    told = {
        "format": FORMAT,
        "url": url,
        "fetched_at": now.isoformat(),
        "version": fetched.version,
        "dated": None if day is None else day.isoformat(),
        "providers": raw,
    }
    try:
        write_kept(kept, told)
    except OSError as error:
        raise PriceListError(
            f"the price list cannot be written to {kept}: {error.strerror or error}. Name another file with "
            "BUDGETGUARD_PRICE_LIST"
        ) from error
    forget_kept()
    after = ListFacts(FETCHED, fetched.version, day, now, len(providers), models)
    return Updated(facts, after, kept, url, changed)


def _fetched(url: str, timeout: float) -> bytes:
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "budgetguard", "Accept": "application/json"})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            content: bytes = answer.read(_MOST_BYTES + 1)
            announced = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        with error:
            raise _unreached(url, f"{error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreached(url, getattr(error, "reason", None) or error) from error
    if len(content) > _MOST_BYTES:
        raise _unusable(url, f"is larger than {_MOST_BYTES // 1_048_576} MiB")
    if announced is not None and announced.isdigit() and int(announced) != len(content):
        raise _unusable(url, "broke off")
    return content


def _unreached(url: str, why: object) -> PriceListError:
    return PriceListError(
        f"the price list could not be fetched from {url}: {why}. Nothing was changed; try again, or name "
        "another address with --url"
    )


def _unusable(url: str, why: str) -> PriceListError:
    return PriceListError(
        f"what {url} answers {why}. Nothing was changed: the prices are those of before. Update genai-prices "
        "itself, or name another address with --url"
    )


def _differing(before: object, after: object) -> tuple[str, ...]:
    def models(snapshot: object) -> dict[str, tuple[object, object]]:
        return {
            f"{provider.id}/{model.id}": (model.prices, model.price_variants)
            for provider in snapshot.providers  # type: ignore[attr-defined]
            for model in provider.models
        }

    known = models(before)
    return tuple(name for name, prices in models(after).items() if known.get(name) != prices)
