"""Which provider and which listed model a call means by a name and an address."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from budgetguard.pricing.addresses import Address
from budgetguard.pricing.rates import at_or_now

if TYPE_CHECKING:
    from datetime import datetime

    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import MatchLogic, ModelInfo, Provider

DEFAULT_PROVIDER = "openai"
AZURE = "azure"
GITHUB = "github"
OPENROUTER = "openrouter"
# Who passes calls on to others' models, at about their prices, and names them `maker/model`.
ROUTERS = frozenset({OPENROUTER, GITHUB})
_ADDRESSES_REMEMBERED = 64

# LiteLLM's prefixes where they differ from genai-prices' provider ids.
_PROVIDER_ALIASES = {
    "azure_ai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "codestral": "mistral",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "text-completion-codestral": "mistral",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
    "xai": "x-ai",
}

# Providers' addresses that genai-prices lacks.
_MORE_ADDRESSES = (
    (OPENROUTER, r"https://[a-z]{2}\.openrouter\.ai"),
    ("together", r"https://api\.together\.ai"),
    (AZURE, r"https://[^./]+\.openai\.azure\.us"),
    ("aws", r"https://bedrock-mantle\.[a-z0-9-]+\.api\.aws"),
    ("mistral", r"https://api\.[a-z]{2}\.mistral\.ai"),
    ("together", r"https://[a-z]{2}-api\.together\.ai"),
    ("x-ai", r"https://[a-z0-9-]+\.api\.x\.ai"),
    (GITHUB, r"https://models\.(?:github\.ai|inference\.ai\.azure\.com)"),
)

# Address -> the list that was searched, and the provider found in it.
_providers_at: dict[str, tuple[DataSnapshot, str | None]] = {}

# What may follow a model's name and still mean the same model: a date, a version, `latest`.
_SAME_MODEL = re.compile(
    r"(?:[-@:.](?:\d{4}-?\d{2}-?\d{2}|\d{2}-\d{2}|\d{4}|\d{6}|00\d|latest|preview|default|v\d+(?::\d+)?|\d+k)"
    r"|:\d{1,2})*"
)
# A clause that ends in the middle of a version such as `-001`.
_BEGUN = re.compile(r"-00?$")
# Vertex' names of a stable version.
_STABLE = re.compile(r"(?<=gemini-\d\.\d)(-[a-z-]+)?-00\d$")
_DATE_REST = re.compile(r"\d{0,4}-?\d{2}-?\d{2}")
_VENDOR_PREFIX = re.compile(r"(?:[a-z0-9-]+[./])*")
# Inference profiles in one part of the world, and models in one region, unlike the global profiles.
_BEDROCK_REGION = re.compile(r"(?:(?!global\.)[a-z]+(?:-[a-z]+)?\.)?(anthropic\..+)")
_MODERATION = re.compile(r"(?:omni|text)-moderation(?:-[a-z0-9-]+)?")


def provider_named(provider: str) -> str:
    name = provider.strip().lower()
    return _PROVIDER_ALIASES.get(name, name)


def providers_known() -> frozenset[str]:
    """Return the ids of genai-prices' providers."""
    from genai_prices.data_snapshot import get_snapshot

    return frozenset(one.id for one in get_snapshot().providers)


def meant(
    snapshot: DataSnapshot, name: str, provider: str | None, base_url: str | None
) -> tuple[str, tuple[str, ...]]:
    """Return the id of the provider, and the model's possible names in the order in which to try them."""
    known = {listed.id for listed in snapshot.providers}
    prefix, slash, rest = name.partition("/")
    named = provider_named(prefix) if slash and provider_named(prefix) in known else None
    chosen = provider_named(provider) if provider else provider_by_address(snapshot, base_url)
    if OPENROUTER in (chosen, named):
        # The same model at the same price, with a search.
        name, rest = name.removesuffix(":online"), rest.removesuffix(":online")
    if chosen is not None:
        # Names of routers contain slashes, so the whole name comes first.
        return chosen, _with_region(chosen, (name, rest) if named == chosen else (name,))
    if named is not None:
        return named, _with_region(named, (rest, name))
    return DEFAULT_PROVIDER, (name,)


