"""What the functions of LiteLLM's are asked, as requests of the endpoints whose shape they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.providers.anthropic.messages import MESSAGES
from budgetguard.providers.base import Endpoint
from budgetguard.providers.cohere.endpoints import RERANK
from budgetguard.providers.json import field
from budgetguard.providers.litellm.calls import CHAT, LiteLLMCall
from budgetguard.providers.litellm.target import LiteLLMTarget, is_programs_own, package, target_of
from budgetguard.providers.methods import Sending
from budgetguard.providers.mistral.endpoints import OCR
from budgetguard.providers.openai.audio import SPEECH, TRANSCRIPTIONS
from budgetguard.providers.openai.embeddings import EMBEDDINGS
from budgetguard.providers.openai.images import EDITS, GENERATIONS, VARIATIONS
from budgetguard.providers.openai.responses import COMPACT, RESPONSES
from budgetguard.providers.request import with_files

Said = Mapping[str, Any]

# With these nothing is sent.
_MOCKED: Final = ("mock_response", "mock_tool_calls", "mock_timeout")
# What LiteLLM keeps for itself, and what may be large and is no part of the request.
_NOT_SENT: Final = frozenset(
    {
        "client",
        "litellm_logging_obj",
        "litellm_metadata",
        "logger_fn",
        "metadata",
        "model_info",
        "model_list",
        "proxy_server_request",
        "shared_session",
        "timeout",
    }
)


def chat(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `completion`."""
    said = sending.arguments
    target = _target(said, *_MOCKED)
    if target is None:
        return None
    body = _body(said)
    if isinstance(body.get("response_format"), type):
        schema: object = getattr(body["response_format"], "model_json_schema", dict)()
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    asks = bool(body.get("stream")) and _may_ask_usage(said, target)
    if asks:
        _ask_for_usage(sending)
    call = _call(sending, target, CHAT, body, cap=True)
    call.hides_usage = asks
    return call


def embedding(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `embedding`."""
    return _simple(sending, EMBEDDINGS, "mock_response")


def response(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `responses`.

    Raises:
        ConfigurationError: it is to be answered in the background.
    """
    said = sending.arguments
    if said.get("background") is True and said.get("mock_response") is None:
        raise ConfigurationError(
            "litellm's responses in the background are asked for later, which budgetguard does not see: "
            "call without background=True, or call OpenAI's own client"
        )
    target = _target(said, "mock_response")
    return None if target is None else _call(sending, target, RESPONSES, _body(said), cap=True)


def compacted(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `compact_responses`."""
    return _simple(sending, COMPACT)


def message(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `anthropic_messages`."""
    return _simple(sending, MESSAGES, "mock_response")


def image(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `image_generation`."""
    return _simple(sending, GENERATIONS, "mock_response", default="dall-e-2")


def image_edit(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `image_edit`."""
    return _simple(sending, EDITS, "mock_response", files=("image", "mask"))


def image_variation(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `image_variation`."""
    return _simple(sending, VARIATIONS, "mock_response", files=("image",), default="dall-e-2")


def transcription(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `transcription`."""
    return _simple(sending, TRANSCRIPTIONS, files=("file",))


def speech(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `speech`."""
    return _simple(sending, SPEECH, content=lambda answer: getattr(answer, "content", answer))


def rerank(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `rerank`."""
    return _simple(sending, RERANK)


def ocr(sending: Sending) -> LiteLLMCall | None:
    """Read a call of `ocr`."""
    return _simple(sending, OCR)


def ocr_of_rust(sending: Sending) -> LiteLLMCall | None:
    """Read a call of the `ocr` that Rust answers, whose parameters are not named."""
    said = sending.arguments
    if said.get("aocr"):
        return None  # it calls its async sibling
    said = {**dict(zip(("model", "document"), said.get("args", ()), strict=False)), **said}
    return _simple(replace(sending, arguments=said), OCR)


def _simple(
    sending: Sending,
    endpoint: Endpoint,
    *mocked: str,
    files: tuple[str, ...] = (),
    default: str | None = None,
    content: Callable[[Any], object] = lambda answer: answer,
) -> LiteLLMCall | None:
    said = sending.arguments
    if default is not None and said.get("model") is None:
        said = {**said, "model": default}
    target = _target(said, *mocked)
    if target is None:
        return None
    body: Said = _body(said)
    if files:
        given = [(name, one) for name in files for one in _listed(said.get(name))]
        body = with_files({name: value for name, value in body.items() if name not in files}, given)
    return _call(sending, target, endpoint, body, content=content)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _target(said: Said, *mocked: str) -> LiteLLMTarget | None:
    """Return whom a call asks; None if it sends nothing, or if what it sends is the program's own."""
    if any(said.get(name) not in (None, False) for name in mocked):
        return None
    target = target_of(said)
    return None if is_programs_own(target.provider) else target


def _call(
    sending: Sending,
    target: LiteLLMTarget,
    endpoint: Endpoint,
    body: Said,
    *,
    cap: bool = False,
    content: Callable[[Any], object] = lambda answer: answer,
) -> LiteLLMCall:
    def rewrite(changed: Said) -> None:
        names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
        sending.changes.update({name: changed[name] for name in names if changed.get(name) is not None})
        if changed.get("model") != body.get("model"):
            sending.changes["model"] = changed["model"]

    return LiteLLMCall(
        target,
        endpoint,
        body,
        sending.arguments,
        sending.settings,
        content=content,
        rewrite=rewrite if cap else None,
    )


def _body(said: Said) -> dict[str, Any]:
    """Return a call's arguments as a request, with what its client is to add to the body."""
    extra = said.get("extra_body")
    body = {name: value for name, value in said.items() if value is not None and name not in _NOT_SENT}
    return {**body, **extra} if isinstance(extra, Mapping) else body


def _may_ask_usage(said: Said, target: LiteLLMTarget) -> bool:
    """Whether a stream would report no usage, and its provider takes the question for it."""
    if field(said.get("stream_options"), "include_usage") is not None or said.get("text_completion"):
        return False
    litellm = package()
    known = {"openai", "custom_openai", "azure", *getattr(litellm, "openai_compatible_providers", ())}
    if target.provider not in known:
        return False
    try:
        takes = litellm.get_supported_openai_params(model=target.model, custom_llm_provider=target.provider)
    except Exception:  # noqa: BLE001 - then it is not known to
        return False
    return "stream_options" in (takes or ())


def _ask_for_usage(sending: Sending) -> None:
    """Have the provider report the usage of a stream, without LiteLLM's handing it on."""
    said = sending.arguments
    options = said.get("stream_options")
    options = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
    extra = said.get("extra_body")
    extra = dict(extra) if isinstance(extra, Mapping) else {}
    if "stream_options" not in extra:
        sending.changes["extra_body"] = {**extra, "stream_options": options}
