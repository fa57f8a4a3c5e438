"""LiteLLM's proxy, in this process, with a client of openai's."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import openai

from .case import ASK, ASYNC_CALL, ASYNC_STREAM, CALL, MODEL, STREAM, TEXT, USER, Case, Place, Refusal, Way

KEY: Final = "sk-test"
GROUP: Final = "fast"
_READ: Final = 9
_PATIENCE: Final = 240


@cache
def _address() -> str:
    """Start the proxy, once in a process, and return its address."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    config = Path(tempfile.mkdtemp()) / "config.yaml"
    config.write_text(f"model_list: []\ngeneral_settings:\n  master_key: {KEY}\n")
    os.environ["WORKER_CONFIG"] = str(config)
    import uvicorn
    from litellm.proxy.proxy_server import app

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    threading.Thread(target=server.run, args=([listener],), daemon=True).start()
    until = time.monotonic() + _PATIENCE
    while not server.started:
        assert time.monotonic() < until, "LiteLLM's proxy did not start"
        time.sleep(0.05)
    return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def _proxy(place: Place) -> str:
    """Return the address of the proxy, whose group of models is this server's, under this guard."""
    address = _address()
    import litellm
    from litellm.proxy import proxy_server

    from budgetguard.integrations.litellm import BudgetLogger

    parameters = {"model": f"openai/{MODEL}", "api_base": place.base_url, "api_key": "test", "max_retries": 0}
    proxy_server.llm_router = litellm.Router(
        model_list=[{"model_name": GROUP, "litellm_params": parameters}], num_retries=0
    )
    others = [one for one in litellm.callbacks if not isinstance(one, BudgetLogger)]
    litellm.callbacks = [*others, BudgetLogger(place.guard, payer=lambda key, data: USER)]
    return address


def _client(place: Place) -> Any:
    client = openai.OpenAI(base_url=_proxy(place), api_key=KEY, max_retries=0)
    place.opened.append(client)
    return client


def _aclient(place: Place) -> Any:
    client = openai.AsyncOpenAI(base_url=_proxy(place), api_key=KEY, max_retries=0)
    place.opened.append(client)
    return client


_BODY: Final[Any] = {"model": GROUP, "messages": [{"role": "user", "content": ASK}]}


def _chat(place: Place) -> Any:
    return _client(place).chat.completions.create(**_BODY).choices[0].message.content


def _responses(place: Place) -> Any:
    return _client(place).responses.create(model=GROUP, input=ASK).output_text


def _stream(place: Place) -> Any:
    return list(_client(place).chat.completions.create(**_BODY, stream=True))


def _cut(place: Place) -> None:
    with _client(place).chat.completions.create(**_BODY, stream=True) as stream:
        for _, chunk in zip(range(_READ), stream, strict=False):
            assert chunk is not None
    _wait_until(lambda: not place.guard.balance(USER).held_nanos)


def _wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what the proxy does once it notices that its client is gone."""
    until = time.monotonic() + _PATIENCE
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


async def _achat(place: Place) -> Any:
    return (await _aclient(place).chat.completions.create(**_BODY)).choices[0].message.content


async def _astream(place: Place) -> Any:
    return [chunk async for chunk in await _aclient(place).chat.completions.create(**_BODY, stream=True)]


def _anthropic(place: Place, *, stream: bool) -> Any:
    import anthropic

    client = anthropic.Anthropic(base_url=_proxy(place).removesuffix("/v1"), api_key=KEY, max_retries=0)
    place.opened.append(client)
    asked: Any = {"model": GROUP, "max_tokens": 500, "messages": _BODY["messages"]}
    if not stream:
        return client.messages.create(**asked).content
    return list(client.messages.create(**asked, stream=True))


def _is_refused(error: BaseException) -> bool:
    return getattr(error, "status_code", None) == 402 and TEXT.fits(error)


CASES: Final = (
    Case(
        "LiteLLM's proxy",
        "litellm.proxy.proxy_server",
        "`BudgetLogger`",
        (
            Way(CALL, "chat", _chat),
            Way(CALL, "responses", _responses),
            Way(CALL, "messages", partial(_anthropic, stream=False)),
            Way(STREAM, "chat", _stream, _cut),
            Way(STREAM, "messages", partial(_anthropic, stream=True)),
            Way(ASYNC_CALL, "chat", _achat),
            Way(ASYNC_STREAM, "chat", _astream),
        ),
        alone=True,
        refusal=Refusal("status 402, with its text", _is_refused),
    ),
)
