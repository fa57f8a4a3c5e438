"""OpenAI's endpoints: what costs money and how it is read, what is free, what is refused and why.

All else is refused by name. To teach an endpoint, add a row to `PRICED`; its functions get the request's
JSON body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from budgetguard.core.usage import Reported
from budgetguard.engine.projection import (
    Projection,
    completion_choices,
    project_chat,
    project_completion,
    project_embeddings,
    project_response,
)
from budgetguard.pricing.rates import Rates
from budgetguard.providers.accumulators import StreamTally
from budgetguard.providers.base import Body, Endpoint, Polled, Refused
from budgetguard.providers.openai.assistants import RunTally, prepare_run, project_run, read_run, read_runs
from budgetguard.providers.openai.batches import (
    batch_ttl,
    prepare_batch,
    project_batch,
    read_batch,
    read_batches,
    told_of_batch,
)
from budgetguard.providers.openai.input_counts import CountedBody, prepare_count
from budgetguard.providers.openai.media import MEDIA
from budgetguard.providers.openai.responses import ResponseTally, read_response, runs_in_background
from budgetguard.providers.table import EndpointTable
from budgetguard.tokens.requests import given


def _chat(
    body: Body,
    model: str,
    rates: Rates,
    learned: int | None,
    learned_input: Callable[[str], int | None],
) -> Projection:
    return project_chat(body, model, rates, learned_cap=learned, learned_input=learned_input)


def _embeddings(body: Body, model: str, rates: Rates, _learned: int | None) -> Projection:
    return project_embeddings(body, model, rates)


def _response(
    body: Body,
    model: str,
    rates: Rates,
    learned: int | None,
    learned_input: Callable[[str], int | None],
) -> Projection:
    counted = body.input_tokens if isinstance(body, CountedBody) else None
    return project_response(
        body, model, rates, learned_cap=learned, learned_input=learned_input, counted=counted
    )


def _completion(body: Body, model: str, rates: Rates, _learned: int | None) -> Projection:
    return project_completion(body, model, rates)


def _one_response(answer: object) -> tuple[Reported]:
    return (read_response(answer),)


def _one_batch(answer: object) -> tuple[Reported]:
    return (read_batch(answer),)


def _one_run(answer: object) -> tuple[Reported]:
    return (read_run(answer),)


def _background_ttl(body: Body) -> int:
    return _BACKGROUND_TTL if runs_in_background(body) else 0


def _ask_for_usage(body: Body) -> Mapping[str, object]:
    asked = given(body, "stream_options")
    asked = dict(asked) if isinstance(asked, Mapping) else {}
    if asked.get("include_usage") is True:
        return {}
    return {"stream_options": {**asked, "include_usage": True}}


def _chat_cap(provider: str) -> str:
    # OpenAI's reasoning models refuse `max_tokens`; many other servers know nothing else.
    return "max_completion_tokens" if provider in ("openai", "azure") else "max_tokens"


def _n(body: Body) -> int:
    return given(body, "n") or 1


# A day: what runs in the background is done long before, and whoever asks for it asks the same day. A run of
# an assistant expires 10 minutes after it began.
_BACKGROUND_TTL: Final = 24 * 60 * 60 * 1000

PRICED: Final = (
    Endpoint(
        "chat",
        "/chat/completions",
        _chat,
        choices=_n,
        tally=StreamTally,
        asking=_ask_for_usage,
        cap_at=_chat_cap,
        learns_input=True,
    ),
    Endpoint("embeddings", "/embeddings", _embeddings),
    Endpoint(
        "responses",
        "/responses",
        _response,
        read=read_response,
        tally=ResponseTally,
        least_ttl=_background_ttl,
        cap_at=lambda _provider: "max_output_tokens",
        count=prepare_count,
        learns_input=True,
    ),
    Endpoint("compact", "/responses/compact", _response, read=read_response, learns_input=True),
    Endpoint(
        "completions",
        "/completions",
        _completion,
        choices=completion_choices,
        tally=StreamTally,
        asking=_ask_for_usage,
    ),
    *MEDIA,
    Endpoint(
        "batches",
        "/batches",
        project_batch,
        read=read_batch,
        least_ttl=batch_ttl,
        prepare=prepare_batch,
    ),
    *(
        Endpoint(
            "runs",
            path,
            project_run,
            read=read_run,
            tally=RunTally,
            least_ttl=lambda _body: _BACKGROUND_TTL,
            prepare=prepare_run,
        )
        for path in ("/threads/{}/runs", "/threads/runs")
    ),
)

# Asking for answers that come later: free, but it tells what those answers cost.
POLLED: Final = (
    Polled("GET", "/responses/{}", _one_response, ResponseTally),
    Polled("POST", "/responses/{}/cancel", _one_response),
    Polled("GET", "/batches", read_batches, told=told_of_batch),
    Polled("GET", "/batches/{}", _one_batch, told=told_of_batch),
    Polled("POST", "/batches/{}/cancel", _one_batch, told=told_of_batch),
    Polled("GET", "/threads/{}/runs", read_runs),
    Polled("GET", "/threads/{}/runs/{}", _one_run),
    Polled("POST", "/threads/{}/runs/{}/cancel", _one_run),
    Polled("POST", "/threads/{}/runs/{}/submit_tool_outputs", _one_run, RunTally),
)

# What costs money that nobody can project; a path that is in no table is refused as well, without a reason.
REFUSED: Final = (
    Refused(
        "trains a model, for which there is no price here",
        ("/fine_tuning/jobs", "/fine_tuning/jobs/{}/resume", "/fine_tuning/alpha/graders/run"),
    ),
    Refused("has models called that it does not tell of", ("/evals/{}/runs",)),
    Refused(
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
    Refused(
        "names no model and no size, since those of the video that it starts from count, so that its price "
        "is not known before",
        ("/videos/{}/remix", "/videos/edits", "/videos/extensions"),
    ),
    Refused("rents by time and size, which no answer tells", ("/vector_stores", "/containers")),
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
    "/assistants",
    "/assistants/{}",
    "/threads",
    "/threads/{}",
    "/threads/{}/messages",
    "/threads/{}/messages/{}",
    "/threads/{}/runs/{}",
    "/threads/{}/runs/{}/cancel",
    # Goes on with a run that was held for when it was created.
    "/threads/{}/runs/{}/submit_tool_outputs",
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
