"""Families of models that are not OpenAI's: how many tokens they make of a text, as multiples of o200k_base.

Their tokenizers are not on this machine (Claude's, Gemini's, Nova's and Grok's are not public). But how many
tokens they make of a text is nearly a constant multiple of o200k_base's count, for each kind of text apart. A
family's name is an encoding's name for `tokens.text.count_text`, and `encoding_for` finds it by the model's
name: an endpoint that counts with `count_text(text, encoding_for(model))` counts right for every family here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Family:
    """Models that turn text into tokens alike: multiples of o200k_base's count, by kind of text.

    Attributes:
        name: the family's, and of its encoding.
        short: English of a few words, which all tokenizers know.
        prose: English of 200 tokens and more.
        code: code and JSON, and whatever else is dense in signs and digits.
        european: other languages in Latin letters, which are known by their accents.
        cyrillic: Cyrillic.
        chinese: Chinese characters and kana.
        korean: Hangul.
        arabic: Arabic, Hebrew and Greek.
        other: every other script.
        symbols: emoji, arrows, box drawings.
        capitals: how much more a text of capitals alone has.
        splits_digits: each digit is a token; o200k_base has up to three in one.
        version: what the package `ctok` calls its tokenizer, if it knows it.
    """

    name: str
    short: float
    prose: float
    code: float
    european: float
    cyrillic: float
    chinese: float
    korean: float
    arabic: float
    other: float
    symbols: float
    capitals: float = 0.0
    splits_digits: bool = False
    version: str | None = None


_OLDER_CLAUDE: Final = (
    r"claude-(?:[123v]|instant|(?:opus|sonnet|haiku)-4(?:[-.][0-6])?(?:$|[@:]|-(?:\d{8}|latest|v\d)))"
)
# Measured on about 700 short English and technical texts, and on the translations of Django in 85 languages
# (2026-11): Claude with `ctok` 1.3, Gemini with Gemma 3's tokenizer, which is its own, Mistral with tekken,
# Llama with 3.1's, DeepSeek with V4's, Qwen with 3's. Where texts differ, a multiple that four in five stay
# below. Nova, Grok and Command are not public; they were billed about these.
_FAMILIES: Final = tuple(
    (re.compile(rf"(?:.*[./-])?(?:{pattern})"), family)
    for pattern, family in (
        # name, short, prose, code, european, cyrillic, chinese, korean, arabic, other, symbols
        (
            _OLDER_CLAUDE,
            Family("claude-3", 1.04, 1.13, 1.19, 1.38, 1.5, 1.5, 1.83, 2.1, 2.4, 2.1, 0.3, version="3.0"),
        ),
        (
            r"claude",
            Family(
                "claude-4.7", 1.45, 1.68, 1.72, 1.8, 1.65, 1.62, 1.93, 2.2, 2.45, 2.15, 0.9, version="4.8"
            ),
        ),
        (
            r"gemini|gemma",
            Family("gemini", 1.02, 1.05, 1.1, 1.08, 1.1, 1.0, 1.1, 1.17, 1.2, 1.0, splits_digits=True),
        ),
        (
            r"(?:open-)?(?:mi[sx]tral|ministral|codestral|devstral|magistral|pixtral|voxtral)",
            Family(
                "mistral", 1.0, 1.05, 1.08, 1.08, 1.12, 1.22, 1.05, 1.1, 1.35, 1.6, 0.3, splits_digits=True
            ),
        ),
        (r"deepseek", Family("deepseek", 1.0, 1.02, 1.08, 1.2, 1.25, 1.0, 1.2, 1.3, 2.0, 1.15)),
        (
            r"qwen|qwq|qvq",
            Family("qwen", 1.0, 1.02, 1.03, 1.15, 1.3, 1.0, 1.12, 1.4, 3.0, 1.2, splits_digits=True),
        ),
        (r"(?:meta-)?llama", Family("llama", 1.0, 1.01, 1.0, 1.15, 1.2, 1.03, 1.06, 1.6, 3.5, 1.35)),
        (
            r"command|aya|c4ai|embed-|rerank",
            Family("command", 1.0, 1.1, 0.85, 1.15, 1.2, 1.1, 1.1, 1.2, 2.0, 1.5, splits_digits=True),
        ),
        (r"nova-", Family("nova", 1.02, 1.05, 1.1, 1.08, 1.1, 1.0, 1.1, 1.17, 1.2, 1.0, splits_digits=True)),
        (r"grok", Family("grok", 1.0, 1.02, 1.08, 1.15, 1.25, 1.1, 1.2, 1.3, 2.0, 1.5)),
    )
)

BY_ENCODING: Final = {family.name: family for _, family in _FAMILIES}


@lru_cache(maxsize=1_024)
def family_of(model: str) -> Family | None:
    """Return the family of a model by its name, prefixes tolerated; None if o200k_base is the best guess."""
    name = model.lower().rpartition("/")[2]
    return next((family for pattern, family in _FAMILIES if pattern.match(name)), None)
