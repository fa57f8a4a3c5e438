"""Requests of google-genai's newer resources, which do not pass its API client: interactions and the like.

Since 2.10 they pass `BaseSDK.do_request`, as HTTP requests that are made already. It sends again what was
answered with an error, and nothing else. From 1.55 to 2.9 openai's generator had made them; those are
refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from budgetguard.engine.provider_call import ProviderCall
from budgetguard.errors import ConfigurationError
from budgetguard.providers.google.endpoints import TABLE, TABLE_VERTEX
from budgetguard.providers.json import field
from budgetguard.providers.methods import Method, Sending, sent_call
from budgetguard.providers.polling import Poll
from budgetguard.providers.sdk import Place

PROVIDER: Final = "google"
_BASE: Final = "google.genai._gaos.basesdk"
_OLDER: Final = "google.genai._interactions._base_client"
_PARAMETERS: Final = ("hook_ctx", "request", "is_error_status_code", "stream", "retry_config")
# What of an interaction spends beside its model, where nobody here sees it.
_ELSEWHERE: Final = {
    "agent": "runs an agent, which spends where budgetguard does not see it",
    "environment": "rents an environment, for which there is no price here",
}


def request_of(sending: Sending, *, fetcher: Callable[[Any], Any]) -> ProviderCall | Poll | None:
    """Return what a request of the newer resources is; see `RequestOf`.

    Args:
        sending: the call of `do_request`.
        fetcher: the client of the API -> what makes free requests.
    """
    request = sending.arguments.get("request")
    method, url = str(field(request, "method") or "").upper(), str(field(request, "url"))
    base_url = "/".join(url.split("/", 3)[:3])
    table = TABLE_VERTEX if "/projects/" in url else TABLE
    free = sending.settings.is_free(url)
    polled = table.polled(method, url, base_url=base_url)
    if polled is not None:
        return Poll(
            sending.engine,
            polled,
            table.path_of(url, base_url),
            base_url,
            Place(PROVIDER),
            default_provider=PROVIDER,
            free=free,
        )
    body = _body(request)
    path = table.path_of(url, base_url)
    if path == "/interactions" and isinstance(body, Mapping) and not free:
        for name, why in _ELSEWHERE.items():
            if body.get(name) is not None:
                table.check_allowed(method, path, sending.settings.allow_endpoints, why)
                return None
    client = getattr(sending.sender, "_api_client", None)
    return sent_call(
        sending,
        table,
        method=method,
        base_url=base_url,
        path=url,
        body=body,
        default_provider=PROVIDER,
        streams=bool(sending.arguments.get("stream")),
        fetcher=None if client is None else partial(fetcher, client),
    )


def _body(request: Any) -> Any:
    try:
        content = request.content
        return json.loads(content) if content else {}
    except Exception:  # noqa: BLE001 - a body that is read as it is sent, or no JSON: `sent_call` says so
        return None


def carrier(sender: Any) -> object:
    """Return the HTTP client that an object of the newer resources sends through; None of another object."""
    configuration = getattr(sender, "sdk_configuration", None)
    if configuration is None:
        return getattr(sender, "_client", None)
    is_async = hasattr(sender, "do_request_async")
    return configuration.async_client if is_async else configuration.client


def _refuse_older(sending: Sending) -> None:
    options = sending.arguments.get("options")
    method, url = str(field(options, "method") or ""), str(field(options, "url"))
    if TABLE.is_free(method, TABLE.path_of(url, "")):
        return
    raise ConfigurationError(
        f"{method.upper()} {url} is sent past what budgetguard guards of google-genai before 2.10, so it was "
        "not sent; install google-genai 2.10 or later"
    )


def methods(fetcher: Callable[..., Any]) -> tuple[Method, ...]:
    """Return the methods that these requests pass.

    Args:
        fetcher: (the client of the API, whether the caller awaits) -> what makes free requests.
    """
    return (
        Method(
            owner="BaseSDK",
            name="do_request",
            style="call",
            parameters=_PARAMETERS,
            request=partial(request_of, fetcher=partial(fetcher, options=None, is_async=False)),
            module=_BASE,
        ),
        Method(
            owner="AsyncBaseSDK",
            name="do_request_async",
            style="coroutine",
            parameters=_PARAMETERS,
            request=partial(request_of, fetcher=partial(fetcher, options=None, is_async=True)),
            module=_BASE,
        ),
        Method(
            owner="SyncAPIClient",
            name="request",
            style="call",
            parameters=("cast_to", "options"),
            request=_refuse_older,
            module=_OLDER,
        ),
        Method(
            owner="AsyncAPIClient",
            name="request",
            style="coroutine",
            parameters=("cast_to", "options"),
            request=_refuse_older,
            module=_OLDER,
        ),
    )
