"""What calls a provider past every guard: each HTTP library, and bare sockets, sync and async."""

from __future__ import annotations

import asyncio
import http.client
import importlib
import socket
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import pytest


def _urllib(url: str) -> None:
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200


def _http_client(url: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("GET", parts.path)
    assert connection.getresponse().status == 200
    connection.close()


def _urllib3(url: str) -> None:
    urllib3 = pytest.importorskip("urllib3")
    with urllib3.PoolManager() as pool:
        assert pool.request("GET", url, timeout=10).status == 200


def _requests(url: str) -> None:
    requests = pytest.importorskip("requests")
    assert requests.get(url, timeout=10).status_code == 200


def _httpx(name: str) -> Callable[[str], None]:
    def get(url: str) -> None:
        assert pytest.importorskip(name).get(url, timeout=10).status_code == 200

    return get


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def _socket(url: str) -> None:
    with _connect(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(8) == b"HTTP/1.1"


def _socket_by_name(url: str) -> None:
    """Connect without a look-up of its own: the name is looked up in C."""
    parts = urlsplit(url)
    with socket.socket() as connection:
        connection.settimeout(10)
        connection.connect((parts.hostname, parts.port))
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(8) == b"HTTP/1.1"


SYNC: Final[dict[str, Callable[[str], None]]] = {
    "urllib": _urllib,
    "http.client": _http_client,
    "urllib3": _urllib3,
    "requests": _requests,
    "httpx": _httpx("httpx"),
    "httpx2": _httpx("httpx2"),
    "socket": _socket,
    "socket by name": _socket_by_name,
}


def _ahttpx(name: str) -> Callable[[str], Awaitable[None]]:
    async def get(url: str) -> None:
        async with pytest.importorskip(name).AsyncClient(timeout=10) as client:
            assert (await client.get(url)).status_code == 200

    return get


async def _aiohttp(url: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200


async def _streams(url: str) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert await reader.readexactly(8) == b"HTTP/1.1"
    writer.close()
    await writer.wait_closed()


async def _anyio(url: str) -> None:
    anyio: Any = importlib.import_module("anyio")
    parts = urlsplit(url)
    async with await anyio.connect_tcp(parts.hostname, parts.port) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await stream.receive(8)) == b"HTTP/1.1"


async def _sock_connect(url: str) -> None:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (parts.hostname, parts.port))
        await loop.sock_sendall(connection, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert await loop.sock_recv(connection, 8) == b"HTTP/1.1"


async def _to_thread(url: str) -> None:
    await asyncio.to_thread(_urllib, url)


ASYNC: Final[dict[str, Callable[[str], Awaitable[None]]]] = {
    "httpx": _ahttpx("httpx"),
    "httpx2": _ahttpx("httpx2"),
    "aiohttp": _aiohttp,
    "asyncio streams": _streams,
    "anyio": _anyio,
    "loop.sock_connect": _sock_connect,
    "to_thread": _to_thread,
}


def ways() -> dict[str, Callable[[str], None]]:
    """Return all of them as plain functions: GET this address, or raise what stopped it."""

    def run(get: Callable[[str], Awaitable[None]]) -> Callable[[str], None]:
        async def main(url: str) -> None:
            await get(url)

        return lambda url: asyncio.run(main(url))

    return {**SYNC, **{f"async {name}": run(get) for name, get in ASYNC.items()}}
