"""What goes wrong between a client and a hosted service, and what to do about it. No text shows a key."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Final

from budgetguard.stores.hosted_http import Answer, Unreached
from budgetguard.stores.hosted_target import KEY_VARIABLE, Target

_LONGEST_QUOTE: Final = 300
_UNSURE: Final = " It may have been carried out all the same: look before you send it again."

_REMEDIES: Final = {
    401: f"it wants a key that it knows: set {KEY_VARIABLE}, or write https://KEY@HOST, or name it in the "
    "headers that a manager is given; who runs the service makes keys with `budgetguard keys`",
    403: "the key may not do that: it is of another project, or its role is too low (calls and budgets need "
    "spend, resets and deletions admin); who runs the service makes keys with `budgetguard keys`",
    404: "no such service is at that address: check host, port and path; `budgetguard serve` starts one",
    409: "this project keeps as much there as it may: delete what is not needed, or have its limits raised",
    413: "it takes no request of that size; nothing was changed",
    422: "it does not take what was asked; nothing was changed. If the text does not say why, upgrade both",
    429: "it has too much to do, or this key has: try again, or raise its limit; nothing was changed",
    503: "it cannot use its own store, or is starting: see its log, and try again",
}


def explain(error: OSError | HTTPException, target: Target, *, unsure: bool = False) -> str:
    """Say why no answer came.

    Args:
        error: what was raised.
        target: who was asked.
        unsure: whether the request may have arrived, and must not arrive twice.
    """
    cause = error.__cause__ if isinstance(error, Unreached) and error.__cause__ is not None else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        remedy = "its certificate is not trusted: name its authority by ?ssl_ca_certs=FILE"
    elif isinstance(cause, ssl.SSLError):
        remedy = "TLS failed: check https:// or http://, and the port"
    elif isinstance(cause, TimeoutError):
        remedy = f"it did not answer within {target.timeout:g} s: try again, or raise ?timeout="
    elif isinstance(cause, socket.gaierror):
        remedy = "there is no host of that name: check the URL"
    elif isinstance(error, Unreached):
        remedy = f"it could not be reached for {target.timeout:g} s: is it running, and at that address?"
    elif isinstance(cause, HTTPException) and not isinstance(cause, OSError):
        remedy = "what answers there does not speak HTTP as it should: check host and port"
    else:
        remedy = "the connection broke: try again"
    end = "." + _UNSURE if unsure else ""
    return f"cannot use the service at {target}: {remedy} ({type(cause).__name__}: {cause}){end}"


def explain_answer(answer: Answer, target: Target, wrong: str = "", *, protocol: str = "") -> str:
    """Say what an answer means that is not the one asked for.

    Args:
        answer: what came.
        target: who was asked.
        wrong: what cannot be read in it.
        protocol: what was asked in, other than budgetguard's own.
    """
    status = answer.status
    if 300 <= status < 400:
        remedy = f"it sends whoever asks to {answer.location.partition('?')[0]}: name that address itself"
    elif protocol and (status < 300 or status in (404, 405)):
        remedy = f"what answers there does not speak {protocol}: check the address"
    elif status < 300:
        remedy = (
            "its answer is not that of a budget service of this version: check the address, and upgrade both"
        )
    else:
        remedy = _REMEDIES.get(status, "see its log")
    said = wrong or told(answer.value)
    quoted = f": {said}" if said else ""
    return f"cannot use the service at {target}: {remedy} (HTTP {status}{quoted})"


def told(value: Any) -> str:
    """Return the message of a service's error, shortened; empty if there is none."""
    message = value.get("message") if isinstance(value, Mapping) else None
    if not isinstance(message, str):
        return ""
    text = " ".join(message.split())
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
