"""What sets Azure's addresses and clients apart from OpenAI's own."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from budgetguard.pricing.book import AZURE

# Where a name is the model's own, a map of other servers' names has no say.
NAMES_ARE_MODELS: Final = re.compile(r"https://(?:[a-z]{2}\.)?api\.openai\.com[:/]")
# Gateways put a path of their own before it.
_DEPLOYMENT: Final = re.compile(r"(?:^|/openai)/deployments/([^/]+)(?=/)")


def azure_of(client: object) -> str | None:
    """Return the provider whose prices a client's calls have if it is one of Azure's, else None."""
    # Also behind a gateway, whose address does not tell.
    is_azures = any(kind.__name__ == "BaseAzureClient" for kind in type(client).__mro__)
    return AZURE if is_azures else None


def deployment(address: str) -> str | None:
    """Return the Azure deployment that a path or an absolute URL names, or None."""
    found = _DEPLOYMENT.search("/" + urlsplit(address).path.lstrip("/"))
    return found and unquote(found[1])
