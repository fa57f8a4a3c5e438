"""Read request bodies: bounded, UTF-8, strict JSON."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from budgetguard.server.problems import BadRequest, ContentTooLarge, UnsupportedMediaType


async def read_json(request: Request, most: int) -> Any:
    """Return the JSON value that a request's body is.

    A body without a content type is read as JSON; browsers send other sites' forms always with one.

    Args:
        request: whose body.
        most: bytes that are read.

    Raises:
        UnsupportedMediaType: another content type than JSON.
        ContentTooLarge: more than `most` bytes.
        BadRequest: no JSON.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("the body must be JSON: send Content-Type: application/json")
    if "content-encoding" in request.headers:
        raise UnsupportedMediaType("the body must not be compressed: send it without Content-Encoding")
    return parse(await _read(request, most))


def parse(raw: bytes) -> Any:
    """Return the JSON value that bytes are.

    Raises:
        BadRequest: they are none, are nested too deeply, or hold NaN or an infinity.
    """
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
        raise BadRequest(f"the body is not JSON that is read here: {error}") from None


async def _read(request: Request, most: int) -> bytes:
    refusal = ContentTooLarge(f"the body must be at most {most} bytes")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and len(length) < 20 and int(length) > most:
        raise refusal
    read = bytearray()
    try:
        async for part in request.stream():
            read += part
            if len(read) > most:
                raise refusal
    except ClientDisconnect:
        raise BadRequest("the body ended early") from None
    return bytes(read)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
