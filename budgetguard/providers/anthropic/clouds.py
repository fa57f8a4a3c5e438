"""The package's clients for other clouds: whose prices their models have, and which of them are known."""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from budgetguard.pricing.matching import AZURE
from budgetguard.providers.bedrock.models import listed_model, served_model
from budgetguard.providers.json import text
from budgetguard.providers.sdk import ANYWHERE, ASYNC, SYNC, Place

# https://platform.claude.com/docs/en/about-claude/pricing: the Claude Platform on AWS, and the models that
# Anthropic manages on Google Cloud, have Anthropic's own prices.
_ANTHROPICS_OWN: Final = Place("anthropic")
# The prices of Claude in Microsoft Foundry are Anthropic's, too; an agreement with Azure can be registered.
_FOUNDRY: Final = Place(AZURE)
_BEDROCK: Final = partial(Place, "aws", listed=listed_model, served=served_model)

# By the part of a client's name that its sync and its async class share.
_CLOUDS: Final = (
    "AnthropicAWS",
    "AnthropicBedrock",
    "AnthropicBedrockMantle",
    "AnthropicFoundry",
    "AnthropicGoogleCloud",
    "AnthropicVertex",
)
CLIENTS: Final = {
    "Anthropic": SYNC,
    "AsyncAnthropic": ASYNC,
    **dict.fromkeys(_CLOUDS, SYNC),
    **{f"Async{name}": ASYNC for name in _CLOUDS},
}

_MODEL: Final = re.compile(
    r"/model/(.+)/invoke(?:-with-response-stream)?$|/models/([^/:]+):(?:stream)?rawPredict$", re.IGNORECASE
)
_UNKNOWN: Final = (
    "sends to a cloud that budgetguard does not know, at prices of its own; update budgetguard, or call it "
    "in functions decorated with @budgeted, with its path among allow_endpoints"
)


def place_of(client: object) -> Place:
    """Return where a client's models run."""
    kind: Any = type(client)
    match _cloud_of(kind):
        case "AnthropicBedrock" | "AnthropicBedrockMantle":
            return _bedrock(text(getattr(client, "aws_region", None)))
        case "AnthropicVertex":
            return _vertex(text(getattr(client, "region", None)))
        case "AnthropicFoundry":
            return _FOUNDRY
        case "AnthropicAWS" | "AnthropicGoogleCloud":
            return _ANTHROPICS_OWN
    return ANYWHERE


def model_in(address: str) -> str | None:
    """Return the model that an address names, as those of Bedrock and Vertex do; else None."""
    found = _MODEL.search(urlsplit(address).path)
    return found and unquote(found[1] or found[2])


def refused(client: object) -> str | None:
    """Return why a client is refused that sends to a cloud which nobody here has heard of, else None."""
    kind: Any = type(client)
    return _UNKNOWN if _is_unknown(kind) else None


@lru_cache(maxsize=64)
def _bedrock(region: str | None) -> Place:
    return _BEDROCK(priced_at=region and f"https://bedrock-runtime.{region}.amazonaws.com")


@lru_cache(maxsize=64)
def _vertex(region: str | None) -> Place:
    host = "aiplatform" if region in (None, "global") else f"{region}-aiplatform"
    return Place("google", priced_at=f"https://{host}.googleapis.com")


@lru_cache(maxsize=64)
def _cloud_of(kind: Any) -> str | None:
    """Return the name of a client's cloud, None for Anthropic's own API."""
    names = (one.__name__.removeprefix("Async") for one in kind.__mro__ if _is_ours(one))
    return next((name for name in names if name in _CLOUDS), None)


# Both are looked up for each request.
@lru_cache(maxsize=64)
def _is_unknown(kind: Any) -> bool:
    own = [one for one in kind.__mro__ if _is_ours(one)]
    base = any(one.__module__ == "anthropic._base_client" for one in own)
    # The first is the package's client, whatever the program has derived from it.
    return base and own[0].__name__ not in CLIENTS


def _is_ours(kind: Any) -> bool:
    return bool(kind.__module__ == "anthropic" or kind.__module__.startswith("anthropic."))
