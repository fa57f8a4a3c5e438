"""Anthropic's endpoints: what costs money, what is free, what is refused and why. All else is refused."""

from __future__ import annotations

from typing import Final

from budgetguard.providers.anthropic.batches import BATCHES, POLLED
from budgetguard.providers.anthropic.messages import MESSAGES, MESSAGES_ELSEWHERE
from budgetguard.providers.base import RefusedEndpoints
from budgetguard.providers.table import EndpointTable

PRICED: Final = (MESSAGES, BATCHES, *MESSAGES_ELSEWHERE)

# What costs money that nobody can project; a path that is in no table is refused as well, without a reason.
REFUSED: Final = (
    RefusedEndpoints(
        "is Anthropic's legacy API, which budgetguard does not read: use messages", ("/complete",)
    ),
    # https://platform.claude.com/docs/en/managed-agents/overview: billed by tokens and by a session's hours.
    RefusedEndpoints(
        "runs an agent at Anthropic, whose model calls and hours budgetguard does not see",
        (
            "/deployments",
            "/deployments/{}",
            "/deployments/{}/run",
            "/deployments/{}/unpause",
            "/dreams",
            "/sessions",
            "/sessions/{}/events",
        ),
    ),
)

# POST, PUT and PATCH here cost nothing; `{}` is one path segment. Files and skills are stored for nothing:
# what a message reads of them is its input (https://platform.claude.com/docs/en/build-with-claude/files).
FREE: Final = (
    "/messages/count_tokens",
    "/messages/batches/{}/cancel",
    "/projects/{}/locations/{}/publishers/anthropic/models/count-tokens:rawPredict",
    "/files",
    "/skills",
    "/skills/{}/versions",
    # What describes agents and what they may use, until a session runs one.
    "/agents",
    "/agents/{}",
    "/agents/{}/archive",
    "/deployments/{}/archive",
    "/deployments/{}/pause",
    "/dreams/{}/archive",
    "/dreams/{}/cancel",
    "/environments",
    "/environments/{}",
    "/environments/{}/archive",
    "/environments/{}/work/{}",
    "/environments/{}/work/{}/ack",
    "/environments/{}/work/{}/heartbeat",
    "/environments/{}/work/{}/stop",
    "/sessions/{}",
    "/sessions/{}/archive",
    "/sessions/{}/resources",
    "/sessions/{}/resources/{}",
    "/sessions/{}/threads/{}/archive",
)
# Administration, of which nothing runs a model.
FREE_BELOW: Final = (
    "/compliance",
    "/memory_stores",
    "/organizations",
    "/tunnels",
    "/user_profiles",
    "/vaults",
)

TABLE: Final = EndpointTable(PRICED, FREE, REFUSED, POLLED, free_below=FREE_BELOW)
