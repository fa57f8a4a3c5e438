"""What an error of a call says of whether the request ever left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# httpx's names for: nobody was there to take the request.
_NEVER_SENT: Final = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "UnsupportedProtocol",
        "LocalProtocolError",
        "InvalidURL",
    }
)
_HTTP_LIBRARIES: Final = ("httpx", "httpx2", "httpcore", "httpcore2")


def was_never_sent(error: BaseException) -> bool:
    """Tell whether an error, or one that caused it, means that nobody took the request."""
    return any(_is_refusal(cause) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, ConnectionRefusedError) or any(
        kind.__name__ in _NEVER_SENT and kind.__module__.partition(".")[0] in _HTTP_LIBRARIES
        for kind in type(error).__mro__
    )
