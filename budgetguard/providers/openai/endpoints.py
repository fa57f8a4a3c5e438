"""OpenAI's endpoints: what costs money, what is free, what is refused and why. All else is refused by name.

To teach an endpoint, write its class into a file of its own, and add it to `PRICED`.
"""

from __future__ import annotations

from typing import Final

from budgetguard.providers.base import RefusedEndpoints
from budgetguard.providers.openai import batches, responses
from budgetguard.providers.openai.audio import SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from budgetguard.providers.openai.batches import BATCHES
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.openai.completions import COMPLETIONS
from budgetguard.providers.openai.embeddings import EMBEDDINGS
from budgetguard.providers.openai.images import EDITS, GENERATIONS, VARIATIONS
from budgetguard.providers.openai.responses import COMPACT, RESPONSES
from budgetguard.providers.openai.video import VIDEOS
from budgetguard.providers.table import EndpointTable

PRICED: Final = (
    CHAT,
    EMBEDDINGS,
    RESPONSES,
    COMPACT,
    COMPLETIONS,
    GENERATIONS,
    EDITS,
    VARIATIONS,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VIDEOS,
    BATCHES,
)

# Asking for answers that come later: free, but it tells what those answers cost.
POLLED: Final = (*responses.POLLED, *batches.POLLED)

# What costs money that nobody can project; a path that is in no table is refused as well, without a reason.
REFUSED: Final = (
    RefusedEndpoints(
        "trains a model, for which there is no price here",
        ("/fine_tuning/jobs", "/fine_tuning/jobs/{}/resume", "/fine_tuning/alpha/graders/run"),
    ),
    RefusedEndpoints("has models called that it does not tell of", ("/evals/{}/runs",)),
    RefusedEndpoints(
        "opens a session over WebRTC, a telephone line or in a browser, which spends where budgetguard does "
        "not see it",
        (
            "/realtime/calls",
            "/realtime/calls/{}/accept",
            "/realtime/calls/{}/refer",
            "/realtime/client_secrets",
            "/realtime/sessions",
            "/realtime/transcription_sessions",
            "/realtime/translations/client_secrets",
            "/chatkit/sessions",
        ),
    ),
    RefusedEndpoints(
        "names no model and no size, since those of the video that it starts from count, so that its price "
        "is not known before",
        ("/videos/{}/remix", "/videos/edits", "/videos/extensions"),
    ),
    RefusedEndpoints(
        "is of the assistants API, which OpenAI ended in August 2026: use responses",
        (
            "/assistants",
            "/assistants/{}",
            "/threads",
            "/threads/{}",
            "/threads/{}/messages",
            "/threads/{}/messages/{}",
            "/threads/runs",
            "/threads/{}/runs",
            "/threads/{}/runs/{}",
            "/threads/{}/runs/{}/cancel",
            "/threads/{}/runs/{}/submit_tool_outputs",
        ),
    ),
    RefusedEndpoints("rents by time and size, which no answer tells", ("/vector_stores", "/containers")),
)

# POST, PUT and PATCH here cost nothing; `{}` is one path segment. What runs a model, stores by the gigabyte,
# rents a machine, or opens a session elsewhere is not here.
FREE: Final = (
    "/moderations",
    "/files",
    "/uploads",
    "/uploads/{}/parts",
    "/uploads/{}/complete",
    "/uploads/{}/cancel",
    "/chat/completions/{}",
    "/responses/input_tokens",
    "/responses/{}/cancel",
    "/conversations",
    "/conversations/{}",
    "/conversations/{}/items",
    "/batches/{}/cancel",
    "/fine_tuning/jobs/{}/cancel",
    "/fine_tuning/jobs/{}/pause",
    "/fine_tuning/alpha/graders/validate",
    "/evals",
    "/evals/{}",
    "/evals/{}/runs/{}/cancel",
    "/vector_stores/{}",
    "/vector_stores/{}/file_batches/{}/cancel",
    "/chatkit/sessions/{}/cancel",
    "/realtime/calls/{}/hangup",
    "/realtime/calls/{}/reject",
)

# An Azure deployment stands before the path.
_PREFIX: Final = r"(?:(?:/openai)?/v1(?=/))?(?:(?:/openai)?/deployments/[^/]+(?=/))?"

TABLE: Final = EndpointTable(PRICED, FREE, REFUSED, POLLED, prefix=_PREFIX)
