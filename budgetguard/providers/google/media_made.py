"""Images and videos that models make: `:predict`, by the piece, and `:predictLongRunning`, by the second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected
from budgetguard.errors import ConfigurationError
from budgetguard.providers.base import Asked, Body, Endpoint, Polled
from budgetguard.providers.google.embeddings import predicted_texts, project_predicted, read_predicted
from budgetguard.providers.google.paths import bare_model
from budgetguard.providers.json import count, field, items, mapping, parsed, text, whole
from budgetguard.providers.shapes import either

_MOST: Final = 64
# What a model of Vertex' draws where the request does not say, and how long a film lasts.
_IMAGES: Final = 1
_SECONDS: Final = 8
_MOST_SECONDS: Final = 3_600
# The short and the long side of each resolution; they are sold by its name.
_RESOLUTIONS: Final[Mapping[str, str]] = {
    "360p": "360x640",
    "480p": "480x854",
    "720p": "720x1280",
    "1080p": "1080x1920",
    "4k": "2160x3840",
}
_RESOLUTION: Final = "720p"
# Google keeps a film for two days; who asks later still corrects what the hold's expiry booked.
_KEPT: Final = 2 * 24 * 60 * 60 * 1000


class PredictEndpoint(Endpoint):
    """Images that Imagen draws or changes, and texts that Vertex embeds."""

    def project(self, asked: Asked) -> Projection:
        """Project images, each at its model's price; or texts that are embedded.

        Raises:
            ConfigurationError: a bad `sampleCount`.
            UnknownModelError: there is no price.
        """
        if texts := predicted_texts(asked.body):
            return project_predicted(asked, texts)
        return projected(asked.model, asked.rates, {}, {"images": _samples(asked.body)})

    def read(self, answer: object) -> Reported:
        """Read the images of an answer: those that were held back are not billed."""
        answer = parsed(answer)
        predictions = field(answer, "predictions")
        said = read_predicted(answer)
        if said.usage is not None or predictions is None:
            # An answer without predictions is one in which everything was held back.
            return said if said.usage is not None else Reported(usage=Usage() if answer == {} else None)
        drawn = sum(1 for one in items(predictions) if _is_made(one))
        return Reported(usage=Usage({"images": drawn}))


class VeoEndpoint(Endpoint):
    """Videos that Veo makes, in operations that are asked for later."""

    def project(self, asked: Asked) -> Projection:
        """Project videos: their seconds at the price of their resolution, sound included.

        Raises:
            ConfigurationError: bad `sampleCount`, `durationSeconds` or `resolution`.
            UnknownModelError: the resolution has no price.
        """
        wanted = mapping(field(asked.body, "parameters") or {})
        seconds = whole(wanted, "durationSeconds", least=1, most=_MOST_SECONDS) or _SECONDS
        resolution = str(text(field(wanted, "resolution")) or _RESOLUTION).lower()
        if resolution not in _RESOLUTIONS:
            raise ConfigurationError(
                f"resolution must be one of {', '.join(_RESOLUTIONS)}, not {resolution!r}"
            )
        unit = f"video_seconds_{_RESOLUTIONS[resolution]}"
        return projected(asked.model, asked.rates, {}, {unit: seconds * _samples(asked.body)})

    def read(self, answer: object) -> Reported:
        return read_operation(answer)

    def least_ttl(self, body: Body) -> int:
        return _KEPT


def _samples(body: Body) -> int:
    wanted = mapping(field(body, "parameters") or {})
    asked = whole(wanted, "sampleCount", least=1, most=_MOST) or _IMAGES
    return asked * max(1, len(items(body.get("instances"))))


def _is_made(one: Any) -> bool:
    return any(either(one, name) for name in ("bytesBase64Encoded", "gcsUri", "mimeType"))


def read_operation(answer: object) -> Reported:
    """Read how an operation that makes videos stands.

    It is `pending`; or has failed, which costs nothing; or tells which part of what was asked for was made.
    """
    answer = parsed(answer)
    name = operation_id(text(field(answer, "name")))
    if field(answer, "done") is not True:
        return Reported(usage=None, request_id=name, pending=True)
    if field(answer, "error") is not None:
        return Reported(usage=Usage(), request_id=name)
    response = field(answer, "response")
    told = either(response, "generateVideoResponse") or response
    made = max(
        len(items(either(told, "generatedSamples"))),
        len(items(either(told, "videos"))),
        len(items(either(told, "generatedVideos"))),
    )
    held_back = count(either(told, "raiMediaFilteredCount")) or 0
    if not made and held_back:
        return Reported(usage=Usage(), request_id=name)
    # What nobody understands is taken to be all of it.
    return Reported(usage=None, request_id=name, done=(made, made + held_back) if made else (1, 1))


def operation_id(name: str | None) -> str | None:
    """Return an operation's id, whatever it is below: `operations/...`."""
    if name is None:
        return None
    below, found, ident = name.rpartition("operations/")
    return f"{found}{ident}" if found else bare_model(below or ident)


def _read_one(answer: object) -> Iterable[Reported]:
    return (read_operation(answer),)


PREDICT: Final = PredictEndpoint("predict", "/models/{}:predict")
VIDEOS: Final = VeoEndpoint("videos", "/models/{}:predictLongRunning")
POLLED: Final = (
    Polled("GET", "/models/{}/operations/{}", _read_one),
    Polled("GET", "/operations/{}", _read_one),
    Polled("POST", "/models/{}:fetchPredictOperation", _read_one),
)
