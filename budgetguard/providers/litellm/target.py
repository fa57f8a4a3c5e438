"""Whom a call of LiteLLM's asks: the model, the provider and the address, by LiteLLM's own rules."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.providers.json import field, text

# Where OpenAI's API may be anybody's: the address decides whose prices count.
_ANYBODYS: Final = frozenset({"openai", "custom_openai", "text-completion-openai"})
# Where LiteLLM sends what names no address, of servers that people run themselves.
_OWN_SERVERS: Final[Mapping[str, str]] = {
    "ollama": "http://localhost:11434",
    "ollama_chat": "http://localhost:11434",
}


@dataclass(frozen=True, slots=True)
class LiteLLMTarget:
    """Whom a call asks.

    Attributes:
        written: the model as the call names it.
        model: as the provider names it, or as the deployment's `base_model` does.
        provider: LiteLLM's name of the provider, "" if it knows none.
        address: the API's, "" for the provider's own.
        at: the provider whose prices count whatever the address is; None where the address decides.
    """

    written: str
    model: str
    provider: str
    address: str
    at: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which the model may have a price, in the order in which to try them."""
        prefixed = f"{self.provider}/{self.model}" if self.provider else self.model
        return tuple(dict.fromkeys((self.model, prefixed, self.written)))


def package() -> Any:
    """Return LiteLLM, which is there: its functions are being called."""
    return sys.modules["litellm"]


def target_of(said: Mapping[str, Any]) -> LiteLLMTarget:
    """Return whom a call asks.

    Args:
        said: the call's arguments.
    """
    litellm = package()
    written = str(said.get("model") or "")
    model: str = (getattr(litellm, "model_alias_map", None) or {}).get(written, written)
    provider = text(said.get("custom_llm_provider"))
    if said.get("deployment_id") is not None:
        model, provider = str(said["deployment_id"]), "azure"
    address = (
        text(said.get("api_base")) or text(said.get("base_url")) or text(getattr(litellm, "api_base", None))
    )
    try:
        model, provider, _, found = litellm.get_llm_provider(
            model=model, custom_llm_provider=provider, api_base=address
        )
    except Exception:  # noqa: BLE001 - what it says of the model, the call will say
        found = None
    provider = provider or ""
    address = text(found) or address or _OWN_SERVERS.get(provider, "")
    model = model.removeprefix("responses/")
    base = said.get("base_model") or field(said.get("model_info"), "base_model")
    if isinstance(base, str) and base:
        model = base.removeprefix(f"{provider}/")
    return LiteLLMTarget(written, model, provider, address, None if provider in _ANYBODYS else provider)


def is_programs_own(provider: str) -> bool:
    """Whether a provider is one that the program has given LiteLLM a handler for."""
    given = getattr(package(), "custom_provider_map", None) or ()
    return any(field(one, "provider") == provider for one in given)
