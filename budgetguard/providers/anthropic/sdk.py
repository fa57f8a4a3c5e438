"""The row of the `anthropic` package in the table of SDKs, and the endpoints of Anthropic's API."""

from __future__ import annotations

from typing import Final

from budgetguard.providers.anthropic.batches import BATCHES, POLLED
from budgetguard.providers.anthropic.clouds import CLIENTS, model_in, place_of, refused
from budgetguard.providers.anthropic.messages import MESSAGES, MESSAGES_ELSEWHERE
from budgetguard.providers.base import RefusedEndpoints
from budgetguard.providers.sdk import Sdk
from budgetguard.providers.table import EndpointTable

# POST, PUT and PATCH here cost nothing; `{}` is one path segment.
FREE: Final = (
    "/messages/count_tokens",
    "/messages/batches/{}/cancel",
    "/projects/{}/locations/{}/publishers/anthropic/models/count-tokens:rawPredict",
)

REFUSED: Final = (
    RefusedEndpoints(
        "is Anthropic's legacy API, which budgetguard does not read: use messages", ("/complete",)
    ),
    RefusedEndpoints(
        "stores what later requests read, which budgetguard does not read yet",
        ("/files", "/skills", "/skills/{}/versions"),
    ),
    RefusedEndpoints(
        "runs models where budgetguard does not see what they spend",
        (
            "/agents",
            "/agents/{}",
            "/deployments",
            "/deployments/{}",
            "/deployments/{}/run",
            "/dreams",
            "/environments",
            "/sessions",
            "/sessions/{}",
            "/sessions/{}/events",
        ),
    ),
)

TABLE: Final = EndpointTable((MESSAGES, BATCHES, *MESSAGES_ELSEWHERE), FREE, REFUSED, POLLED)

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
