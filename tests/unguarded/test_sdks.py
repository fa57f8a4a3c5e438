"""What an SDK without a guard makes of a refusal: none sends anything, and none tries for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from budgetguard import UnguardedCallError

from .conftest import Watch
from .server import CountingServer

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
BEDROCK: Any = {
    "region_name": "us-east-1",
    "aws_access_key_id": "test",
    "aws_secret_access_key": "test",
}
CONVERSE: Any = {
    "modelId": "amazon.nova-lite-v1:0",
    "messages": [{"role": "user", "content": [{"text": "Hello?"}]}],
}


def _chat(package: str, kind: str) -> Callable[[str], None]:
    def ask(url: str) -> None:
        module = pytest.importorskip(package)
        with getattr(module, kind)(api_key="x", base_url=url, max_retries=1, **_more(package)) as client:
            client.chat.completions.create(model="some-model", messages=MESSAGES)

    return ask


def _more(package: str) -> dict[str, Any]:
    return {"warm_tcp_connection": False} if package == "cerebras.cloud.sdk" else {}


def _anthropic(url: str) -> None:
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(api_key="x", base_url=url, max_retries=1) as client:
        client.messages.create(model="some-model", max_tokens=9, messages=MESSAGES)


def _boto3(url: str) -> None:
    client = pytest.importorskip("boto3").client("bedrock-runtime", endpoint_url=url, **BEDROCK)
    try:
        client.converse(**CONVERSE)
    finally:
        client.close()


def _aiobotocore(url: str) -> None:
    session = pytest.importorskip("aiobotocore.session").get_session()

    async def main() -> None:
        async with session.create_client("bedrock-runtime", endpoint_url=url, **BEDROCK) as client:
            await client.converse(**CONVERSE)

    asyncio.run(main())


SDKS: dict[str, Callable[[str], None]] = {
    "openai": _chat("openai", "OpenAI"),
    "groq": _chat("groq", "Groq"),
    "cerebras": _chat("cerebras.cloud.sdk", "Cerebras"),
    "together": _chat("together", "Together"),
    "anthropic": _anthropic,
    "boto3": _boto3,
    "aiobotocore": _aiobotocore,
}


@pytest.mark.parametrize("sdk", SDKS)
def test_a_refusal_ends_the_call_of_an_sdk_and_says_why(
    sdk: str, watch: Watch, server: CountingServer
) -> None:
    watching = watch(server.host, unguarded="block")
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each has its own
        SDKS[sdk](f"http://{server.host}")
    error: BaseException | None = raised.value
    while error is not None and not isinstance(error, UnguardedCallError):
        error = error.__cause__ or error.__context__
    assert error is not None
    assert error.address == server.host
    assert (server.connections, server.received) == (0, b"")
    assert watching.addresses == [server.host]
