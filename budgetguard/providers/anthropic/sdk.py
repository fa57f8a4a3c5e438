"""The row of the `anthropic` package in the table of SDKs."""

from __future__ import annotations

from typing import Final

from budgetguard.providers.anthropic.clouds import CLIENTS, model_in, place_of, refused
from budgetguard.providers.anthropic.endpoints import TABLE
from budgetguard.providers.sdk import Sdk

# The versions are those of pyproject.toml.
ANTHROPIC: Final = Sdk(
    name="anthropic",
    oldest=(0, 60, 0),
    too_new=(3,),
    clients=CLIENTS,
    table=TABLE,
    default_provider="anthropic",
    place_of=place_of,
    model_in=model_in,
    refuses=refused,
)
