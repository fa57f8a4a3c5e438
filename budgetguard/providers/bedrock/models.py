"""Bedrock's ids of models: what they stand for in price lists.

An id is a vendor and a model (`anthropic.claude-sonnet-4-5-20250929-v1:0`), with a region before it where an
inference profile spreads its calls (`us.`, `eu.`, `global.`), or the ARN of one of these. The price depends
on the region, so it stays.
"""

from __future__ import annotations

import re
from typing import Final

# Of other ARNs (application profiles, provisioned models, routers) only their owner knows the model.
_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:bedrock:[^:/]*:\d*:(?:inference-profile|foundation-model)/(.+)", re.IGNORECASE
)
_VENDOR: Final = re.compile(r"(?P<region>(?:[a-z-]+\.)??)(?P<vendor>anthropic\.)")


def listed_model(model: str) -> str:
    """Return the id of the model or profile that an ARN names; anything else as it is."""
    found = _ARN.fullmatch(model)
    return model if found is None else found[1]


def served_model(asked: str, answered: str) -> str:
    """Return the id of the model that an answer names by the vendor's own name, in the region that was asked.

    Args:
        asked: the id of the model that was asked for.
        answered: such as `claude-sonnet-4-5-20250929`.
    """
    wanted = _VENDOR.match(asked)
    if wanted is None:
        return answered
    found = _VENDOR.match(answered)
    if found is not None and found["region"]:
        return answered
    bare = answered if found is None else answered[found.end() :]
    return f"{wanted['region']}{wanted['vendor']}{bare}"
