"""Connections of gevent's greenlets and of uvloop's tasks: the guard's own, and those that go around it."""

from __future__ import annotations

import pytest

from tests.provider.server import OpenAIServer

from .conftest import Program

# The guard blocks whatever is not its own, and the host is looked up.
BEGIN = """
import asyncio, json, os, sys
import budgetguard
from budgetguard import UnguardedCallError
from openai import AsyncOpenAI, OpenAI

url = os.environ["OPENAI_BASE_URL"] = os.environ["OPENAI_BASE_URL"].replace("127.0.0.1", "localhost")
port = int(url.split(":")[2].partition("/")[0])
budgetguard.configure(
    unguarded="block", provider_hosts=[f"localhost:{port}", f"127.0.0.1:{port}"], user="u", default_budget=1
)
budgetguard.patch_openai()
told = []
budgetguard.on(lambda event: told.append(type(event).__name__))
ask = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 100}
"""


def test_greenlets(program: Program, provider: OpenAIServer) -> None:
    """gevent looks hosts up in native threads, which know nothing of the greenlet that asks."""
    pytest.importorskip("gevent")
    text = (
        """
from gevent import monkey
monkey.patch_all()
import gevent, urllib.request
"""
        + BEGIN
        + """
def guarded():
    with OpenAI(max_retries=0) as client:
        client.chat.completions.create(**ask)
    with OpenAI(max_retries=0) as client:
        return len(list(client.models.list())) > 0

def around():
    try:
        urllib.request.urlopen(f"{url}/models", timeout=20)
    except UnguardedCallError:
        return "refused"

jobs = [gevent.spawn(guarded if number % 2 else around) for number in range(8)]
gevent.joinall(jobs, timeout=60)
print(json.dumps([[job.value for job in jobs], told.count("Unguarded")]))
"""
    )
    assert program(text) == [["refused", True] * 4, 1]
    assert (provider.count("/v1/chat/completions"), provider.count("/v1/models")) == (4, 4)


def test_uvloop(program: Program, provider: OpenAIServer) -> None:
    """uvloop looks up and connects in C, where the interpreter tells of nothing."""
    pytest.importorskip("uvloop")
    text = (
        BEGIN
        + """
import uvloop

async def guarded():
    async with AsyncOpenAI(max_retries=0) as client:
        await client.chat.completions.create(**ask)
    async with AsyncOpenAI(max_retries=0) as client:
        return len([one async for one in client.models.list()]) > 0

async def streams():
    await asyncio.open_connection("localhost", port)

async def looked_up():
    await asyncio.get_running_loop().getaddrinfo(host="localhost", port=port)

async def by_number():
    await asyncio.open_connection("127.0.0.1", port)

async def aiohttp():
    import aiohttp
    async with aiohttp.ClientSession() as session, session.get(f"{url}/models"):
        pass

async def http():
    try:
        import httpx2 as library
    except ImportError:
        import httpx as library
    async with library.AsyncClient() as client:
        await client.get(f"{url}/models")

async def main():
    values = list(await asyncio.gather(*(guarded() for _ in range(4))))
    for around in streams, looked_up, by_number, aiohttp, http:
        try:
            await around()
        except UnguardedCallError as error:
            values.append(around.__name__)
    return values

print(json.dumps([uvloop.run(main()), told.count("Unguarded")]))
"""
    )
    ways = ["streams", "looked_up", "by_number", "aiohttp", "http"]
    assert program(text) == [[True] * 4 + ways, 2]  # by name, and by number
    assert (provider.count("/v1/chat/completions"), provider.count("/v1/models")) == (4, 4)
