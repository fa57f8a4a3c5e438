"""The row of the `openai` package in the table of SDKs."""

from __future__ import annotations

from typing import Final

from budgetguard.providers.openai.azure import NAMES_ARE_MODELS, deployment, place_of
from budgetguard.providers.openai.endpoints import TABLE
from budgetguard.providers.openai.websockets import Websockets
from budgetguard.providers.sdk import ASYNC, SYNC, Sdk

# The versions are those of pyproject.toml.
OPENAI: Final = Sdk(
    name="openai",
    oldest=(1, 109, 1),
    too_new=(4,),
    clients={"OpenAI": SYNC, "AsyncOpenAI": ASYNC},
    table=TABLE,
    place_of=place_of,
    model_in=deployment,
    names_are_models=NAMES_ARE_MODELS,
    side_way=Websockets,
    passed_by={
        "litellm": "not all of its calls pass the openai client: what it sends over httpx is not seen by "
        "patch_openai(). Guard all of it with patch_litellm(), or every SDK with patch()"
    },
)
