"""What the paths of Google's APIs say: the model that is asked for, and where it runs."""

from __future__ import annotations

import re
from typing import Final

# Before what a path asks for stand a version, Vertex' project and location, and Google as a model's maker.
PREFIX: Final = (
    r"(?:/upload)?(?:/v\d\w*(?=/))?(?:/projects/[^/]+/locations/[^/]+(?=/))?"
    r"(?:/publishers/google(?=/models/))?"
)
_MODEL: Final = re.compile(r"/(?:publishers/[^/]+/)?(?:models|tunedModels|endpoints)/([^/:]+)")
_OWN: Final = re.compile(r"/((?:tunedModels|endpoints)/[^/:]+)")


def model_in(path: str) -> str | None:
    """Return the model that a path names: `gemini-2.5-flash`, `tunedModels/mine`; None if it names none."""
    own = _OWN.match(path)
    if own is not None:
        return own[1]
    found = _MODEL.match(path)
    return found[1] if found else None


def bare_model(name: str) -> str:
    """Return a model's name without what it is below: `gemini-2.5-flash` of
    `projects/p/locations/l/publishers/google/models/gemini-2.5-flash`."""
    return name.rpartition("models/")[2] if "tunedModels/" not in name else name
