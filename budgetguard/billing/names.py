"""Model names: whose model a call or a bill means, and one name for both.

Calls say `gpt-4o`, `openai/gpt-4o` or `gpt-4o-2024-08-06`, bills `gpt-4o-2024-08-06` or `Claude Haiku 4.5`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from budgetguard.billing.bill import ANTHROPIC
from budgetguard.pricing.matching import DEFAULT_PROVIDER, listed_model, meant, only_provider

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

ALL_MODELS: Final = "(all models)"
OTHER: Final = "other"
"""Who provides a model of which nothing is known."""

# What stands after a model's name: a date, `latest`.
_VERSION: Final = re.compile(r"(?:[-@](?:20\d{2}-?\d{2}-?\d{2}|\d{4}|latest))+$")
_CLAUDE: Final = re.compile(r"claude[ _-]+(.+)")
_ASIDE: Final = re.compile(r"[\[(].*?[\])]")
# Bedrock's names of Claude have the maker before them, Vertex' ones the date after an `@`.
_ON_BEDROCK: Final = re.compile(r"(?:[a-z-]+\.)?anthropic\.claude")
_ON_VERTEX: Final = re.compile(r"claude[^@]*@")


class ModelNames:
    """The names of models, by a price list. Each name is looked up once.

    Args:
        snapshot: genai-prices' list.
        stands_for: which model a name of the program's own stands for.
    """

    def __init__(self, snapshot: DataSnapshot, stands_for: Callable[[str], str] = lambda name: name) -> None:
        self._snapshot = snapshot
        self._stands_for = stands_for
        self._called: dict[str, tuple[str, str]] = {}
        self._billed: dict[tuple[str, str], str] = {}
        # Who bills a model of which nothing is known but that.
        self._billing: dict[str, set[str]] = {}

    def called(self, name: str) -> tuple[str, str]:
        """Return whose model a call means, and the model's one name.

        What no list has is the model of the one who bills it, by the bills that were looked at before.
        """
        if name not in self._called:
            self._called[name] = self._find(self._stands_for(name).strip().lower())
        provider, one = self._called[name]
        if provider == OTHER and len(billing := self._billing.get(one, set())) == 1:
            (provider,) = billing
        return provider, one

    def billed(self, provider: str, name: str) -> str:
        """Return the one name of a model that a provider's bill names."""
        key = (provider, name)
        if key not in self._billed:
            one = self._billed[key] = self._one_name(provider, (name.strip().lower(),))
            self._billing.setdefault(one, set()).add(provider)
        return self._billed[key]

    def _find(self, name: str) -> tuple[str, str]:
        if not name:
            return OTHER, name
        if _ON_BEDROCK.match(name):
            return "aws", name
        if _ON_VERTEX.match(name):
            return "google", name
        provider, names = meant(self._snapshot, name, None, None)
        named = "/" in name and names != (name,)
        if not named:
            known = listed_model(self._snapshot, provider, name) is not None
            if not known:
                provider = only_provider(self._snapshot, name) or _by_family(name)
        return provider, self._one_name(provider, names)

    def _one_name(self, provider: str, names: tuple[str, ...]) -> str:
        for name in names:
            if provider == ANTHROPIC and (found := _CLAUDE.match(name)) is not None:
                return _claude(found[1])
            model = listed_model(self._snapshot, provider, name)
            if model is not None:
                # A moderation model is listed as `moderation`, which is nobody's name for it.
                return model.id if name.startswith(model.id) else _undated(name)
        return _undated(names[0])


def _by_family(name: str) -> str:
    """Return whose a model is that no list has, by how its maker names models."""
    if name.startswith("claude"):
        return ANTHROPIC
    return DEFAULT_PROVIDER if re.match(r"(?:ft:)?(?:gpt-|o\d|chatgpt-|text-embedding-)", name) else OTHER


def _undated(name: str) -> str:
    if name.startswith("ft:"):
        # Fine-tunes are billed by the model that they were made from.
        return "ft:" + _undated(name.removeprefix("ft:").partition(":")[0])
    return _VERSION.sub("", name) or name


def _claude(rest: str) -> str:
    """Return the one name of a Claude: `3-5-haiku-20241022` and `Haiku 3.5` are `claude-haiku-3-5`."""
    plain = _VERSION.sub("", _ASIDE.sub("", rest).strip())
    words = [word for word in re.split(r"[ ._-]+", plain) if word]
    family = [word for word in words if not word.isdecimal()]
    version = [word for word in words if word.isdecimal()]
    while len(version) > 1 and version[-1] == "0":
        version.pop()  # `claude-opus-4-0` is `claude-opus-4`
    return "-".join(("claude", *family, *version))
