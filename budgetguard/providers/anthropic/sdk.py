"""The row of the `anthropic` package in the table of SDKs, and the endpoints of Anthropic's API."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from budgetguard.providers.anthropic.messages import MESSAGES
from budgetguard.providers.base import RefusedEndpoints
from budgetguard.providers.sdk import ASYNC, SYNC, Sdk
from budgetguard.providers.table import EndpointTable

# POST, PUT and PATCH here cost nothing; `{}` is one path segment.
FREE: Final = ("/messages/count_tokens", "/messages/batches/{}/cancel")

REFUSED: Final = (
    RefusedEndpoints("runs many messages, whose cost budgetguard does not read yet", ("/messages/batches",)),
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

TABLE: Final = EndpointTable((MESSAGES,), FREE, REFUSED)

_ELSEWHERE: Final = (
    "sends to another cloud, whose prices and endpoints budgetguard does not read yet; call it in functions "
    "decorated with @budgeted, with its path among allow_endpoints"
)


def _refused(client: object) -> str | None:
    """Return why a client is refused that sends to Bedrock, Vertex, Foundry or another cloud, else None."""
    kind: Any = type(client)
    return _ELSEWHERE if _is_elsewhere(kind) else None


@lru_cache(maxsize=64)
def _is_elsewhere(kind: Any) -> bool:
    kinds = kind.__mro__
    own = any(kind.__module__ in ("anthropic", "anthropic._client") for kind in kinds)
    base = any(kind.__module__ == "anthropic._base_client" for kind in kinds)
    return base and (not own or any(kind.__module__.startswith("anthropic.lib.") for kind in kinds))


ANTHROPIC: Final = Sdk(
    name="anthropic",
    oldest=(0, 60, 0),
    too_new=(3,),
    clients={"Anthropic": SYNC, "AsyncAnthropic": ASYNC},
    table=TABLE,
    default_provider="anthropic",
    refuses=_refused,
)
