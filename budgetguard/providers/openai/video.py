"""Videos: billed by the second, by resolution. Polling a job and downloading it cost nothing."""

from __future__ import annotations

import re
from typing import Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected
from budgetguard.errors import ConfigurationError
from budgetguard.providers.base import Asked, Endpoint
from budgetguard.providers.json import count, field, parsed, text, whole

# What the API takes where the request does not say:
# https://developers.openai.com/api/reference/resources/videos/methods/create
_SECONDS: Final = 4
_SIZE: Final = "720x1280"
_MOST_SECONDS: Final = 3_600
_DIMENSIONS: Final = re.compile(r"(\d{1,5})x(\d{1,5})")


class VideosEndpoint(Endpoint):
    """Videos, made in jobs."""

    def project(self, asked: Asked) -> Projection:
        """Project a video: its seconds at the price of its resolution.

        Raises:
            ConfigurationError: bad `seconds` or `size`.
            UnknownModelError: the resolution has no price.
        """
        seconds = whole(asked.body, "seconds", least=1, most=_MOST_SECONDS) or _SECONDS
        size = field(asked.body, "size")
        unit = _unit(size or _SIZE)
        if unit is None:
            raise ConfigurationError(f"size must be a width and a height such as '1280x720', not {size!r}")
        return projected(asked.model, asked.rates, {}, {unit: seconds})

    def read(self, answer: object) -> Reported:
        """Read the seconds and the size of a job that was taken on; one that failed at once costs nothing."""
        answer = parsed(answer)
        job = text(field(answer, "id"))
        if field(answer, "status") == "failed":
            return Reported(usage=Usage(), request_id=job)
        unit, seconds = _unit(field(answer, "size")), count(field(answer, "seconds"))
        usage = Usage({unit: seconds}) if unit is not None and seconds else None
        return Reported(usage=usage, request_id=job)


def _unit(size: object) -> str | None:
    """Return the unit in which a video of a size is billed, whichever side is the long one."""
    found = _DIMENSIONS.fullmatch(size) if isinstance(size, str) else None
    if found is None:
        return None
    short, long = sorted(int(side) for side in found.groups())
    return f"video_seconds_{short}x{long}"


VIDEOS: Final = VideosEndpoint("videos", "/videos")
