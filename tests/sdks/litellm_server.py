"""Every provider that LiteLLM asks in the tests, and the ways of asking them with it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import litellm

from .bedrock_server import USAGE as BEDROCK_USAGE
from .bedrock_server import bedrock
from .cohere_server import CHAT as COHERE
from .cohere_server import cohere_api
from .server import Answer, Arrived, sse
from .sound import SECONDS, recording
from .ways import ASYNC, ASYNC_STREAM, CALL, STREAM, Way

USAGE = {"prompt_tokens": 44, "completion_tokens": 5, "total_tokens": 49}
RESPONSE_USAGE = {"input_tokens": 44, "output_tokens": 5, "total_tokens": 49}
MESSAGES: Any = [{"role": "user", "content": "Say hello to everybody."}]
TEXT = ("Hel", "lo")
KEYS = {
    **{
        f"{name}_API_KEY": "test"
        for name in (
            "ANTHROPIC",
            "AZURE",
            "COHERE",
            "DEEPINFRA",
            "DEEPSEEK",
            "GEMINI",
            "GROQ",
            "MISTRAL",
            "OPENAI",
            "TOGETHERAI",
        )
    },
    "AZURE_API_VERSION": "2024-10-21",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION_NAME": "us-east-1",
}
os.environ.update(KEYS)
# Parts of its proxy, without which LiteLLM makes no stream of Anthropic's messages.
PROXY = ("fastapi", "orjson", "soundfile", "backoff")


def providers(arrived: Arrived) -> Answer:
    """Answer a request as its provider does, by its path."""
    path, body = arrived.path, arrived.body or {}
    if path.startswith("/model/"):
        return bedrock(arrived)
    for end, answer in _BY_PATH.items():
        if end in path:
            return answer(body, arrived)
    answered = cohere_api(arrived)
    if isinstance(answered.body, list):
        # LiteLLM does not ask for server-sent events, and reads a line of JSON for each.
        lines = [piece.removeprefix(b"data: ")[:-1] for piece in answered.body if b"[DONE]" not in piece]
        return Answer(lines, headers={"content-type": "application/stream+json"})
    return answered


def _chat(body: Any, _: Arrived) -> Answer:
    head = {"id": "chat-1", "object": "chat.completion", "created": 1, "model": body.get("model")}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(TEXT)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Answer({**head, "choices": [choice], "usage": USAGE, "service_tier": "default"})
    head = {**head, "object": "chat.completion.chunk"}
    deltas = [{"role": "assistant", "content": one} for one in TEXT]
    chunks = [{**head, "choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if str(body["model"]).startswith(("gpt", "my-")):
        # OpenAI tells only who asks.
        if (body.get("stream_options") or {}).get("include_usage"):
            chunks.append({**head, "choices": [], "usage": USAGE})
    else:
        chunks[-1]["usage"] = USAGE
    return Answer(sse(chunks, done=True))


def _completion(body: Any, _: Arrived) -> Answer:
    choice = {"index": 0, "text": "Hello", "finish_reason": "stop"}
    return Answer(
        {
            "id": "c",
            "object": "text_completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": USAGE,
        }
    )


def _message(body: Any, _: Arrived) -> Answer:
    usage = {
        "input_tokens": 44,
        "output_tokens": 1,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_sequence": None,
        "usage": usage,
    }
    if not body.get("stream"):
        content = [{"type": "text", "text": "Hello"}]
        return Answer(
            {**message, "content": content, "stop_reason": "end_turn", "usage": {**usage, "output_tokens": 5}}
        )
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return Answer([b"event: " + event["type"].encode() + b"\n" + sse([event])[0] for event in events])


def _gemini(_: Any, arrived: Arrived) -> Answer:
    content = {"role": "model", "parts": [{"text": "Hello"}]}
    usage = {"promptTokenCount": 44, "candidatesTokenCount": 5, "totalTokenCount": 49}
    answer = {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
    }
    return Answer(sse([answer]) if "stream" in arrived.path else answer)


def _embedding(body: Any, _: Arrived) -> Answer:
    vector = {"object": "embedding", "index": 0, "embedding": [0.1]}
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return Answer({"object": "list", "data": [vector], "model": body["model"], "usage": usage})


def _response(body: Any, _: Arrived) -> Answer:
    said = {"type": "output_text", "text": "Hello", "annotations": []}
    message = {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": [said]}
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": RESPONSE_USAGE,
    }
    if not body.get("stream"):
        return Answer(response)
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    events = [
        {"type": "response.created", "sequence_number": 0, "response": begun},
        {"type": "response.output_text.delta", "sequence_number": 1, **place, "delta": "Hello"},
        {"type": "response.completed", "sequence_number": 2, "response": response},
    ]
    return Answer(sse(events))


def _ollama(body: Any, _: Arrived) -> Answer:
    message = {"role": "assistant", "content": "Hello"}
    counts = {"prompt_eval_count": 44, "eval_count": 5}
    head = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z", "message": message}
    return Answer({**head, "done": True, "done_reason": "stop", **counts})


def _ocr(_: Any, __: Arrived) -> Answer:
    size = {"dpi": 200, "height": 10, "width": 10}
    page = {"index": 0, "markdown": "Hello", "images": [], "dimensions": size}
    told = {"pages_processed": 2, "doc_size_bytes": 1}
    return Answer({"pages": [page], "model": "mistral-ocr-2512", "usage_info": told})


_DRAWN = {
    "input_tokens": 10,
    "output_tokens": 272,
    "total_tokens": 282,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 10},
}
_BY_PATH: dict[str, Callable[[Any, Arrived], Answer]] = {
    "/chat/completions": _chat,
    "/completions": _completion,
    "/v1/messages": _message,
    "enerateContent": _gemini,
    "/embeddings": _embedding,
    "/responses": _response,
    "/images/": lambda _body, _arrived: Answer({"created": 1, "data": [{"b64_json": "AA"}], "usage": _DRAWN}),
    "/transcriptions": lambda _body, _arrived: Answer(
        {"text": "Hello", "usage": {"type": "duration", "seconds": SECONDS}}
    ),
    "/audio/speech": lambda _body, _arrived: Answer(
        b"ID3" + b"\0" * 99, headers={"content-type": "audio/mpeg"}
    ),
    "/ocr": _ocr,
    "/api/chat": _ollama,
}

# Nanos for (input, output) tokens, at USD per million: gpt-4o-mini 0.15 and 0.60, claude-sonnet-4-5 3 and 15,
# gemini-2.5-flash 0.30 and 2.50, mistral-small-latest 0.15 and 0.60, deepseek-chat 0.27 and 1.10,
# Llama-3.3-70B-Instruct-Turbo 1.04 and 1.04, command-a-03-2025 2.50 and 10.
MINI = 44 * 150 + 5 * 600
SONNET = 44 * 3_000 + 5 * 15_000
# LiteLLM's table has 0.23 and 0.40 for this one; no other list has any price.
DEEPINFRA = 44 * 230 + 5 * 400
NOVA = BEDROCK_USAGE["inputTokens"] * 60 + BEDROCK_USAGE["outputTokens"] * 240

# Model -> what it bills, and where its API is below the server's address.
MODELS: dict[str, tuple[int, Callable[[str], dict[str, Any]]]] = {
    "openai/gpt-4o-mini": (MINI, lambda url: {"api_base": f"{url}/v1"}),
    "azure/my-deployment": (MINI, lambda url: {"api_base": url, "base_model": "azure/gpt-4o-mini"}),
    "anthropic/claude-sonnet-4-5": (SONNET, lambda url: {"api_base": url}),
    "gemini/gemini-2.5-flash": (44 * 300 + 5 * 2_500, lambda url: {"api_base": url}),
    "mistral/mistral-small-latest": (MINI, lambda url: {"api_base": f"{url}/v1"}),
    "deepseek/deepseek-chat": (44 * 270 + 5 * 1_100, lambda url: {"api_base": url}),
    "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo": (
        49 * 1_040,
        lambda url: {"api_base": f"{url}/v1"},
    ),
    # Its answers tell what was read, too, which is more than Cohere bills.
    "cohere_chat/command-a-03-2025": (COHERE, lambda url: {"api_base": f"{url}/v2/chat"}),
    "deepinfra/meta-llama/Llama-3.3-70B-Instruct": (DEEPINFRA, lambda url: {"api_base": f"{url}/v1"}),
    "bedrock/converse/amazon.nova-lite-v1:0": (NOVA, lambda url: {"aws_bedrock_runtime_endpoint": url}),
}


def router(url: str) -> Any:
    """Return a router with one deployment, which would try four times."""
    deployment = {"model": "openai/gpt-4o-mini", "api_base": f"{url}/v1", "api_key": "test"}
    return litellm.Router(
        model_list=[{"model_name": "mini", "litellm_params": deployment}], num_retries=3, retry_after=0
    )


def ways() -> Iterator[Way]:
    """Yield every way."""
    for model, (billed, where) in MODELS.items():
        provider = model.partition("/")[0]
        yield from _both(f"Chat: {provider}", "completion", _asking(model, where), billed, streams=True)
    for column, name in ((CALL, "completion"), (ASYNC, "acompletion")):
        yield Way("Router", column, name, _routed(name, stream=False), MINI)
    for column, name in ((STREAM, "completion"), (ASYNC_STREAM, "acompletion")):
        yield Way("Router", column, name, _routed(name, stream=True), MINI)
    openai = MODELS["openai/gpt-4o-mini"][1]
    mistral = MODELS["mistral/mistral-small-latest"][1]
    text = {"input": "Say hello.", "max_output_tokens": 20}
    yield from _both(
        "Responses", "responses", _asking("openai/gpt-4o-mini", openai, text), MINI, streams=True
    )
    yield from _both(
        "Responses over chat",
        "responses",
        _asking("mistral/mistral-small-latest", mistral, text),
        MINI,
        streams=True,
    )
    yield from _both(
        "Chat over responses", "completion", _asking("openai/responses/gpt-4o-mini", openai), MINI
    )
    prompt = {"prompt": "Say hello.", "max_tokens": 20}
    yield from _both(
        "Text completions",
        "text_completion",
        _asking("openai/gpt-3.5-turbo-instruct", openai, prompt),
        44 * 1_500 + 5 * 2_000,
    )
    yield from _both(
        "Embeddings",
        "embedding",
        _asking("openai/text-embedding-3-small", openai, {"input": ["Hello there"] * 4}),
        7 * 20,
    )
    drawn = {"prompt": "a dot", "quality": "low", "size": "1024x1024"}
    # gpt-image-1: text in 5, images out 40.
    yield from _both(
        "Images", "image_generation", _asking("openai/gpt-image-1", openai, drawn), 10 * 5_000 + 272 * 40_000
    )
    picture = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    yield from _both(
        "Image edits",
        "image_edit",
        lambda url: {**_asking("openai/gpt-image-1", openai, drawn)(url), "image": io.BytesIO(picture)},
        10 * 5_000 + 272 * 40_000,
    )
    # whisper-1: $0.006 a minute; tts-1: $15 a million characters.
    yield from _both(
        "Transcriptions",
        "transcription",
        lambda url: {
            **_asking("openai/whisper-1", openai, {})(url),
            "file": ("a.wav", io.BytesIO(recording())),
        },
        SECONDS * 100_000,
    )
    yield from _both(
        "Speech", "speech", _asking("openai/tts-1", openai, {"input": "Hello", "voice": "alloy"}), 5 * 15_000
    )
    ranked = {"query": "x", "documents": ["a", "b"]}
    yield from _both(
        "Rerank", "rerank", _asking("cohere/rerank-v3.5", lambda url: {"api_base": url}, ranked), 2_000_000
    )
    yield Way(
        "Anthropic's messages",
        ASYNC,
        "anthropic_messages",
        lambda url: litellm.anthropic_messages(
            model="anthropic/claude-sonnet-4-5", messages=MESSAGES, max_tokens=20, api_base=url
        ),
        SONNET,
    )
    yield Way(
        "Anthropic's messages over chat",
        ASYNC,
        "anthropic_messages",
        lambda url: litellm.anthropic_messages(
            model="mistral/mistral-small-latest", messages=MESSAGES, max_tokens=20, **mistral(url)
        ),
        MINI,
    )
    if all(map(find_spec, PROXY)):
        yield Way("Anthropic's messages", ASYNC_STREAM, "anthropic_messages", _message_stream, SONNET)
    page = {"type": "document_url", "document_url": "https://example.com/a.pdf"}
    yield from _both(
        "OCR",
        "ocr",
        _asking("mistral/mistral-ocr-2512", mistral, {"document": page, "pages": [0, 1]}),
        4_000_000,
    )


async def _message_stream(url: str) -> Any:
    return await litellm.anthropic_messages(
        model="anthropic/claude-sonnet-4-5", messages=MESSAGES, max_tokens=20, api_base=url, stream=True
    )


_CHAT = {"messages": MESSAGES, "max_tokens": 20}


def _asking(
    model: str, where: Callable[[str], dict[str, Any]], asked: dict[str, Any] = _CHAT
) -> Callable[[str], dict[str, Any]]:
    return lambda url: {"model": model, **asked, **where(url)}


def _both(
    row: str, name: str, asked: Callable[[str], dict[str, Any]], billed: int, *, streams: bool = False
) -> Iterator[Way]:
    yield Way(row, CALL, name, lambda url: getattr(litellm, name)(**asked(url)), billed)
    yield Way(row, ASYNC, f"a{name}", lambda url: getattr(litellm, f"a{name}")(**asked(url)), billed)
    if streams:
        yield Way(row, STREAM, name, lambda url: getattr(litellm, name)(**asked(url), stream=True), billed)
        yield Way(
            row,
            ASYNC_STREAM,
            f"a{name}",
            lambda url: getattr(litellm, f"a{name}")(**asked(url), stream=True),
            billed,
        )


def _routed(name: str, *, stream: bool) -> Callable[[str], Any]:
    more = {"stream": True} if stream else {}
    return lambda url: getattr(router(url), name)(model="mini", messages=MESSAGES, max_tokens=20, **more)
