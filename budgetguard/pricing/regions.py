"""Surcharges for the region in which a model runs, by its address or by its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

# Each region of OpenAI's has its own host: eu, us, au, in, jp ...
REGIONAL_HOST: Final = re.compile(r"https://[a-z]{2}\.api\.openai\.com(?:[:/]|$)", re.IGNORECASE)
_VERTEX_HOST: Final = re.compile(
    r"https://(?:[a-z0-9-]+-aiplatform|aiplatform\.[a-z]{2}\.rep)\.googleapis\.com(?:[:/]|$)", re.IGNORECASE
)
_GOVERNMENT: Final = re.compile(r"https://bedrock[a-z-]*\.us-gov-[a-z0-9-]+\.", re.IGNORECASE)
# Of these, a region costs what all of the world does.
_CLAUDE_OF_ONE_PRICE: Final = (
    r"claude-(?:v?[123](?:[.:-].*)?|instant.*|(?:opus|sonnet)-4(?:-[01])?(?:-20\d{6})?(?:-v\d.*)?)"
)
_UPLIFT: Final = Decimal("1.1")
_NONE: Final = Decimal(1)


@dataclass(frozen=True, slots=True)
class Uplift:
    """What the tokens of models cost at the addresses of a region, as a multiple of the list.

    Attributes:
        provider: genai-prices' id of the provider.
        host: the addresses.
        factor: the multiple.
        taken: the date of the page that was read, or the earliest that it can have.
        source: where it was read.
        since: what the page says of the models that it holds for.
        excepted: their names, by the list, for which it does not hold; all others are taken to be newer.
    """

    provider: str
    host: re.Pattern[str]
    factor: Decimal
    taken: date
    source: str
    since: str = "all models"
    excepted: re.Pattern[str] | None = None


UPLIFTS: Final = (
    # "Data residency endpoints are charged a 10% uplift for models released on or after March 5, 2026"
    Uplift(
        "openai",
        REGIONAL_HOST,
        _UPLIFT,
        date(2026, 3, 5),
        "https://developers.openai.com/api/docs/guides/data-residency",
        "released since 2026-03-05 (gpt-5.4 and later)",
        re.compile(
            r"gpt-[34](?:[.o-].*)?|gpt-5(?:-.*)?|gpt-5\.[1-3](?:-.*)?|o\d(?:-.*)?|ft:gpt-[34].*|chatgpt-4o.*"
            r"|codex-mini|gpt-(?:audio|realtime)(?:-mini)?|gpt-image-1(?:[.-].*)?|gpt-oss-.*|computer-use.*"
            r"|text-.*|tts-1.*|whisper-1|moderation|ada|babbage.*|curie|davinci.*"
        ),
    ),
    Uplift(
        "x-ai",
        re.compile(r"https://us\.api\.x\.ai(?:[:/]|$)", re.IGNORECASE),
        _UPLIFT,
        date(2026, 10, 19),
        "https://docs.x.ai/developers/pricing",
    ),
    Uplift(
        "mistral",
        re.compile(r"https://api\.[a-z]{2}\.mistral\.ai(?:[:/]|$)", re.IGNORECASE),
        _UPLIFT,
        date(2026, 10, 19),
        "https://docs.mistral.ai/inference/regional-inference",
    ),
    Uplift(
        "together",
        re.compile(r"https://[a-z]{2}-api\.together\.ai(?:[:/]|$)", re.IGNORECASE),
        Decimal("1.25"),
        date(2026, 10, 19),
        "https://docs.together.ai/docs/serverless/geo-specific-inference",
    ),
    # Claude since Sonnet 4.5, by Anthropic's page on Vertex; Gemini since 3.1, by Google's price page. What
    # is older, or runs on the global endpoint alone, has no other price.
    Uplift(
        "google",
        _VERTEX_HOST,
        _UPLIFT,
        date(2026, 10, 19),
        "https://cloud.google.com/vertex-ai/generative-ai/pricing",
        "Claude since Sonnet 4.5, Gemini since 3.1",
        re.compile(
            r"claude-(?:v?[123](?:[.-].*)?|instant.*|4-(?:opus|sonnet)|(?:opus|sonnet)-4(?:-[01])?(?:[@-]20\d{6})?)"
            r"|gemini-(?:[12][.-].*|3-.*|3\.1-pro.*|pro.*|flash-1.*|embedding.*|live-2.*|robotics.*|exp.*)"
            r"|(?!claude|gemini).*"
        ),
    ),
    # In AWS GovCloud (US), Claude costs 1.2 times what it does globally. The list has the price of other
    # regions: 1.1 times that of models since Sonnet 4.5, and the same of older ones.
    Uplift(
        "aws",
        _GOVERNMENT,
        Decimal("1.2") / _UPLIFT,
        date(2026, 10, 19),
        "https://aws.amazon.com/bedrock/pricing/",
        "Claude since Sonnet 4.5 (1.2 times the global price)",
        re.compile(rf"(?!.*claude-).*|.*{_CLAUDE_OF_ONE_PRICE}"),
    ),
    Uplift(
        "aws",
        _GOVERNMENT,
        Decimal("1.2"),
        date(2026, 10, 19),
        "https://aws.amazon.com/bedrock/pricing/",
        "Claude before Sonnet 4.5",
        re.compile(r"(?!.*claude-).*"),
    ),
)

# https://platform.claude.com/docs/en/build-with-claude/data-residency: with `inference_geo: "us"`, all tokens
# of Claude Opus 4.6 and of later models cost 1.1 times; earlier ones know no region.
_CLAUDE_BEFORE: Final = re.compile(r"claude-(?:[123v].*|instant.*|\w+-4(?:-[0-5](?:-.*)?|-20\d{6})?)")


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


def regional_uplift(provider: str, base_url: str | None, model: str) -> Uplift | None:
    """Return the surcharge for the region of an address, or None.

    Azure's regional and Data Zone deployments cost more too, but their addresses do not show it.

    Args:
        provider: genai-prices' provider id.
        base_url: the API's address.
        model: the name under which the model is listed.
    """
    if base_url is None:
        return None
    for row in UPLIFTS:
        if row.provider != provider or row.host.match(str(base_url)) is None:
            continue
        if row.excepted is None or row.excepted.fullmatch(model) is None:
            return row
    return None


def regional_factor(provider: str, base_url: str | None, model: str) -> Decimal:
    """Return the factor on the listed price of tokens for the region of an address; 1 if it has none."""
    found = regional_uplift(provider, base_url, model)
    return _NONE if found is None else found.factor
