"""Families of models that are not OpenAI's: how many tokens they make of a text, as multiples of o200k_base.

Their tokenizers are not on this machine (Claude's and Gemini's are not public). But how many tokens they make
of a text is a near constant multiple of o200k_base's count, for each kind of text apart. A family's name is
an encoding's name for `tokens.text.count_text`, and `encoding_for` finds it by the model's name: an endpoint
that counts with `count_text(text, encoding_for(model))` counts right for every family here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Family:
    """Models that turn text into tokens alike.

    Multiples of o200k_base's count, by kind of text.

    Attributes:
        name: the family's, and of its encoding.
        prose: English, and other languages in Latin letters.
        code: code and JSON, and whatever else is dense in signs and digits.
        chinese: Chinese characters and kana.
        korean: Hangul.
        other: every other script, and symbols.
        version: what the package `ctok` calls its tokenizer, if it knows it.
    """

    name: str
    prose: float
    code: float
    chinese: float
    korean: float
    other: float
    version: str | None = None


_OLDER_CLAUDE: Final = (
    r"claude-(?:[123v]|instant|(?:opus|sonnet|haiku)-4(?:[-.][0-6])?(?:$|[@:]|-(?:\d{8}|latest|v\d)))"
)
# Measured with the public tokenizers, and with `ctok` for Claude. The first pattern that matches counts.
_FAMILIES: Final = tuple(
    (re.compile(rf"(?:.*[./-])?(?:{pattern})"), family)
    for pattern, family in (
        (_OLDER_CLAUDE, Family("claude-3", 1.14, 1.29, 1.5, 1.7, 1.8, "3.0")),
        (r"claude", Family("claude-4.7", 1.35, 1.74, 1.64, 1.78, 1.88, "4.8")),
        (r"gemini|gemma", Family("gemini", 1.07, 1.07, 1.07, 1.07, 1.07)),
        (
            r"(?:open-)?(?:mi[sx]tral|ministral|codestral|devstral|magistral|pixtral|voxtral)",
            Family("mistral", 1.12, 1.12, 1.28, 1.12, 1.12),
        ),
        (r"deepseek", Family("deepseek", 1.02, 1.14, 1.14, 1.14, 1.14)),
        (r"qwen|qwq|qvq", Family("qwen", 1.0, 1.1, 1.1, 1.1, 1.1)),
        (r"(?:meta-)?llama", Family("llama", 1.03, 1.05, 1.3, 1.3, 1.3)),
        (r"command|aya|c4ai|embed-|rerank", Family("command", 1.1, 1.2, 1.2, 1.2, 1.2)),
        (r"nova-", Family("nova", 1.1, 1.3, 1.4, 1.4, 1.4)),
        (r"grok", Family("grok", 1.05, 1.1, 1.2, 1.2, 1.2)),
    )
)

BY_ENCODING: Final = {family.name: family for _, family in _FAMILIES}


@lru_cache(maxsize=1_024)
def family_of(model: str) -> Family | None:
    """Return the family of a model by its name, prefixes tolerated; None if o200k_base is the best guess."""
    name = model.lower().rpartition("/")[2]
    return next((family for pattern, family in _FAMILIES if pattern.match(name)), None)
