"""What sets Azure's addresses and clients apart from OpenAI's own."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from budgetguard.pricing.matching import AZURE
from budgetguard.providers.sdk import ANYWHERE, Place

# Where a name is the model's own, a map of other servers' names has no say.
NAMES_ARE_MODELS: Final = re.compile(r"https://(?:[a-z]{2}\.)?api\.openai\.com[:/]")
# Gateways put a path of their own before it.
_DEPLOYMENT: Final = re.compile(r"(?:^|/openai)/deployments/([^/]+)(?=/)")


_AT_AZURE: Final = Place(AZURE)


def place_of(client: object) -> Place:
    """Return where a client's models run: at Azure, or where its address tells."""
    kind: Any = type(client)
    return _AT_AZURE if _is_azures(kind) else ANYWHERE


@lru_cache(maxsize=64)
def _is_azures(kind: Any) -> bool:
    # Also behind a gateway, whose address does not tell.
    return any(base.__name__ == "BaseAzureClient" for base in kind.__mro__)


@lru_cache(maxsize=1_024)
def deployment(address: str) -> str | None:
    """Return the Azure deployment that a path or an absolute URL names, or None."""
    found = _DEPLOYMENT.search("/" + urlsplit(address).path.lstrip("/"))
    return found and unquote(found[1])
