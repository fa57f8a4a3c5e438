"""Read from an error of a call whether its request ever left."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Final

# The HTTP libraries' names for: nobody was there to take the request.
_NEVER_SENT: Final = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "UnsupportedProtocol",
        "LocalProtocolError",
        "InvalidURL",
        # botocore's
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ProxyConnectionError",
        "NoCredentialsError",
        "ParamValidationError",
    }
)
# Functions of a client and of httpx that a request has gone through once it may have been sent.
_SENDING: Final = frozenset({"send", "_send_request", "_process_response", "parse", "_parse"})
_HTTP_LIBRARIES: Final = ("httpx", "httpx2", "httpcore", "httpcore2", "botocore")


def was_never_sent(error: BaseException) -> bool:
    """Whether an error, or one that caused it, means that nobody took the request."""
    return any(was_refused(cause) for cause in causes_of(error))


def was_sending(error: BaseException) -> bool:
    """Whether an error was raised where the request may have been sent."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in _SENDING:
            return True
        trace = trace.tb_next
    return False


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that caused it."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def was_refused(error: BaseException) -> bool:
    """Whether an error itself means that nobody took the request."""
    return isinstance(error, ConnectionRefusedError) or any(
        kind.__name__ in _NEVER_SENT and kind.__module__.partition(".")[0] in _HTTP_LIBRARIES
        for kind in type(error).__mro__
    )
