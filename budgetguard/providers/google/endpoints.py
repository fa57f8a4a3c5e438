"""Google's endpoints, of the Developer API and Vertex: what costs money, is free, or is refused, and why."""

from __future__ import annotations

from typing import Final

from budgetguard.providers.base import RefusedEndpoints
from budgetguard.providers.google import batches, interactions, media_made
from budgetguard.providers.google.batches import GeminiBatches
from budgetguard.providers.google.caches import CacheEndpoint, ExtendEndpoint
from budgetguard.providers.google.embeddings import EmbedEndpoint
from budgetguard.providers.google.generate import GeminiEndpoint
from budgetguard.providers.google.interactions import InteractionsEndpoint
from budgetguard.providers.google.media_made import PREDICT, VIDEOS
from budgetguard.providers.google.paths import PREFIX
from budgetguard.providers.table import EndpointTable

GENERATE: Final = GeminiEndpoint("generate", "/models/{}:generateContent")
EMBED: Final = EmbedEndpoint("embed", "/models/{}:batchEmbedContents")


def _generating(*, vertex: bool) -> tuple[GeminiEndpoint, ...]:
    """Return what answers contents: Google's models, tuned ones, and other makers' at Vertex."""
    holders = ("/endpoints/{}", "/publishers/{}/models/{}") if vertex else ("/tunedModels/{}",)
    return tuple(
        GeminiEndpoint("generate", f"{holder}:{verb}", vertex=vertex, streamed=verb.startswith("stream"))
        for holder in ("/models/{}", *holders)
        for verb in ("generateContent", "streamGenerateContent")
    )


_EXTEND: Final = ExtendEndpoint("cache", "/cachedContents/{}")
_EMBEDDING: Final = (EMBED, EmbedEndpoint("embed", "/models/{}:embedContent"))

INTERACTIONS: Final = InteractionsEndpoint("interactions", "/interactions")
_INTERACTIONS_VERTEX: Final = InteractionsEndpoint("interactions", "/interactions", vertex=True)

PRICED: Final = (
    *_generating(vertex=False),
    *_EMBEDDING,
    PREDICT,
    VIDEOS,
    GeminiBatches("batches", "/models/{}:batchGenerateContent", GENERATE),
    GeminiBatches("batches", "/models/{}:asyncBatchEmbedContent", EMBED),
    CacheEndpoint("cache", "/cachedContents"),
    _EXTEND,
    INTERACTIONS,
)
PRICED_VERTEX: Final = (
    *_generating(vertex=True),
    *_EMBEDDING,
    PREDICT,
    VIDEOS,
    CacheEndpoint("cache", "/cachedContents", vertex=True),
    _EXTEND,
    _INTERACTIONS_VERTEX,
)

# POST, PUT and PATCH here cost nothing; `{}` is one path segment.
FREE: Final = (
    "/models/{}:countTokens",
    "/models/{}:computeTokens",
    "/models/{}:fetchPredictOperation",
    "/publishers/{}/models/{}:countTokens",
    "/endpoints/{}:countTokens",
    "/tunedModels/{}:countTokens",
    "PATCH /models/{}",
    "PATCH /tunedModels/{}",
    "/files",
    "/files:register",
    "/batches/{}:cancel",
    "/batchPredictionJobs/{}:cancel",
    "/tuningJobs/{}:cancel",
    "/fileSearchStores",
    "/interactions/{}/cancel",
    "/webhooks",
    "/webhooks/{}",
    "/webhooks/{}:ping",
    "/webhooks/{}:rotateSigningSecret",
    "/credentials",
    "/credentials/{}",
)

_TRAINS: Final = RefusedEndpoints(
    "trains a model, for which there is no price here",
    ("/tuningJobs", "/tunedModels", "/tuningJobs:validateReinforcementTuningReward"),
)
_INDEXES: Final = RefusedEndpoints(
    "embeds whole files, whose tokens no answer tells",
    ("/fileSearchStores/{}:uploadToFileSearchStore", "/fileSearchStores/{}:importFile"),
)
_OPENS: Final = RefusedEndpoints(
    "opens a session elsewhere, which spends where budgetguard does not see it",
    ("/auth_tokens", "/interactions/{}/auth_tokens"),
)
_AGENTS: Final = RefusedEndpoints(
    "runs models where budgetguard does not see what they spend",
    (
        "/agents",
        "/triggers",
        "/triggers/{}",
        "/triggers/{}/executions",
        "/environments",
        "/decisions",
        "/voices",
    ),
)
_BATCHES: Final = RefusedEndpoints(
    "runs requests that stand in Cloud Storage or BigQuery, where budgetguard does not see them",
    ("/batchPredictionJobs",),
)
REFUSED: Final = (_TRAINS, _INDEXES, _OPENS, _AGENTS, _BATCHES)

# Asking for answers that come later: free, but it tells what those answers cost.
POLLED: Final = (*batches.POLLED, *media_made.POLLED, *interactions.POLLED)

TABLE: Final = EndpointTable(PRICED, FREE, REFUSED, POLLED, prefix=PREFIX)
TABLE_VERTEX: Final = EndpointTable(PRICED_VERTEX, FREE, REFUSED, POLLED, prefix=PREFIX)
