"""Surcharges for the region in which a model runs, by its address or by its answer."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

# https://developers.openai.com/api/docs/guides/data-residency: "Data residency endpoints are charged a 10%
# uplift for models released on or after March 5, 2026". Each region has its own host: eu, us, au, in, jp ...
REGIONAL_HOST: Final = re.compile(r"https://[a-z]{2}\.api\.openai\.com(?:[:/]|$)", re.IGNORECASE)
_UPLIFT: Final = Decimal("1.1")
_NONE: Final = Decimal(1)
# Models released before that day, by genai-prices' names. All others are taken to be newer.
_RELEASED_BEFORE: Final = re.compile(
    r"gpt-[34](?:[.o-].*)?|gpt-5(?:-.*)?|gpt-5\.[1-3](?:-.*)?|o\d(?:-.*)?|ft:gpt-[34].*|chatgpt-4o.*|codex-mini"
    r"|gpt-(?:audio|realtime)(?:-mini)?|gpt-image-1(?:[.-].*)?|gpt-oss-.*|computer-use.*|text-.*|tts-1.*"
    r"|whisper-1|moderation|ada|babbage.*|curie|davinci.*"
)


# https://platform.claude.com/docs/en/build-with-claude/data-residency: with `inference_geo: "us"`, all tokens
# of Claude Opus 4.6 and of later models cost 1.1 times; earlier ones know no region.
_CLAUDE_BEFORE: Final = re.compile(r"claude-(?:[123v].*|instant.*|\w+-4(?:-[0-5](?:-.*)?|-20\d{6})?)")


# https://platform.claude.com/docs/en/about-claude/pricing, third-party platforms: regional and multi-region
# endpoints cost 10 % more than the global one, for Claude Sonnet 4.5, Haiku 4.5, Opus 4.5 and later models.
# genai-prices lists both prices of Bedrock's, and of Google's the global price alone.
_CLAUDE_REGIONAL_FROM: Final = re.compile(
    r".*claude-(?!(?:[123v](?!\d).*|instant.*|4-\w+|\w+-4(?:-[0-4](?:-.*)?|-20\d{6}.*)?)$).+"
)
_GLOBAL_AT_GOOGLE: Final = re.compile(
    r"https://(?:global-)?aiplatform\.googleapis\.com(?:[:/]|$)", re.IGNORECASE
)
_AT_GOOGLE: Final = re.compile(r"https://[a-z0-9-]*-?aiplatform[a-z.-]*\.googleapis\.com", re.IGNORECASE)
# https://aws.amazon.com/bedrock/pricing/, as LiteLLM's table has it (November 2026): in AWS GovCloud (US),
# Claude costs 1.2 times the global price, where other regions cost 1.1 times or, of older models, the same.
_GOVERNMENT: Final = re.compile(r"https://bedrock[a-z-]*\.us-gov-[a-z0-9-]+\.", re.IGNORECASE)
_GOVERNMENT_UPLIFT: Final = Decimal("1.2")


_ANYWHERE: Final = frozenset({None, "global", "not_available"})


def answered_factor(provider: str, region: str | None, model: str) -> Decimal:
    """Return the factor on the listed price of tokens for the region that an answer names.

    Args:
        provider: genai-prices' provider id.
        region: the answer's name for it, or None.
        model: the model's name.
    """
    if provider not in ("anthropic", "azure") or region in _ANYWHERE:
        return _NONE
    return _NONE if _CLAUDE_BEFORE.fullmatch(model.lower().rpartition("/")[2]) else _UPLIFT


def regional_factor(provider: str, base_url: str | None, model: str) -> Decimal:
    """Return the factor on the listed price of tokens for the region of an address; 1 if it has none.

    Azure's regional and Data Zone deployments cost more too, but their addresses do not show it.

    Args:
        provider: genai-prices' provider id.
        base_url: the API's address.
        model: the name under which the model is listed.
    """
    if base_url is None:
        return _NONE
    if provider == "google":
        return _at_google(base_url, model)
    if provider == "aws":
        return _at_aws(base_url, model)
    if provider != "openai" or REGIONAL_HOST.match(base_url) is None:
        return _NONE
    return _NONE if _RELEASED_BEFORE.fullmatch(model) else _UPLIFT


def _at_google(base_url: str, model: str) -> Decimal:
    regional = _AT_GOOGLE.match(base_url) is not None and _GLOBAL_AT_GOOGLE.match(base_url) is None
    return _UPLIFT if regional and _CLAUDE_REGIONAL_FROM.fullmatch(model) is not None else _NONE


def _at_aws(base_url: str, model: str) -> Decimal:
    if "claude-" not in model or _GOVERNMENT.match(base_url) is None:
        return _NONE
    listed_regionally = _CLAUDE_REGIONAL_FROM.fullmatch(model) is not None and not model.startswith("global.")
    return _GOVERNMENT_UPLIFT / _UPLIFT if listed_regionally else _GOVERNMENT_UPLIFT
