"""LiteLLM's own table of prices, for models that have none here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from budgetguard.pricing.rates import Rates
from budgetguard.pricing.sources import Source
from budgetguard.pricing.tables import PriceTable
from budgetguard.providers.json import text
from budgetguard.providers.litellm.target import LiteLLMTarget, package

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

# LiteLLM's name of a price -> the price key here, and what it is to be multiplied with.
_MTOK: Final = 1_000_000
_KEYS: Final[Mapping[str, tuple[str, int]]] = {
    "input_cost_per_token": ("input_mtok", _MTOK),
    "output_cost_per_token": ("output_mtok", _MTOK),
    "cache_read_input_token_cost": ("cache_read_mtok", _MTOK),
    "cache_creation_input_token_cost": ("cache_write_mtok", _MTOK),
    "cache_creation_input_token_cost_above_1hr": ("cache_write_1h_mtok", _MTOK),
    "input_cost_per_audio_token": ("input_audio_mtok", _MTOK),
    "output_cost_per_audio_token": ("output_audio_mtok", _MTOK),
    "input_cost_per_image_token": ("input_image_mtok", _MTOK),
    "output_cost_per_image_token": ("output_image_mtok", _MTOK),
    "output_cost_per_reasoning_token": ("output_reasoning_mtok", _MTOK),
    "input_cost_per_second": ("input_audio_hours", 3_600),
    "output_cost_per_video_per_second": ("video_seconds", 1),
    "output_cost_per_image": ("images", 1),
    "input_cost_per_query": ("rerank_searches_kcount", 1_000),
    "ocr_cost_per_page": ("input_document_kpages", 1_000),
    "annotation_cost_per_page": ("input_annotated_document_kpages", 1_000),
}
# LiteLLM's names of what people run on machines of their own.
_OWN_SERVERS: Final = frozenset(
    {"hosted_vllm", "llamafile", "lm_studio", "ollama", "ollama_chat", "vllm", "xinference"}
)
# Of whose models LiteLLM asks their server.
_ASKS_THE_SERVER: Final = frozenset({"ollama", "ollama_chat"})
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
_CHARACTERS: Final = "input_cost_per_character"
# Of a search, the dearest size of its context.
_SEARCH: Final = "search_context_cost_per_query"
_ABOVE: Final = re.compile(r"(?P<name>.+)_above_(?P<thousands>\d+)k_tokens")
_TIERS: Final = ("batches", "flex", "priority")
_NAMES_OF_TIERS: Final[Mapping[str, str]] = {"batches": "batch"}


class TableSource(Source):
    """The prices of a model in LiteLLM's table, by tier.

    Args:
        prices: tier, None for the standard one -> price key -> USD.
    """

    def __init__(self, prices: Mapping[str | None, Mapping[str, Any]]) -> None:
        standard = prices[None]
        self.free = not any(_most(price) for price in standard.values())
        self._tables = {tier: (PriceTable.compile({**standard, **found}),) for tier, found in prices.items()}

    def tables(self, tier: str | None) -> tuple[PriceTable, ...]:
        if tier in self._tables:
            return self._tables[tier]
        return tuple(table for tables in self._tables.values() for table in tables)


def listed_rates(target: LiteLLMTarget) -> Rates | None:
    """Return what LiteLLM's own table says that a model costs, None if it says nothing."""
    litellm = package()
    if target.provider in _ASKS_THE_SERVER:
        return Rates.free(target.model, target.provider) if _is_here(target.address) else None
    try:
        found = litellm.get_model_info(model=target.model, custom_llm_provider=target.provider or None)
    except Exception:  # noqa: BLE001 - it raises for a model that it does not know
        return None
    key = text(found.get("key")) or target.model
    return rates_of(target, litellm.model_cost.get(key) or found)


def _is_here(address: str) -> bool:
    return urlsplit(address).hostname in _HERE


def rates_of(target: LiteLLMTarget, listed: Mapping[str, Any]) -> Rates | None:
    """Return the rates that a row of such a table stands for, None if it has no price."""
    prices: dict[str | None, dict[str, Any]] = {None: _prices(listed, "")}
    if not prices[None]:
        return None
    for tier in _TIERS:
        if found := _prices(listed, f"_{tier}"):
            prices[_NAMES_OF_TIERS.get(tier, tier)] = found
    source = TableSource(prices)
    if source.free and target.provider not in _OWN_SERVERS and not target.model.endswith(":free"):
        return None  # it lists 0 for what it does not know, too
    return Rates(target.model, target.provider, None, source.tables(None), source)


def _prices(listed: Mapping[str, Any], suffix: str) -> dict[str, Any]:
    """Return the prices of one tier, by price key."""
    base: dict[str, Decimal] = {}
    above: dict[str, dict[int, Decimal]] = {}
    for name, value in listed.items():
        if not name.endswith(suffix) or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        bare = name.removesuffix(suffix) if suffix else name
        start = 0
        if (found := _ABOVE.fullmatch(bare)) is not None:
            bare, start = found["name"], int(found["thousands"]) * 1_000
        key, times = _KEYS.get(bare, ("", 0))
        if bare == _CHARACTERS:
            key, times = _characters_key()
        if not key:
            continue
        price = Decimal(repr(value)) * times
        if start:
            above.setdefault(key, {})[start] = price
        else:
            base[key] = price
    searches = listed.get(_SEARCH) if not suffix else None
    if isinstance(searches, Mapping):
        costs = [one for one in searches.values() if isinstance(one, int | float)]
        base["web_searches_kcount"] = Decimal(repr(max(costs, default=0))) * 1_000
    return {key: _tiered(price, above.get(key, {})) for key, price in base.items()}


def _characters_key() -> tuple[str, int]:
    from budgetguard.pricing.units import units_by_name

    unit = units_by_name()["input_characters"]
    return unit.price_key, unit.per


def _tiered(price: Decimal, above: Mapping[int, Decimal]) -> Decimal | TieredPrices:
    if not above:
        return price
    from genai_prices.types import Tier, TieredPrices

    return TieredPrices(base=price, tiers=[Tier(start=start, price=above[start]) for start in sorted(above)])


def _most(price: Decimal | TieredPrices) -> Decimal:
    if isinstance(price, Decimal):
        return price
    tiers: Iterable[Decimal] = (tier.price for tier in price.tiers)
    return max(price.base, *tiers)
