"""Read request bodies: bounded, UTF-8, strict JSON."""

from __future__ import annotations

import json
import sys
from typing import Any, Final, NoReturn

from anyio import fail_after
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request

from budgetguard.server.problems import BadRequest, ContentTooLarge, UnsupportedMediaType

LARGE: Final = 2**20
"""Bytes above which a body counts as large."""

MOST_VALUES: Final = 2**20
"""The most values of a body, counted by its commas and opening brackets, also those within texts."""

_SHORT: Final = 2**16
_LONGEST_S: Final = 60


async def read_json(request: Request, most: int) -> tuple[Any, int]:
    """Return the JSON value that a request's body is, and the body's length in bytes.

    A body without a content type is read as JSON; browsers send the forms of other sites always with one.

    Args:
        request: the request.
        most: the most bytes that are read.

    Raises:
        UnsupportedMediaType: another content type than JSON.
        ContentTooLarge: more than `most` bytes, or more than `MOST_VALUES` values.
        BadRequest: not JSON, or it does not come in time.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("the body must be JSON: send Content-Type: application/json")
    if "content-encoding" in request.headers:
        raise UnsupportedMediaType("the body must not be compressed: send it without Content-Encoding")
    raw = await _read(request, most)
    # To parse a large body on the event loop would hold up everybody.
    parsed = parse(raw) if len(raw) <= _SHORT else await run_sync(parse, raw)
    return parsed, len(raw)


def announced(request: Request) -> int:
    """Return the length of a body as its request announces it; the largest number if it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else sys.maxsize


def parse(raw: bytes) -> Any:
    """Return the JSON value of a body.

    Raises:
        BadRequest: not JSON, nested too deeply, or NaN or an infinity.
        ContentTooLarge: more than `MOST_VALUES` values.
    """
    # Counted before they are parsed: a value may take thirty times as much memory as bytes.
    if len(raw) > MOST_VALUES and sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ContentTooLarge(f"the body must hold at most {MOST_VALUES} values")
    try:
        return json.loads(raw.decode(), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"the body is not JSON: {error.msg} ({where})") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except ValueError as error:
        raise BadRequest(f"the body is JSON that cannot be read: {error}") from None


async def _read(request: Request, most: int) -> bytes:
    refusal = ContentTooLarge(f"the body must be at most {most} bytes")
    if "content-length" in request.headers and announced(request) > most:
        raise refusal
    read = bytearray()
    try:
        with fail_after(_LONGEST_S):
            async for part in request.stream():
                read += part
                if len(read) > most:
                    raise refusal
    except ClientDisconnect:
        raise BadRequest("the body ended early") from None
    except TimeoutError:
        raise BadRequest(f"the body did not come within {_LONGEST_S} seconds") from None
    return bytes(read)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
