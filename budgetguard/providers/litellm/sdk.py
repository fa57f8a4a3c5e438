"""The row of the `litellm` package in the table of SDKs.

Each attempt is guarded in the code of the function inside all of LiteLLM's decorators: behind its caches,
and anew for every retry and every fallback. What is refused there is carried out to where the program called,
past all that would map it, retry it, or ask another model.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from budgetguard.engine.context import innermost_call
from budgetguard.providers.carrying import aland, land
from budgetguard.providers.litellm import cohere, requests
from budgetguard.providers.litellm.calls import LiteLLMCall
from budgetguard.providers.methods import Method, MethodSdk, RequestOf, Sending, Style, note_failed_try
from budgetguard.providers.table import EndpointTable

_MAIN: Final = "litellm.main"
_MESSAGES: Final = (
    "litellm.llms.anthropic.messages.native.handler",
    "litellm.llms.anthropic.experimental_pass_through.messages.handler",
)
# (module, function, how a call of it is read, parameters that it must have, style). A sync one returns a
# coroutine where its async sibling has called it.
_ATTEMPTS: Final[tuple[tuple[str, str, RequestOf, tuple[str, ...], Style], ...]] = (
    (_MAIN, "completion", requests.chat, ("model", "messages"), "call"),
    (_MAIN, "embedding", requests.embedding, ("model", "input"), "call"),
    (_MAIN, "transcription", requests.transcription, ("model", "file"), "call"),
    (_MAIN, "speech", requests.speech, ("model", "input"), "call"),
    ("litellm.responses.main", "responses", requests.response, ("model", "input"), "call"),
    ("litellm.responses.main", "compact_responses", requests.compacted, ("model", "input"), "call"),
    ("litellm.images.main", "image_generation", requests.image, ("prompt", "model"), "call"),
    ("litellm.images.main", "image_edit", requests.image_edit, ("prompt", "model"), "call"),
    ("litellm.images.main", "image_variation", requests.image_variation, ("image", "model"), "call"),
    ("litellm.rerank_api.main", "rerank", requests.rerank, ("model", "query", "documents"), "call"),
    *(
        (module, "anthropic_messages_handler", requests.message, ("model", "messages"), "call")
        for module in _MESSAGES
    ),
    # Older ones are Python's, and newer ones Rust's.
    ("litellm.ocr.main", "ocr", requests.ocr, ("model", "document"), "call"),
    ("litellm.ocr.main", "aocr", requests.ocr, ("model", "document"), "coroutine"),
    ("litellm.ocr.dispatch", "ocr", requests.ocr_of_rust, (), "call"),
    ("litellm.ocr.dispatch", "aocr", requests.ocr_of_rust, (), "coroutine"),
)
_REQUIRED: Final = frozenset(
    {"completion", "embedding", "responses", "image_generation", "transcription", "speech"}
)

_LIVE: Final = "opens a connection through which budgetguard does not see what is billed"
_MANY: Final = "runs many requests, whose cost no answer of it tells"
_TRAINS: Final = "trains a model, for which there is no price here"
_UNTOLD: Final = "is billed by what no answer of it tells"
_AGENTS: Final = "runs models where budgetguard does not see what they spend"
_GEMINI: Final = "asks Gemini in its own shape, which budgetguard reads of the google-genai package only"
# (module, function) -> why it is refused. Those that are async alone are named as such.
_REFUSED: Final[Mapping[str, Mapping[str, str]]] = {
    "litellm.assistants.main": {"run_thread": _AGENTS, "run_thread_stream": _AGENTS, "arun_thread": _AGENTS},
    "litellm.batches.main": {"create_batch": _MANY},
    "litellm.fine_tuning.main": {"create_fine_tuning_job": _TRAINS},
    "litellm.realtime_api.main": {
        "_arealtime": _LIVE,
        "arealtime_calls": _LIVE,
        "arealtime_translation_calls": _LIVE,
        "acreate_realtime_client_secret": _LIVE,
        "acreate_realtime_transcription_session": _LIVE,
        "acreate_realtime_translation_client_secret": _LIVE,
    },
    "litellm.responses.main": {"_aresponses_websocket": _LIVE},
    "litellm.videos.main": dict.fromkeys(
        ("video_generation", "video_remix", "video_edit", "video_extension", "video_create_character"),
        _UNTOLD,
    ),
    "litellm.search.main": {"search": _UNTOLD},
    "litellm.containers.main": {"create_container": _UNTOLD},
    "litellm.evals.main": {"create_run": _AGENTS},
    "litellm.interactions.main": {"create": _GEMINI},
    "litellm.google_genai.main": {
        "generate_content": _GEMINI,
        "generate_content_stream": _GEMINI,
        "agenerate_content_stream": _GEMINI,
    },
    "litellm.passthrough.main": {"llm_passthrough_route": _AGENTS},
    "litellm.extraction.main": {"extraction": _UNTOLD},
    "litellm.decisions.main": {"decisions": _UNTOLD},
    "litellm.systemone.main": {"systemone": _UNTOLD},
    "litellm.sandbox.main": dict.fromkeys(
        ("acreate_sandbox", "arun_code", "acode_interpreter_tool"), _UNTOLD
    ),
}
_TABLE: Final = EndpointTable((), (), ())

# What programs call, from which refusals land: the functions above with their async siblings, and those that
# call them again.
_ENTRIES: Final[Mapping[str, tuple[str, ...]]] = {
    _MAIN: (
        "completion",
        "acompletion",
        "completion_with_retries",
        "acompletion_with_retries",
        "responses_with_retries",
        "aresponses_with_retries",
        "text_completion",
        "atext_completion",
        "embedding",
        "aembedding",
        "transcription",
        "atranscription",
        "speech",
        "aspeech",
        "adapter_completion",
        "aadapter_completion",
    ),
    "litellm.chat_completions.dispatch": ("completion", "acompletion"),
    "litellm.embeddings.dispatch": ("embedding", "aembedding"),
    "litellm.responses.dispatch": ("responses", "aresponses"),
    "litellm.responses.main": ("responses", "aresponses", "compact_responses", "acompact_responses"),
    "litellm.messages.dispatch": ("anthropic_messages", "anthropic_messages_handler"),
    **dict.fromkeys(_MESSAGES, ("anthropic_messages",)),
    "litellm.images.main": (
        "image_generation",
        "aimage_generation",
        "image_edit",
        "aimage_edit",
        "image_variation",
        "aimage_variation",
    ),
    "litellm.rerank_api.main": ("rerank", "arerank"),
    "litellm.ocr.main": ("ocr", "aocr"),
    "litellm.rag.main": ("query", "aquery", "ingest", "aingest"),
}
# Methods of a router's that ask models, by the names that programs call them by.
_ROUTED: Final = frozenset(
    {
        "completion",
        "acompletion",
        "text_completion",
        "atext_completion",
        "embedding",
        "aembedding",
        "responses",
        "aresponses",
        "image_generation",
        "aimage_generation",
        "image_edit",
        "aimage_edit",
        "transcription",
        "atranscription",
        "speech",
        "aspeech",
        "rerank",
        "arerank",
        "anthropic_messages",
        "aanthropic_messages",
        "aadapter_completion",
        "abatch_completion",
        "abatch_completion_one_model_multiple_requests",
        "abatch_completion_fastest_response",
        "schedule_acompletion",
        "schedule_atext_completion",
        "ocr",
        "aocr",
        "call",
    }
)


def _landing(function: Callable[..., Any], _sender: Any, args: Any, kwargs: Any) -> Any:
    """Call a function from which refusals land, and await it where it is async."""
    inner = getattr(function, "func", function)  # of a method, with its object
    return (aland if inspect.iscoroutinefunction(inner) else land)(function, args, kwargs)


def _attribute(get: Callable[..., Any], _sender: Any, args: Any, kwargs: Any) -> Any:
    """Return an attribute of a router's; of a method that asks models, one from which refusals land."""
    found = get(*args, **kwargs)
    name = args[0] if args else kwargs.get("name")
    return _landing_from(found) if name in _ROUTED and callable(found) else found


