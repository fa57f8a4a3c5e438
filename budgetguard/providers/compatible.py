"""The rows of SDKs of openai's generator whose APIs have OpenAI's shape: Groq, Cerebras, Together."""

from __future__ import annotations

from typing import Final

from budgetguard.providers.base import RefusedEndpoints
from budgetguard.providers.openai.audio import SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.openai.completions import COMPLETIONS
from budgetguard.providers.openai.embeddings import EMBEDDINGS
from budgetguard.providers.openai.images import GENERATIONS
from budgetguard.providers.sdk import ASYNC, SYNC, Place, Sdk
from budgetguard.providers.table import EndpointTable

_BATCH: Final = "runs many requests, whose cost budgetguard reads of OpenAI's and Anthropic's batches only"
_TRAINS: Final = "trains a model, for which there is no price here"
_RENTS: Final = "rents machines by time and size, which no answer tells"

# Whatever the address: their models have names such as `openai/gpt-oss-120b`.
_AT_GROQ: Final = Place("groq")
_AT_CEREBRAS: Final = Place("cerebras")
_AT_TOGETHER: Final = Place("together")

GROQ: Final = Sdk(
    name="groq",
    oldest=(0, 31, 0),
    too_new=(2,),
    clients={"Groq": SYNC, "AsyncGroq": ASYNC},
    table=EndpointTable(
        (CHAT, EMBEDDINGS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS),
        ("/files", "/batches/{}/cancel"),
        (RefusedEndpoints(_BATCH, ("/batches",)),),
        prefix=r"(?:/openai)?/v1(?=/)",
    ),
    place_of=lambda _client: _AT_GROQ,
)

CEREBRAS: Final = Sdk(
    name="cerebras",
    package="cerebras.cloud.sdk",
    oldest=(1, 46, 0),
    too_new=(2,),
    clients={"Cerebras": SYNC, "AsyncCerebras": ASYNC},
    table=EndpointTable((CHAT, COMPLETIONS), (), ()),
    place_of=lambda _client: _AT_CEREBRAS,
)

TOGETHER: Final = Sdk(
    name="together",
    oldest=(2, 0, 0),
    too_new=(4,),
    clients={"Together": SYNC, "AsyncTogether": ASYNC},
    table=EndpointTable(
        (CHAT, COMPLETIONS, EMBEDDINGS, GENERATIONS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS),
        (
            "/batches/{}/cancel",
            "/files",
            "/fine-tunes/estimate-price",
            "/fine-tunes/{}/cancel",
            "/rl/model-resources/estimate-cost",
        ),
        (
            RefusedEndpoints(_BATCH, ("/batches", "/queue/submit", "/evaluation")),
            RefusedEndpoints(_TRAINS, ("/fine-tunes", "/rl/training-sessions", "/shaping/{}")),
            RefusedEndpoints(_RENTS, ("/compute/clusters", "/deployments", "/endpoints")),
            RefusedEndpoints("is billed by what no answer of it tells", ("/rerank", "/videos")),
        ),
        prefix=r"/v[12](?=/)",
    ),
    place_of=lambda _client: _AT_TOGETHER,
)