def _with_region(provider: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a model's names, on Bedrock also as it is listed for other regions, which cost the same."""
    if provider != "aws":
        return names
    found = (_BEDROCK_REGION.fullmatch(name) for name in names)
    return (*names, *(f"us.{one[1]}" for one in found if one is not None))


def only_provider(snapshot: DataSnapshot, name: str) -> str | None:
    """Return the only provider that has such a model: by its family, else by its list; None if several do."""
    listing = [one for one in snapshot.providers if listed_model(snapshot, one.id, name) is not None]
    family = [one for one in listing if one.model_match is not None and one.model_match.is_match(name)]
    found = family or listing
    return found[0].id if len(found) == 1 else None


def provider_by_address(snapshot: DataSnapshot, base_url: str | None) -> str | None:
    """Return genai-prices' id of the provider at an address, or None."""
    if not base_url:
        return None
    address = str(base_url)
    known = _providers_at.get(address)
    if known is not None and known[0] is snapshot:
        return known[1]
    patterns = ((one.id, one.api_pattern) for one in snapshot.providers)
    found = next((name for name, at in (*patterns, *_MORE_ADDRESSES) if _is_at(at, address)), None)
    if len(_providers_at) >= _ADDRESSES_REMEMBERED:
        _providers_at.clear()
    _providers_at[address] = snapshot, found
    return found


def _is_at(pattern: str, base_url: str) -> bool:
    """Whether an address begins like a provider's, and its host ends there."""
    found = re.match(pattern, base_url, re.IGNORECASE)
    if found is None:
        return False
    rest = base_url[found.end() :]
    # Patterns that end in a dot allow any top-level domain after it.
    return found[0].endswith(("/", ".")) or not rest or rest[0] in ":/?#"


def remedy(snapshot: DataSnapshot, provider_id: str, model: str, base_url: str | None) -> str:
    """Return a hint for a name without a price: it may be a deployment, or a model of a free server."""
    if provider_id == AZURE:
        return (
            f" If it is a deployment, say which model it serves: configure(model_map={{{model!r}: "
            "'gpt-4o-mini'})."
        )
    address = Address.of(base_url) if base_url else None
    if address is None or provider_by_address(snapshot, base_url) is not None:
        return ""
    where = urlsplit(str(base_url))
    return (
        " If the server costs nothing, say so: "
        f"configure(free_base_urls=['{where.scheme}://{where.netloc}{where.path.rstrip('/')}'])."
    )


def listed_model(snapshot: DataSnapshot, provider_id: str, name: str) -> ModelInfo | None:
    provider = next((listed for listed in snapshot.providers if listed.id == provider_id), None)
    if provider is None:
        return None
    model = provider.find_model(name, all_providers=snapshot.providers)
    if model is None or not _is_certain(provider, snapshot, model, name):
        plain = _STABLE.sub(r"\1", name)
        return None if plain == name else listed_model(snapshot, provider_id, plain)
    return model


def _is_certain(provider: Provider, snapshot: DataSnapshot, model: ModelInfo, name: str) -> bool:
    """Whether the list means exactly this model, and not another whose name begins the same."""
    if name.startswith("ft:"):
        base = name.removeprefix("ft:").partition(":")[0]
        return listed_model(snapshot, provider.id, base) is not None
    if not has_prices(model, None):
        # A model that is listed without any price is free only if its provider says so.
        return name.endswith(":free") or _MODERATION.fullmatch(name) is not None
    return _names(model.match, name) or _names(model.match, _dashed_date(name))


def _dashed_date(name: str) -> str:
    return re.sub(r"-(20\d{2})(\d{2})(\d{2})(?=[-:]|$)", r"-\1-\2-\3", name)


def _names(clause: MatchLogic, name: str) -> bool:
    from genai_prices import types

    match clause:
        case types.ClauseEquals(equals=text):
            return name == text.lower()
        case types.ClauseOr(or_=clauses):
            return any(_names(one, name) for one in clauses)
        case types.ClauseAnd(and_=clauses):
            return all(one.is_match(name) for one in clauses) and any(_names(one, name) for one in clauses)
        case types.ClauseRegex(regex=pattern):
            return pattern.startswith("^") and pattern.endswith("$") and re.search(pattern, name) is not None
        case types.ClauseStartsWith(starts_with=text) | types.ClauseContains(contains=text):
            before, found, after = name.partition(text.lower())
            return bool(found) and _VENDOR_PREFIX.fullmatch(before) is not None and _is_version(text, after)
        case types.ClauseEndsWith(ends_with=text):
            return name.endswith(text.lower()) and _VENDOR_PREFIX.fullmatch(name[: -len(text)]) is not None
    return False


def _is_version(text: str, after: str) -> bool:
    if text.endswith(("-", "@", ":")):
        # The clause ends in the middle of a version: `gpt-5-nano-`, `ft:gpt-4o-2024-`.
        return _SAME_MODEL.fullmatch("-" + after) is not None or _DATE_REST.fullmatch(after) is not None
    begun = _BEGUN.search(text)
    if begun is not None and _SAME_MODEL.fullmatch(begun[0] + after) is not None:
        return True
    return _SAME_MODEL.fullmatch(after) is not None


def has_prices(model: ModelInfo, at: datetime | None) -> bool:
    return any(value is not None for value in vars(model.get_prices(at_or_now(at))).values())


def suggestion(snapshot: DataSnapshot, provider_id: str, name: str) -> str:
    ids = [model.id for listed in snapshot.providers if listed.id == provider_id for model in listed.models]
    near = difflib.get_close_matches(name, ids, n=1, cutoff=0.75)
    if near:
        return f" The nearest known name is {near[0]!r}."
    for listed in snapshot.providers:
        if listed.model_match is not None and listed.model_match.is_match(name) and listed.id != provider_id:
            return f" If {listed.name} serves it, name the provider: '{listed.id}/{name}'."
    return ""