def _made(make: Callable[..., Any], _sender: Any, args: Any, kwargs: Any) -> Any:
    """Return a function that a router makes for itself, as one from which refusals land."""
    return _landing_from(make(*args, **kwargs))


def _landing_from(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):
        return _async_from(function)
    return lambda *args, **kwargs: _landed(function, args, kwargs)


def _async_from(method: Callable[..., Any]) -> Callable[..., Any]:
    async def asked(*args: Any, **kwargs: Any) -> Any:
        return await aland(method, args, kwargs)

    return asked


def _landed(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call what may return something to await, from which refusals land as well."""
    answer = land(function, args, kwargs)
    return aland(_itself, (answer,), {}) if inspect.iscoroutine(answer) else answer


async def _itself(coroutine: Any) -> Any:
    return await coroutine


def _on_python(_might: Callable[..., Any], _sender: Any, _args: Any, _kwargs: Any) -> bool:
    """Say that no call goes past Python where it need not: what Rust sends, nobody sees here."""
    return False


def _refuse(name: str, why: str, sending: Sending) -> None:
    """Refuse a call of a function whose cost is not read.

    Raises:
        UnknownEndpointError: it may cost money, and the user does not allow it.
    """
    _TABLE.check_allowed("CALL", f"/litellm/{name}", sending.settings.allow_endpoints, why)


def _note_retry(pause: Callable[..., Any], _client: Any, args: Any, kwargs: Any) -> Any:
    """Count a lost try of a client that LiteLLM sends by, where that deals with what the try has raised."""
    if kwargs.get("response") is None:
        note_failed_try(sys.exception())
    return pause(*args, **kwargs)


def _about_to_send(note: Callable[..., Any], _logging: Any, args: Any, kwargs: Any) -> Any:
    """Note that an attempt is sent from now on: LiteLLM tells its loggers so, whatever it sends by."""
    call = innermost_call()
    if call is not None and isinstance(call.request, LiteLLMCall):
        call.request.is_sent = True
    return note(*args, **kwargs)


def _methods() -> Iterable[Method]:
    # The inmost functions first: what lands stands around them.
    for module, name, request, parameters, style in _ATTEMPTS:
        yield Method(
            owner="",
            name=name,
            style=style,
            parameters=parameters,
            request=request,
            module=module,
            in_code=True,
            optional=name not in _REQUIRED,
        )
    for module, refused in _REFUSED.items():
        for name, why in refused.items():
            yield Method(
                owner="",
                name=name,
                style="call",
                parameters=(),
                request=partial(_refuse, name, why),
                module=module,
                in_code=True,
                optional=True,
            )
    siblings = {module: (*names, *(f"a{name}" for name in names)) for module, names in _REFUSED.items()}
    for module, names in (*_ENTRIES.items(), *siblings.items()):
        for name in names:
            yield Method(
                owner="",
                name=name,
                style="call",
                parameters=(),
                instead=_landing,
                module=module,
                in_code=True,
                optional=True,
            )
    # Older routers have methods, and make some of them for each router.
    for name in _ROUTED:
        yield Method(
            owner="Router",
            name=name,
            style="call",
            parameters=(),
            instead=_landing,
            module="litellm.router",
            in_code=True,
            optional=True,
        )
    yield Method(
        owner="Router",
        name="factory_function",
        style="call",
        parameters=(),
        instead=_made,
        module="litellm.router",
        in_code=True,
        optional=True,
    )
    yield Method(
        owner="Router",
        name="__getattribute__",
        style="call",
        parameters=(),
        instead=_attribute,
        module="litellm.router",
        in_code=True,
        optional=True,
    )
    yield Method(
        owner="Logging",
        name="pre_call",
        style="call",
        parameters=(),
        instead=_about_to_send,
        module="litellm.litellm_core_utils.litellm_logging",
        in_code=True,
    )
    yield Method(
        owner="",
        name="rust_might_handle",
        style="call",
        parameters=(),
        instead=_on_python,
        module="litellm.rust_bridge.catalog",
        in_code=True,
        optional=True,
    )


def _retries() -> Iterable[Method]:
    """Yield where a try of one attempt is sent again, by an OpenAI client or by LiteLLM's own of HTTP."""
    for module, owner, name in (
        ("openai._base_client", "SyncAPIClient", "_sleep_for_retry"),
        ("openai._base_client", "AsyncAPIClient", "_sleep_for_retry"),
        ("litellm.llms.custom_httpx.http_handler", "AsyncHTTPHandler", "single_connection_post_request"),
    ):
        yield Method(
            owner=owner,
            name=name,
            style="call",
            parameters=(),
            instead=_note_retry,
            module=module,
            in_code=True,
            optional=True,
        )


LITELLM: Final = MethodSdk(
    name="litellm",
    package="litellm",
    distribution="litellm",
    module=_MAIN,
    oldest=(1, 100, 0),
    too_new=(2,),
    methods=(*_methods(), *_retries(), *cohere.METHODS),
    carries=True,
)
