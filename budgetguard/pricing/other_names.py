"""Names of models that genai-prices lacks, or has at the price of a model that they do not mean any more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from budgetguard.pricing.extra_row import LITELLM, OCTOBER, PRICE_PAGE


@dataclass(frozen=True, slots=True)
class OtherName:
    """Names that cost what a listed model costs.

    Attributes:
        provider: genai-prices' id of the provider.
        names: a regular expression for the names, in lower case.
        model: the listed model.
        taken: the date of the page that was read, or the earliest that it can have.
        source: where it was read.
        instead_of: ids of listed models at whose price the list has the names; where it has them at that of
            another model, the list is newer, and counts.
        read_in: the table in which the page's figures were read, or None.
    """

    provider: str
    names: str
    model: str
    taken: date
    source: str
    instead_of: tuple[str, ...] = ()
    read_in: str | None = None


_OPENAI: Final = "https://developers.openai.com/api/docs/models/"
_AZURE: Final = "https://azure.microsoft.com/en-us/pricing/details/azure-openai/"
_MISTRAL: Final = "https://docs.mistral.ai/models/"
_XAI: Final = "https://docs.x.ai/developers/migration/may-15-retirement"
OTHER_NAMES: Final = (
    # Snapshots: their pages give one price for all of a model's.
    OtherName(
        "openai",
        r"gpt-4o-mini-transcribe-2025-(?:03-20|12-15)",
        "gpt-4o-mini-transcribe",
        date(2026, 9, 3),
        f"{_OPENAI}gpt-4o-mini-transcribe",
    ),
    OtherName(
        "openai",
        r"gpt-4o-mini-tts-2025-(?:03-20|12-15)",
        "gpt-4o-mini-tts",
        OCTOBER,
        f"{_OPENAI}gpt-4o-mini-tts",
    ),
    OtherName(
        "openai", "gpt-5-search-api-2025-10-14", "gpt-5-search-api", OCTOBER, f"{_OPENAI}gpt-5-search-api"
    ),
    OtherName("openai", "tts-1-1106", "tts-1", OCTOBER, f"{_OPENAI}tts-1"),
    OtherName("openai", "tts-1-hd-1106", "tts-1-hd", OCTOBER, f"{_OPENAI}tts-1-hd"),
    OtherName("openai", "gpt-5.5-cyber-preview", "gpt-5.5-cyber", OCTOBER, f"{_OPENAI}gpt-5.5-cyber"),
    OtherName(
        "openai", r"gpt-image-2\.6-flare", "gpt-image-2.5-flare", OCTOBER, f"{_OPENAI}gpt-image-2.6-flare"
    ),
    OtherName(
        "openai",
        r"gpt-image-2\.6-sunburst",
        "gpt-image-2.5-sunburst",
        OCTOBER,
        f"{_OPENAI}gpt-image-2.6-sunburst",
    ),
    OtherName(
        "openai",
        "text-embedding-ada-002-v2",
        "text-embedding-ada-002",
        OCTOBER,
        f"{_OPENAI}text-embedding-ada-002",
    ),
    OtherName("openai", "gpt-6-astra-law", "gpt-6-astra", OCTOBER, PRICE_PAGE),
    OtherName(
        "openai",
        "(?:gpt-)?daybreak-red-latest",
        "gpt-5.6-cyber",
        OCTOBER,
        f"{_OPENAI}gpt-daybreak-red-latest",
    ),
    OtherName(
        "openai",
        "(?:gpt-)?daybreak-blue-latest",
        "gpt-5.6-sol",
        OCTOBER,
        f"{_OPENAI}gpt-daybreak-blue-latest",
    ),
    # Azure's versions of models that the list has without one, at the same price.
    *(
        OtherName("azure", re.escape(f"{model}-{version}"), model, OCTOBER, _AZURE, read_in=LITELLM)
        for model, version in (
            ("gpt-5.1-codex", "2025-11-13"),
            ("gpt-5.1-codex-mini", "2025-11-13"),
            ("gpt-audio-1.5", "2026-02-23"),
            ("gpt-realtime-1.5", "2026-02-23"),
            ("gpt-realtime-2.1", "2026-07-07"),
            ("gpt-realtime-2.1-mini", "2026-07-07"),
        )
    ),
    # Aliases, as the pages of the models that they mean say.
    OtherName(
        "mistral",
        "mistral-large-(?:latest|3)",
        "mistral-large-2512",
        OCTOBER,
        f"{_MISTRAL}mistral-large-3-25-12",
        instead_of=("mistral-large",),
    ),
    OtherName(
        "mistral",
        "magistral-medium-latest",
        "mistral-medium-3-5",
        OCTOBER,
        f"{_MISTRAL}model-cards/mistral-medium-3-5-26-04",
        instead_of=("magistral-medium",),
    ),
    OtherName(
        "mistral",
        "mistral-medium",
        "mistral-medium-3-5",
        OCTOBER,
        f"{_MISTRAL}model-cards/mistral-medium-3-5-26-04",
        instead_of=("mistral-medium-3-1",),
    ),
    OtherName(
        "mistral",
        "magistral-small-latest",
        "mistral-small-2603",
        OCTOBER,
        f"{_MISTRAL}model-cards/mistral-small-4-0-26-03",
        instead_of=("magistral-small",),
    ),
    OtherName(
        "mistral",
        "codestral-latest",
        "codestral-2508",
        OCTOBER,
        f"{_MISTRAL}model-cards/codestral-25-08",
        instead_of=("codestral",),
    ),
    OtherName(
        "mistral",
        "ministral-(?:3-)?3b-(?:latest|2512)",
        "ministral-3b-2512",
        OCTOBER,
        f"{_MISTRAL}ministral-3-3b-25-12",
    ),
    OtherName(
        "mistral", "ministral-3-8b-2512", "ministral-8b-2512", OCTOBER, f"{_MISTRAL}ministral-3-8b-25-12"
    ),
    OtherName(
        "mistral",
        "ministral-(?:3-)?14b-(?:latest|2512)",
        "ministral-14b-2512",
        OCTOBER,
        f"{_MISTRAL}ministral-3-14b-25-12",
    ),
    OtherName(
        "mistral",
        "devstral-(?:medium-)?latest",
        "devstral-2512",
        OCTOBER,
        "https://mistral.ai/news/devstral-2-vibe-cli",
    ),
    # Retired models whose names are served by this one: answers name it.
    OtherName(
        "x-ai",
        r"grok-3(?:-mini)?(?:-fast)?(?:-latest|-beta)?|grok-4(?:-0709|-latest)?"
        r"|grok-4(?:-1)?-fast(?:-(?:non-)?reasoning)?(?:-latest)?|grok-code-fast(?:-1)?(?:-0825)?",
        "grok-4.3",
        date(2026, 8, 10),
        _XAI,
        instead_of=(
            "grok-3",
            "grok-3-fast",
            "grok-3-mini",
            "grok-3-mini-fast",
            "grok-4-0709",
            "grok-4-fast-reasoning",
            "grok-4-fast-non-reasoning",
            "grok-4-1-fast-reasoning",
            "grok-4-1-fast-non-reasoning",
            "grok-code-fast-1",
        ),
    ),
    OtherName(
        "x-ai",
        r"grok-4\.20(?:-beta)?(?:-0309)?(?:-(?:non-)?reasoning)?(?:-latest|-gv2)?",
        "grok-4.20",
        OCTOBER,
        "https://docs.x.ai/developers/models",
    ),
)


def other_name(provider: str, name: str) -> OtherName | None:
    """Return what else a model's name means, or None.

    Args:
        provider: genai-prices' id of the provider.
        name: in lower case.
    """
    return next(
        (row for row in OTHER_NAMES if row.provider == provider and re.fullmatch(row.names, name)), None
    )
