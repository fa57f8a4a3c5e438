"""LiteLLM's Router, over patched clients."""

from __future__ import annotations

import os
from typing import Any, Final

from .case import ASK, ASYNC_CALL, ASYNC_STREAM, CALL, MODEL, STREAM, TEXT, Case, Place, Way

_READ: Final = 9
_BODY: Final[Any] = {"model": "fast", "messages": [{"role": "user", "content": ASK}]}
_USAGE: Final[Any] = {"stream": True, "stream_options": {"include_usage": True}}


def _router(place: Place) -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    parameters = {"model": f"openai/{MODEL}", "api_base": place.base_url, "api_key": "test", "max_retries": 0}
    return litellm.Router(
        model_list=[{"model_name": "fast", "litellm_params": parameters}], num_retries=3, retry_after=0
    )


def _completion(place: Place) -> Any:
    return _router(place).completion(**_BODY).choices[0].message.content


def _stream(place: Place) -> Any:
    return list(_router(place).completion(**_BODY, **_USAGE))


def _cut(place: Place) -> None:
    stream = _router(place).completion(**_BODY, **_USAGE)
    for _, chunk in zip(range(_READ), stream, strict=False):
        assert chunk is not None


async def _acompletion(place: Place) -> Any:
    return (await _router(place).acompletion(**_BODY)).choices[0].message.content


async def _astream(place: Place) -> Any:
    return [chunk async for chunk in await _router(place).acompletion(**_BODY, **_USAGE)]


async def _acut(place: Place) -> None:
    stream = await _router(place).acompletion(**_BODY, **_USAGE)
    for _ in range(_READ):
        await anext(stream)


_WAYS: Final = (
    Way(CALL, "completion", _completion),
    Way(STREAM, "completion", _stream, _cut),
    Way(ASYNC_CALL, "acompletion", _acompletion),
    Way(ASYNC_STREAM, "acompletion", _astream, _acut),
)


CASES: Final = (
    Case("LiteLLM's Router", "litellm", "`patch_litellm()`", _WAYS, over="litellm"),
    Case("LiteLLM's Router", "litellm", "`patch_openai()`", _WAYS, over="openai", refusal=TEXT),
)
