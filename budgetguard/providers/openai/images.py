"""Images, drawn and edited: models billed by the image, by size and quality, and models billed by tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.errors import ConfigurationError
from budgetguard.providers.answers import reported
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.body import UsageAccumulator
from budgetguard.providers.json import field, parsed, whole, words
from budgetguard.providers.request import files_of, look_into
from budgetguard.tokens.images import image_size
from budgetguard.tokens.models import bare_name
from budgetguard.tokens.text import count_text, encoding_for

_MOST_IMAGES: Final = 128
_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")
_HEAD: Final = 262_144

# Output tokens of one image. The figures of this section and the next are from OpenAI's image generation
# guide, https://developers.openai.com/api/docs/guides/image-generation#cost-and-latency (copies of 2025-06
# to 2026-10-06); answers report what is billed, so they bear on projections alone.
_TABLE: Final[Mapping[str, tuple[int, int, int]]] = {  # square, portrait, landscape
    "low": (272, 408, 400),
    "medium": (1_056, 1_584, 1_568),
    "high": (4_160, 6_240, 6_208),
}
# For this model the guide has prices alone: these are they, at $8 a million tokens.
_TABLE_MINI: Final[Mapping[str, tuple[int, int, int]]] = {
    "low": (625, 750, 750),
    "medium": (1_375, 1_875, 1_875),
    "high": (4_500, 6_500, 6_500),
}
_OF_TABLE: Final = re.compile(r"gpt-image-1(?:\.5|-mini)?(?:-\d.*)?$|chatgpt-image-latest$")
_TEXT_TOO: Final = re.compile(r"gpt-image-1\.5|chatgpt-image-latest")
# Text tokens that these models think in, an assumption: at $10 a million half a cent an image.
_THOUGHT: Final = 512

# From gpt-image-2 on: the long side in cells by quality, the short side in proportion, times an area factor.
_CELLS_2: Final = {"low": 16, "medium": 48, "high": 96}
_CELLS_2_5: Final = {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96}
_MOST_CELLS: Final = 96
# No allowed size has more tokens than one of these, of 8 294 400 pixels each.
_LARGEST: Final = ((2_160, 3_840), (2_880, 2_880))
_PARTIAL_IMAGE: Final = 100

# Input tokens of an image that is edited: scaled to 512 pixels on the short side, in tiles of 512; high
# fidelity, which gpt-image-2 and later always have, adds a set number
# (https://developers.openai.com/api/docs/guides/images-vision#gpt-image-1, copies of 2025-07 to 2026).
_IN_BASE: Final = 65
_IN_TILE: Final = 129
_IN_MOST_TILES: Final = 4
_FIDELITY_SQUARE: Final = 4_160
_FIDELITY: Final = 6_240
_LOW_FIDELITY: Final = re.compile(r"gpt-image-1|chatgpt-image")

_FRAMES: Final = 9


class ImagesEndpoint(Endpoint):
    """Images: generated, edited or varied."""

    streams = True

    def project(self, asked: Asked) -> Projection:
        """Project a generation, an edit or a variation.

        What settled calls of the model suggest as output tokens of an image counts for a request that leaves
        both size and quality to it.

        Raises:
            ConfigurationError: bad `n`, `partial_images` or `size`; output that a second model writes.
            UnknownModelError: the size and quality have no price.
        """
        body, model, rates = asked.body, asked.model, asked.rates
        if field(body, "output_format") == "svg":
            raise ConfigurationError(
                "SVG output is written by a second model that bills apart, which budgetguard cannot price; "
                "ask for png, webp or jpeg"
            )
        n = _images(body)
        if rates.prices(_image_unit(body)) or not rates.prices("output_tokens"):
            return projected(model, rates, {}, self.unreported(body))
        name = bare_name(model)
        pictures = files_of(body, "image", "mask")
        seen = sum(_input_tokens(look_into(picture, _dimensions), body, name) for picture in pictures)
        told = count_text(words(body, "prompt"), encoding_for(model))
        free = field(body, "quality") in (None, "auto") and field(body, "size") in (None, "auto")
        learned = asked.learned(model) if free else None
        each = image_tokens(body, name) if learned is None else learned
        each += _PARTIAL_IMAGE * (whole(body, "partial_images", most=_MOST_IMAGES) or 0)
        drawn = each * n * _frames(body)
        thought = _THOUGHT * n if _TEXT_TOO.match(name) else 0
        return projected(
            model,
            rates,
            {
                "input_tokens": with_margin(told + seen),
                "input_image_tokens": with_margin(seen) if seen else 0,
            },
            {"output_tokens": drawn + thought, "output_image_tokens": drawn},
            cap_assumed=free,
            choices=n,
        )

    def unreported(self, body: Body) -> Mapping[str, int]:
        return {_image_unit(body): _images(body)}

    def read(self, answer: object) -> Reported:
        """Read what an answer reports; one with images and no usage is billed by the image."""
        answer = parsed(answer)
        said = reported(answer)
        if said.usage is None:
            return Reported(usage=Usage() if field(answer, "data") else None)
        if not said.usage.units:
            return Reported(usage=None)  # no image is drawn from nothing
        return Reported(usage=_drawn(said.usage, field(answer, "usage")))

    def accumulator(self, model: str) -> ImagesAccumulator:
        return ImagesAccumulator()


class ImagesAccumulator(UsageAccumulator):
    """What a stream of images has said so far."""

    part = "output_image_tokens"

    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._partial = 0

    @property
    def reported(self) -> Reported | None:
        return None if self._usage is None else Reported(self._usage)

    def feed(self, chunk: object) -> None:
        kind = str(field(chunk, "type"))
        if kind.endswith(".partial_image"):
            self._partial += 1
        said = reported(chunk)
        if said.usage is None:
            return
        # Each finished image reports its own.
        drawn = _drawn(said.usage, field(chunk, "usage")).units
        so_far = {} if self._usage is None else self._usage.units
        self._usage = Usage.of(
            **{unit: so_far.get(unit, 0) + drawn.get(unit, 0) for unit in so_far.keys() | drawn.keys()}
        )

    def seen_tokens(self) -> int:
        """Count the output tokens seen so far: those of the partial images."""
        return self._partial * _PARTIAL_IMAGE


def _images(body: Body) -> int:
    """Return how many images a request asks for."""
    return whole(body, "n", least=1, most=_MOST_IMAGES) or 1


def _image_unit(body: Mapping[str, Any]) -> str:
    """Return the unit in which a model is billed that is billed by the image: `images_hd_1024x1024`."""
    quality = field(body, "quality") or "standard"
    size = field(body, "size") or "1024x1024"
    if not isinstance(quality, str) or not re.fullmatch("[a-z]{1,16}", quality):
        raise ConfigurationError(f"quality must be a word such as 'high', not {quality!r}")
    if size == "auto":
        return f"images_{quality}"
    _size_of(size)
    return f"images_{quality}_{size}"


def image_tokens(body: Mapping[str, Any], name: str) -> int:
    """Return the output tokens of one image of the size and quality that a request asks for.

    What is left to the model is projected at the most: `high`, and the largest size.
    """
    quality, size = field(body, "quality"), field(body, "size")
    if _OF_TABLE.match(name):
        table = _TABLE_MINI if "mini" in name else _TABLE
        square, portrait, landscape = table.get(str(quality), table["high"])
        return {"1024x1024": square, "1024x1536": portrait, "1536x1024": landscape}.get(
            str(size), max(square, portrait, landscape)
        )
    cells = _CELLS_2 if re.match(r"gpt-image-2(?:-|$)", name) else _CELLS_2_5
    known = re.match(r"gpt-image-2", name) is not None
    long_cells = cells.get(str(quality), cells["high"]) if known else _MOST_CELLS
    sizes = _LARGEST if size in (None, "auto") else (_size_of(size),)
    return max(_cell_tokens(long_cells, *one) for one in sizes)


def _cell_tokens(long_cells: int, width: int, height: int) -> int:
    # `round` rounds halves to even, as the guide's calculator does.
    short_cells = round(long_cells * min(width, height) / max(width, height))
    return math.ceil(long_cells * short_cells * (2_000_000 + width * height) / 4_000_000)


def _size_of(size: object) -> tuple[int, int]:
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None or not int(found[1]) or not int(found[2]):
        raise ConfigurationError(f"size must be a width and a height such as '1024x1024', not {size!r}")
    return int(found[1]), int(found[2])


def _frames(body: Mapping[str, Any]) -> int:
    if field(body, "output_format") != "gif":
        return 1
    return whole(body, "frame_count", least=1, most=_MOST_IMAGES) or _FRAMES


def _dimensions(file: BinaryIO, _size: int, _name: str) -> tuple[int, int] | None:
    return image_size(file.read(_HEAD))


def _input_tokens(size: tuple[int, int] | None, body: Mapping[str, Any], name: str) -> int:
    high = field(body, "input_fidelity") == "high" or _LOW_FIDELITY.match(name) is None
    if size is None:
        return _IN_BASE + _IN_TILE * _IN_MOST_TILES + (_FIDELITY if high else 0)
    fit = min(1.0, 2_048 / max(size))
    fit *= min(1.0, 512 / (min(size) * fit))
    tiles = math.ceil(max(size) * fit / 512 - 1e-9) * max(1, math.ceil(min(size) * fit / 512 - 1e-9))
    extra = _FIDELITY_SQUARE if size[0] == size[1] else _FIDELITY
    return _IN_BASE + _IN_TILE * min(tiles, _IN_MOST_TILES) + (extra if high else 0)


def _drawn(usage: Usage, told: object) -> Usage:
    details = field(told, "output_tokens_details")
    image = field(details, "image_tokens")
    written = field(details, "text_tokens")
    total = usage.output_tokens
    if not isinstance(image, int) or not 0 <= image <= total:
        image = total - written if isinstance(written, int) and 0 <= written <= total else total
    return Usage.of(**{**usage.units, "output_image_tokens": image})


GENERATIONS: Final = ImagesEndpoint("images", "/images/generations")
EDITS: Final = ImagesEndpoint("image edits", "/images/edits")
VARIATIONS: Final = ImagesEndpoint("image variations", "/images/variations")
