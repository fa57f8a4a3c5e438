"""Anthropic's bill: `/v1/organizations/cost_report`, with the tokens of `.../usage_report/messages`.

Sources: https://platform.claude.com/docs/en/api/admin/cost_report and
https://platform.claude.com/docs/en/api/admin-api/usage-cost/get-messages-usage-report. Amounts are text, in
cents: `"123.45"` is $1.23. The Priority Tier is paid for elsewhere; the default workspace has the id null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from time import sleep
from typing import Any, Final

from budgetguard.billing.admin import TIMEOUT, AdminAPI, admin_key
from budgetguard.billing.bill import (
    ANTHROPIC,
    CODE,
    OTHER_TOOL,
    WEB_SEARCH,
    Bill,
    BillLine,
    bill_of,
    line_nanos,
    tool_named,
)
from budgetguard.errors import BillError

BASE_URL: Final = "https://api.anthropic.com/v1"
KEY_VARIABLE: Final = "ANTHROPIC_ADMIN_KEY"
KEY_PAGE: Final = "https://platform.claude.com/settings/admin-keys"
DEFAULT_WORKSPACE: Final = "default"
"""What `workspaces` calls the default workspace, which has no id."""

_VERSION: Final = "2023-06-01"
_DAYS: Final = 31
"""Days on a page, at most."""
UNITS: Final[Mapping[str, str]] = {
    "uncached_input_tokens": "input_tokens",
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_5m_tokens",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h_tokens",
    "output_tokens": "output_tokens",
}
_TOOLS: Final[Mapping[str, str]] = {
    "web_search": WEB_SEARCH,
    "code_execution": CODE,
    "session_usage": OTHER_TOOL,
}
_PRIORITY: Final = "priority"
PRIORITY_NOTE: Final = "Anthropic's cost report leaves the Priority Tier out, and some calls were in it"


@dataclass(slots=True)
class UsedTokens:
    """Tokens of Anthropic's usage report, which its cost report does not count.

    Attributes:
        counts: tokens by day, model, tier, context window and unit.
        priority: whether some are of the Priority Tier.
    """

    counts: dict[tuple[date, str, str | None, str | None, str], int] = field(default_factory=dict)
    priority: bool = False


def anthropic_bill(
    since: date,
    until: date,
    *,
    key: str | None = None,
    workspaces: Iterable[str] = (),
    base_url: str = BASE_URL,
    timeout: float = TIMEOUT,
    wait: Callable[[float], None] = sleep,
) -> Bill:
    """Fetch what Anthropic charged an organisation.

    Args:
        since: the first UTC day.
        until: the day after the last one.
        key: an admin key; by default that of `ANTHROPIC_ADMIN_KEY`.
        workspaces: ids (`wrkspc_...`) of the workspaces that count, `default` for the one without an id; by
            default all.
        base_url: where the API is.
        timeout: seconds for each wait for the server.
        wait: waits so many seconds before another try.

    Raises:
        ConfigurationError: no admin key, or one that is refused.
        BillError: the bill cannot be fetched or read.
    """
    key = admin_key(key, KEY_VARIABLE, KEY_PAGE, "sk-ant-admin", "Anthropic")
    api = AdminAPI(
        "Anthropic",
        base_url,
        KEY_VARIABLE,
        KEY_PAGE,
        {
            "x-api-key": key,
            "anthropic-version": _VERSION,
            "Accept": "application/json",
            "User-Agent": "budgetguard",
        },
        timeout,
        wait,
    )
    chosen = tuple(dict.fromkeys(workspaces))
    span = [
        ("starting_at", f"{since}T00:00:00Z"),
        ("ending_at", f"{until}T00:00:00Z"),
        ("bucket_width", "1d"),
        ("limit", str(min((until - since).days, _DAYS))),
    ]
    groups = [("group_by[]", one) for one in ("workspace_id", "description")]
    costs = [
        line
        for page in api.pages("/organizations/cost_report", [*span, *groups])
        for line in cost_lines(page, chosen)
    ]
    used = UsedTokens()
    groups = [("group_by[]", one) for one in ("workspace_id", "model", "service_tier", "context_window")]
    for page in api.pages("/organizations/usage_report/messages", [*span, *groups]):
        add_tokens(used, page, chosen)
    source = "Anthropic" + (f" ({', '.join(chosen)})" if chosen else "")
    notes = (PRIORITY_NOTE,) if used.priority else ()
    return bill_of(ANTHROPIC, with_tokens(costs, used), source=source, since=since, until=until, notes=notes)


@dataclass(frozen=True, slots=True)
class CostItem:
    """A line with the context window that it is of, by which tokens are found for it."""

    line: BillLine
    window: str | None = None


def cost_lines(page: Mapping[str, Any], workspaces: Sequence[str] = ()) -> Iterator[CostItem]:
    """Yield the amounts of a page of the cost report.

    Raises:
        BillError: it is none, or has an amount that is none, or another currency.
    """
    for day, result in results_of(page):
        if not _is_of(result, workspaces):
            continue
        where = f"Anthropic's costs of {day}"
        currency = str(result.get("currency") or "USD").upper()
        if currency != "USD":
            raise BillError(f"{where} are in {currency}, and what is booked is in USD: they have no rate")
        try:
            cents = Decimal(str(result["amount"]))
        except (KeyError, InvalidOperation):
            raise BillError(f"{where} have the amount {result.get('amount')!r}, which is no number") from None
        nanos = line_nanos(cents / 100, where=where)
        model, kind = _text(result.get("model")), _text(result.get("cost_type"))
        description = _text(result.get("description")) or ""
        if model is None or kind in _TOOLS:
            item = _TOOLS.get(kind or "") or tool_named(description) or description
            yield CostItem(BillLine(day, nanos, item=item))
            continue
        unit = UNITS.get(_text(result.get("token_type")) or "")
        yield CostItem(
            BillLine(day, nanos, model=model, unit=unit, tier=tier_of(result)),
            _text(result.get("context_window")),
        )


def add_tokens(used: UsedTokens, page: Mapping[str, Any], workspaces: Sequence[str] = ()) -> None:
    """Add the tokens of a page of the usage report.

    Raises:
        BillError: it is none.
    """
    for day, result in results_of(page):
        model = _text(result.get("model"))
        if model is None or not _is_of(result, workspaces):
            continue
        if result.get("service_tier") == _PRIORITY:
            used.priority = True  # paid for elsewhere, so its tokens belong to no line
            continue
        window = _text(result.get("context_window"))
        for name, unit in UNITS.items():
            n: object = result
            for part in name.split("."):
                n = n.get(part) if isinstance(n, Mapping) else None
            if isinstance(n, int) and n:
                key = (day, model, tier_of(result), window, unit)
                used.counts[key] = used.counts.get(key, 0) + n


def with_tokens(costs: Iterable[CostItem], used: UsedTokens) -> list[BillLine]:
    """Return lines with the tokens that they are for, each given to one line.

    Several lines of the same (of workspaces, regions) are added up first: the reports split them differently.
    """
    lines: list[BillLine] = []
    sums: dict[tuple[date, str, str | None, str | None, str], BillLine] = {}
    for one in costs:
        line = one.line
        if line.model is None or line.unit is None:
            lines.append(line)
            continue
        key = (line.day, line.model, line.tier, one.window, line.unit)
        have = sums.get(key)
        sums[key] = line if have is None else replace(have, amount=have.amount + line.amount)
    for key, line in sums.items():
        lines.append(replace(line, quantity=used.counts.get(key) if used.counts else None))
    return lines


def tier_of(result: Mapping[str, Any]) -> str | None:
    """Return the tier of a result; None for the standard one."""
    tier = _text(result.get("service_tier"))
    return None if tier in (None, "standard") else tier


def results_of(page: Mapping[str, Any]) -> Iterator[tuple[date, Mapping[str, Any]]]:
    """Yield the results of a page of Anthropic's with their days.

    Raises:
        BillError: the page has another shape.
    """
    for bucket in page["data"]:
        try:
            day = datetime.fromisoformat(bucket["starting_at"]).date()
            results = bucket["results"]
            if not all(isinstance(one, Mapping) for one in results):
                raise TypeError("a result is no object")
        except (TypeError, KeyError, ValueError) as error:
            raise BillError(
                f"Anthropic's page has a bucket that is none ({error!r}): {str(bucket)[:200]}"
            ) from error
        for one in results:
            yield day, one


def _is_of(result: Mapping[str, Any], workspaces: Sequence[str]) -> bool:
    return not workspaces or (_text(result.get("workspace_id")) or DEFAULT_WORKSPACE) in workspaces


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
