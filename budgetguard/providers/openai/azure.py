"""What sets Azure's addresses and clients apart from OpenAI's own."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from budgetguard.pricing.matching import AZURE

# Where a name is the model's own, a map of other servers' names has no say.
NAMES_ARE_MODELS: Final = re.compile(r"https://(?:[a-z]{2}\.)?api\.openai\.com[:/]")
# Gateways put a path of their own before it.
_DEPLOYMENT: Final = re.compile(r"(?:^|/openai)/deployments/([^/]+)(?=/)")


def azure_of(client: object) -> str | None:
    """Return the provider whose prices a client's calls have if it is one of Azure's, else None."""
    kind: Any = type(client)
    return AZURE if _is_azures(kind) else None


@lru_cache(maxsize=64)
def _is_azures(kind: Any) -> bool:
    # Also behind a gateway, whose address does not tell.
    return any(base.__name__ == "BaseAzureClient" for base in kind.__mro__)


@lru_cache(maxsize=1_024)
def deployment(address: str) -> str | None:
    """Return the Azure deployment that a path or an absolute URL names, or None."""
    found = _DEPLOYMENT.search("/" + urlsplit(address).path.lstrip("/"))
    return found and unquote(found[1])
