"""Videos: billed by the second, by resolution. Polling a job and downloading it cost nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.json import count, field
from budgetguard.providers.measures import whole
from budgetguard.tokens.requests import given

# What the API takes where the request does not say:
# https://developers.openai.com/api/reference/resources/videos/methods/create
_SECONDS: Final = 4
_SIZE: Final = "720x1280"
_MOST_SECONDS: Final = 3_600
_DIMENSIONS: Final = re.compile(r"(\d{1,5})x(\d{1,5})")


def project_video(body: Mapping[str, Any], model: str, rates: Rates, _learned: int | None) -> Projection:
    """Project a video: its seconds at the price of its resolution.

    Raises:
        ConfigurationError: bad `seconds` or `size`.
        UnknownModelError: the resolution has no price.
    """
    seconds = whole(body, "seconds", _SECONDS, least=1, most=_MOST_SECONDS)
    unit = video_unit(given(body, "size") or _SIZE)
    if unit is None:
        raise ConfigurationError(
            f"size must be a width and a height such as '1280x720', not {given(body, 'size')!r}"
        )
    return projected(model, rates, {}, {unit: seconds})


def video_unit(size: object) -> str | None:
    """Return the unit in which a video of a size is billed, whichever side is the long one."""
    found = _DIMENSIONS.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        return None
    short, long = sorted(int(side) for side in found.groups())
    return f"video_seconds_{short}x{long}"


def read_video(answer: object) -> Reported:
    """Read the seconds and the size of a job that was taken on; one that failed at once costs nothing."""
    if isinstance(answer, bytes | bytearray):
        try:
            answer = json.loads(answer)
        except ValueError:
            return Reported(usage=None)
    name = field(answer, "id")
    job = name if isinstance(name, str) else None
    if field(answer, "status") == "failed":
        return Reported(usage=Usage(), request_id=job)
    unit, seconds = video_unit(field(answer, "size")), count(field(answer, "seconds"))
    if unit is None or not seconds:
        return Reported(usage=None, request_id=job)
    return Reported(usage=Usage({unit: seconds}), request_id=job)
