"""Where a model's tokens are processed, as its address tells, and what that adds to the list's price."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

# https://developers.openai.com/api/docs/guides/data-residency: "Data residency endpoints are charged a 10%
# uplift for models released on or after March 5, 2026". Each region has its own host: eu, us, au, in, jp ...
REGIONAL_HOST: Final = re.compile(r"https://[a-z]{2}\.api\.openai\.com(?:[:/]|$)", re.IGNORECASE)
_UPLIFT: Final = Decimal("1.1")
_NONE: Final = Decimal(1)
# Names of models, as genai-prices lists them, that were released before that day (gpt-5.4's). One that is
# not here is newer, or taken for it.
_RELEASED_BEFORE: Final = re.compile(
    r"gpt-[34](?:[.o-].*)?|gpt-5(?:-.*)?|gpt-5\.[1-3](?:-.*)?|o\d(?:-.*)?|ft:gpt-[34].*|chatgpt-4o.*|codex-mini"
    r"|gpt-(?:audio|realtime)(?:-mini)?|gpt-image-1(?:[.-].*)?|gpt-oss-.*|computer-use.*|text-.*|tts-1.*"
    r"|whisper-1|moderation|ada|babbage.*|curie|davinci.*"
)


# https://platform.claude.com/docs/en/build-with-claude/data-residency: with `inference_geo: "us"`, all tokens
# of Claude Opus 4.6 and of later models cost 1.1 times; earlier ones know no region.
_CLAUDE_BEFORE: Final = re.compile(r"claude-(?:[123v].*|instant.*|\w+-4(?:-[0-5](?:-.*)?|-20\d{6})?)")


def answered_factor(provider: str, region: str | None, model: str) -> Decimal:
    """Return what tokens cost where an answer says that its model ran, as a multiple of the list's price.

    Args:
        provider: genai-prices' provider id.
        region: as the answer names it, or None.
        model: the model's name.
    """
    if provider != "anthropic" or region != "us":
        return _NONE
    return _NONE if _CLAUDE_BEFORE.fullmatch(model.lower().rpartition("/")[2]) else _UPLIFT


def regional_factor(provider: str, base_url: str | None, model: str) -> Decimal:
    """Return what tokens cost at an address, as a multiple of the list's price: 1 if it tells of no region.

    Azure's regional and Data Zone deployments cost more too, but no address tells that a deployment is one.

    Args:
        provider: genai-prices' provider id.
        base_url: the API's address.
        model: the name under which the model is listed.
    """
    if provider != "openai" or base_url is None or REGIONAL_HOST.match(base_url) is None:
        return _NONE
    return _NONE if _RELEASED_BEFORE.fullmatch(model) else _UPLIFT
