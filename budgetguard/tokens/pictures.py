"""Bill images that models of other makers than OpenAI are shown, as tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final, TypeAlias

_Size: TypeAlias = tuple[int, int]


def _claude(pixels: int, long_side: int, most: int) -> Callable[[_Size | None], int]:
    # https://platform.claude.com/docs/en/build-with-claude/vision: width x height / 750 tokens, once the long
    # side was brought down.
    def tokens(size: _Size | None) -> int:
        if size is None:
            return most
        shrunk = min(1.0, long_side / max(size))
        return min(most, 4 + math.ceil(size[0] * shrunk * size[1] * shrunk / pixels))

    return tokens


def _fixed(tokens: int) -> Callable[[_Size | None], int]:
    return lambda _size: tokens


def _gemini_2(size: _Size | None) -> int:
    # https://ai.google.dev/gemini-api/docs/tokens: 258 a tile; Gemini 2.0 was billed for the whole beside them.
    if size is None:
        return 10 * 258
    if max(size) <= 384:
        return 258
    side = min(768, max(256, math.floor(min(size) / 1.5)))
    return 258 * (1 + math.ceil(size[0] / side) * math.ceil(size[1] / side))


def _patches(side: int, long_side: int, *, breaks: bool) -> Callable[[_Size | None], int]:
    # https://docs.mistral.ai/capabilities/vision: a token a patch, and one that ends each row.
    def tokens(size: _Size | None) -> int:
        width, height = size or (long_side, long_side)
        shrunk = min(1.0, long_side / max(width, height))
        columns, rows = math.ceil(width * shrunk / side), math.ceil(height * shrunk / side)
        return columns * rows + (rows if breaks else 2)

    return tokens


def _llama_4(size: _Size | None) -> int:
    # Tiles of 336 pixels, 144 tokens each, and the whole once more if there are several.
    tiles = 16 if size is None else min(16, math.ceil(size[0] / 336) * math.ceil(size[1] / 336))
    return 148 * (tiles + (tiles > 1)) + 10


def _cohere(size: _Size | None) -> int:
    # https://docs.cohere.com/docs/image-inputs: 256 tokens a tile of 512 pixels, and 256 for the whole.
    tiles = 12 if size is None else min(12, math.ceil(size[0] / 512) * math.ceil(size[1] / 512))
    return 256 * (tiles + (tiles > 1)) + 3


# The first pattern that matches the model's bare name counts.
_PICTURES: Final = tuple(
    (re.compile(rf"(?:.*[-.])?(?:{pattern})"), tokens)
    for pattern, tokens in (
        (
            r"claude-(?:[123v]|instant|(?:opus|sonnet|haiku)-4(?:[-.][0-6])?(?:$|[@:]|-(?:\d{8}|latest|v\d)))",
            _claude(750, 1_568, 1_640),
        ),
        (r"claude", _claude(750, 2_576, 4_900)),
        (r"gemini-(?:1|2\.0)", _gemini_2),
        (r"gemini-2|gemma", _fixed(258)),
        (r"gemini", _fixed(1_120)),
        (r"pixtral", _patches(16, 1_024, breaks=True)),
        (r"mi[sx]tral|ministral|magistral|codestral|devstral|voxtral", _patches(28, 1_540, breaks=True)),
        (r"qwen|qvq", _patches(28, 1_008, breaks=False)),
        (r"grok", _patches(28, 1_176, breaks=False)),
        (r"(?:meta-)?llama", _llama_4),
        (r"nova-", _fixed(1_600)),
        (r"command|c4ai", _cohere),
        (r"", _fixed(1_445)),
    )
)


def other_image_tokens(model: str, size: _Size | None) -> int:
    """Return what an image in a message is billed as, in tokens; at most so, where its size is not known.

    Args:
        model: the model's name, without a provider prefix.
        size: (width, height) in pixels, or None.
    """
    return next(tokens for pattern, tokens in _PICTURES if pattern.match(model))(size)
