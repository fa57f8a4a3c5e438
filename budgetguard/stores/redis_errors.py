"""What Redis and Valkey servers answer when they do not do what they are told, and what to do about it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from budgetguard.stores.redis_target import Target

PASSING: Final = (
    ConnectionError,
    ReadOnlyError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    TryAgainError,
    MovedError,
    AskError,
)
"""What passes by itself: a restart, a failover, a slot on its way to another node."""

_STOPPED: Final = re.compile(r"Error running script .*?: -(?=[A-Z]+ )", re.DOTALL)
_KINDS: Final[dict[str, Callable[[str], ResponseError]]] = {
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "MOVED": MovedError,
    "ASK": AskError,
    "TRYAGAIN": TryAgainError,
    "CLUSTERDOWN": ClusterDownError,
    "MASTERDOWN": MasterDownError,
}


def typed(error: ResponseError) -> ResponseError:
    """Return an error as the type that it is by its text."""
    # Before 7 Redis told what had stopped a script behind other words, and older versions of redis-py leave
    # what clusters say to its own cluster client.
    text = _STOPPED.sub("", str(error), count=1)
    word, _, rest = text.partition(" ")
    kind = _KINDS.get(word)
    return error if kind is None else kind(rest)


def explain(error: Exception, target: Target) -> str:
    """Say what went wrong and what to do about it, with no password in it."""
    text = str(error)
    if isinstance(error, AuthenticationError):
        remedy = "it wants another user or password: write redis://USER:PASSWORD@HOST"
    elif isinstance(error, NoPermissionError):
        remedy = "its user may not do that: allow it all commands on keys that begin with bg:"
    elif isinstance(error, OutOfMemoryError):
        remedy = "the server is full (maxmemory): give it more memory; nothing was changed"
    elif isinstance(error, ReadOnlyError):
        remedy = "it is a replica: name the primary, or use redis+sentinel://; nothing was changed"
    elif isinstance(error, BusyLoadingError):
        remedy = "it is still loading its data after a restart: try again"
    elif isinstance(error, MovedError | AskError) and target.kind != "cluster":
        remedy = "it is a node of a cluster: write redis+cluster://"
    elif isinstance(error, ClusterDownError | TryAgainError | AskError | MovedError | MasterDownError):
        remedy = "the cluster is failing over or moving the project's slot: try again; nothing was changed"
    elif isinstance(error, TimeoutError):
        remedy = f"it did not answer within {target.timeout:g} s: try again, or raise ?timeout="
    elif _of_tls(error):
        remedy = "TLS failed: check rediss:// or redis://, the port, and ssl_ca_certs="
    elif isinstance(error, ConnectionError):
        remedy = f"it could not be reached for {target.timeout:g} s: is it running, and at that address?"
    elif text.startswith("MISCONF"):
        remedy = "it cannot write to its disk, and refuses to change anything until it can"
    else:
        remedy = "see the cause"
    return f"cannot use the store at {target}: {remedy} ({type(error).__name__}: {text})"


def _of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
