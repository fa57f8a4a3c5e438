"""The row of the `anthropic` package in the table of SDKs, and the endpoints of Anthropic's API."""

from __future__ import annotations

from typing import Final

from budgetguard.providers.anthropic.messages import MESSAGES
from budgetguard.providers.base import Refused
from budgetguard.providers.sdk import ASYNC, SYNC, Sdk
from budgetguard.providers.table import EndpointTable

# POST, PUT and PATCH here cost nothing; `{}` is one path segment.
FREE: Final = ("/messages/count_tokens", "/messages/batches/{}/cancel")

REFUSED: Final = (
    Refused("runs many messages, whose cost budgetguard does not read yet", ("/messages/batches",)),
    Refused("is Anthropic's legacy API, which budgetguard does not read: use messages", ("/complete",)),
    Refused(
        "stores what later requests read, which budgetguard does not read yet",
        ("/files", "/skills", "/skills/{}/versions"),
    ),
    Refused(
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

TABLE: Final = EndpointTable((MESSAGES,), FREE, REFUSED)

_ELSEWHERE: Final = (
    "sends to another cloud, whose prices and endpoints budgetguard does not read yet; call it in functions "
    "decorated with @budgeted, with its path among allow_endpoints"
)


def _refused(client: object) -> str | None:
    """Return why a client is refused that sends to Bedrock, Vertex, Foundry or another cloud, else None."""
    kinds = type(client).__mro__
    own = any(kind.__module__ in ("anthropic", "anthropic._client") for kind in kinds)
    base = any(kind.__module__ == "anthropic._base_client" for kind in kinds)
    if base and (not own or any(kind.__module__.startswith("anthropic.lib.") for kind in kinds)):
        return _ELSEWHERE
    return None


ANTHROPIC: Final = Sdk(
    name="anthropic",
    oldest=(0, 60, 0),
    too_new=(3,),
    clients={"Anthropic": SYNC, "AsyncAnthropic": ASYNC},
    table=TABLE,
    default_provider="anthropic",
    refuses=_refused,
)
