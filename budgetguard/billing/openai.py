"""OpenAI's bill: `/v1/organization/costs`, with the requests of `/v1/organization/usage/...`.

Sources: the `Usage` part of https://github.com/openai/openai-openapi (`openapi.yaml`), and
https://platform.openai.com/docs/api-reference/usage. The specification has `amount.value` as a number; what
the API sends is text with up to 40 digits, or `0E-6176`. Line items are `MODEL, input`, `MODEL, cached
input`, `MODEL, output`, for sound and pictures `MODEL audio, input`; tools and storage have their own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from time import sleep
from typing import Any, Final

from budgetguard.billing.admin import TIMEOUT, AdminAPI, admin_key
from budgetguard.billing.bill import OPENAI, Bill, BillLine, bill_of, line_nanos, tool_named, utc_day
from budgetguard.errors import BillError

BASE_URL: Final = "https://api.openai.com/v1"
KEY_VARIABLE: Final = "OPENAI_ADMIN_KEY"
KEY_PAGE: Final = "https://platform.openai.com/settings/organization/admin-keys"
COSTS: Final = "organization.costs.result"
USAGE: Final = "organization.usage."

# Days on a page: 180 at most of costs, 31 of usage.
_COST_DAYS: Final = 180
_USAGE_DAYS: Final = 31
# What models are asked for. The other usages are of tools and storage, which have no model.
_USAGES: Final = (
    "completions",
    "embeddings",
    "moderations",
    "images",
    "audio_speeches",
    "audio_transcriptions",
)
_UNITS: Final[Mapping[str, str]] = {
    "input": "input_tokens",
    "cached input": "cache_read_tokens",
    "cache write": "cache_write_tokens",
    "output": "output_tokens",
    "audio input": "input_audio_tokens",
    "audio cached input": "cache_audio_read_tokens",
    "audio output": "output_audio_tokens",
    "image input": "input_image_tokens",
    "image cached input": "cache_image_read_tokens",
    "image output": "output_image_tokens",
}
_TOKENS: Final[Mapping[object, int]] = {"tokens": 1, "1000_tokens": 1_000}
_TIERS: Final = ("batch", "flex", "priority", "scale")
_MODEL_ITEM: Final = re.compile(r"(?P<model>[^ ,]+)(?: (?P<kind>text|audio|image))?,\s*(?P<part>.+)")
# A model's name, not that of a group such as `Images`.
_MODEL: Final = re.compile(r"o\d+|[a-z][a-z0-9]*(?:[-.:_]+[a-z0-9]+)+")


def openai_bill(
    since: date,
    until: date,
    *,
    key: str | None = None,
    projects: Iterable[str] = (),
    base_url: str = BASE_URL,
    timeout: float = TIMEOUT,
    wait: Callable[[float], None] = sleep,
) -> Bill:
    """Fetch what OpenAI charged an organisation.

    Args:
        since: the first UTC day.
        until: the day after the last one.
        key: an admin key; by default that of `OPENAI_ADMIN_KEY`.
        projects: ids (`proj_...`) of the projects that count; by default all.
        base_url: where the API is.
        timeout: seconds for each wait for the server.
        wait: waits so many seconds before another try.

    Raises:
        ConfigurationError: no admin key, or one that is refused.
        BillError: the bill cannot be fetched or read.
    """
    key = admin_key(key, KEY_VARIABLE, KEY_PAGE, "sk-admin-", "OpenAI")
    api = AdminAPI(
        "OpenAI",
        base_url,
        KEY_VARIABLE,
        KEY_PAGE,
        {"Authorization": f"Bearer {key}", "Accept": "application/json", "User-Agent": "budgetguard"},
        timeout,
        wait,
    )
    chosen = tuple(dict.fromkeys(projects))
    span = [
        ("start_time", str(_seconds(since))),
        ("end_time", str(_seconds(until))),
        ("bucket_width", "1d"),
        *(("project_ids", one) for one in chosen),
    ]
    days = (until - since).days
    costs = [*span, ("group_by", "line_item"), ("limit", str(min(days, _COST_DAYS)))]
    lines = [line for page in api.pages("/organization/costs", costs) for line in cost_lines(page)]
    requests: dict[tuple[date, str], int] = {}
    usage = [*span, ("group_by", "model"), ("limit", str(min(days, _USAGE_DAYS)))]
    for name in _USAGES:
        for page in api.pages(f"/organization/usage/{name}", usage):
            add_requests(requests, page)
    source = "OpenAI" + (f" ({', '.join(chosen)})" if chosen else "")
    return bill_of(OPENAI, lines, source=source, since=since, until=until, requests=requests)


def cost_lines(page: Mapping[str, Any]) -> Iterator[BillLine]:
    """Yield the amounts of a page of costs.

    Raises:
        BillError: it is none, or has an amount that is none, or another currency.
    """
    for day, result in results_of(page):
        amount = result.get("amount")
        if amount is None:
            continue
        if not isinstance(amount, Mapping) or "value" not in amount:
            raise BillError(f"OpenAI's costs of {day} have an amount that is none: {amount!r}")
        currency = str(amount.get("currency") or "usd").lower()
        value = amount["value"]
        if value is None:
            continue
        yield cost_line(
            day, value, currency, result.get("line_item"), result.get("quantity"), result.get("quantity_unit")
        )


def cost_line(
    day: date, value: object, currency: str, line_item: object, quantity: object, quantity_unit: object
) -> BillLine:
    """Return one result of OpenAI's costs as a line.

    Raises:
        BillError: the amount is none, or in another currency.
    """
    where = f"OpenAI's costs of {day}"
    if currency != "usd":
        raise BillError(f"{where} are in {currency.upper()}, and what is booked is in USD: they have no rate")
    nanos = line_nanos(_decimal(value, where), where=where)
    name = " ".join(line_item.split()) if isinstance(line_item, str) else ""
    if not name:
        return BillLine(day, nanos)
    found = _MODEL_ITEM.fullmatch(name)
    if found is None or _MODEL.fullmatch(found["model"].lower()) is None:
        if _MODEL.fullmatch(name.lower()) is not None:
            return BillLine(day, nanos, model=name)
        return BillLine(day, nanos, item=tool_named(name) or name)
    part = found["part"].lower().replace("_", " ").removesuffix(" tokens")
    if (tool := tool_named(part)) is not None:
        return BillLine(day, nanos, item=tool)
    tier = next((tier for tier in _TIERS if tier in part.split()), None)
    words = [word for word in part.split() if word not in _TIERS and word != "text"]
    kind = found["kind"] or ""
    unit = _UNITS.get(" ".join([*([kind] if kind in ("audio", "image") else []), *words]))
    counted = _count(quantity, quantity_unit) if unit is not None else None
    return BillLine(day, nanos, model=found["model"], unit=unit, quantity=counted, tier=tier)


def add_requests(requests: dict[tuple[date, str], int], page: Mapping[str, Any]) -> None:
    """Add the requests that a page of usage counts, by day and model.

    Raises:
        BillError: it is none.
    """
    for day, result in results_of(page):
        model, n = result.get("model"), result.get("num_model_requests")
        if isinstance(model, str) and model and isinstance(n, int) and not isinstance(n, bool):
            requests[day, model] = requests.get((day, model), 0) + n


def results_of(page: Mapping[str, Any]) -> Iterator[tuple[date, Mapping[str, Any]]]:
    """Yield the results of a page of OpenAI's with their days.

    Raises:
        BillError: the page has another shape.
    """
    for bucket in page["data"]:
        try:
            start = bucket["start_time"]
            day = utc_day(int(start))
            results = bucket["results"]
            if not all(isinstance(one, Mapping) for one in results):
                raise TypeError("a result is no object")
        except (TypeError, KeyError, ValueError) as error:
            raise BillError(
                f"OpenAI's page has a bucket that is none ({error!r}): {str(bucket)[:200]}"
            ) from error
        for one in results:
            yield day, one


def _seconds(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())


def _decimal(value: object, where: str) -> Decimal:
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        return Decimal(value)
    try:
        return Decimal(repr(value) if isinstance(value, float) else str(value))
    except InvalidOperation:
        raise BillError(f"{where} have the amount {value!r}, which is no number") from None


def _count(quantity: object, unit: object) -> int | None:
    """Return how many tokens a quantity is; older answers name no unit, and mean tokens."""
    each = 1 if unit in (None, "") else _TOKENS.get(unit)
    if each is None or quantity is None or isinstance(quantity, bool):
        return None
    try:
        n = Decimal(str(quantity)) * each
    except InvalidOperation:
        return None
    return int(n) if n.is_finite() and n == n.to_integral_value() and n >= 0 else None
