"""The row of the `cohere` package in the table of SDKs: what Fern's generator sends by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.engine.provider_call import ProviderCall
from budgetguard.providers.cohere.endpoints import TABLE
from budgetguard.providers.methods import Method, MethodSdk, Sending, Style, sent_call

# Modules whose clients turn each request into one of another cloud, on its way.
_CLOUDS: Final = {
    "cohere.aws_client": "goes to Bedrock or SageMaker; call it there with boto3's bedrock-runtime",
    "cohere.oci_client": "goes to Oracle's cloud, whose prices budgetguard does not know",
}


def _sends(sending: Sending) -> ProviderCall | None:
    """Return the call that a request of the SDK's is."""
    said, sender = sending.arguments, sending.sender
    path, method = str(said.get("path") or ""), str(said["method"])
    base_url = said.get("base_url") or (sender.base_url() if callable(sender.base_url) else sender.base_url)
    base_url = str(base_url or "")
    if (why := _elsewhere(sender.httpx_client)) is not None:
        bare = TABLE.path_of(path, base_url)
        if not TABLE.is_free(method, bare):
            TABLE.check_allowed(method.upper(), bare, sending.settings.allow_endpoints, why)
        return None
    options = said.get("request_options") or {}
    return sent_call(
        sending,
        TABLE,
        method=method,
        base_url=base_url,
        path=path,
        body=_body(said, options),
        headers=options.get("additional_headers") or {},
        provider="cohere",
        streams=bool((said.get("json") or {}).get("stream")),
        rewrite=lambda body: sending.changes.update(json=dict(body)),
    )


def _body(said: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    body = said.get("data") if said.get("json") is None else said.get("json")
    if not isinstance(body, Mapping):
        return None
    # What is left out of the request stands as an ellipsis.
    plain = {name: value for name, value in body.items() if value is not said.get("omit", ...)}
    return {**plain, **(options.get("additional_body_parameters") or {})}


def _elsewhere(client: Any) -> str | None:
    """Return why a client's requests are not Cohere's own, None if they are."""
    for hook in (getattr(client, "event_hooks", None) or {}).get("request", ()):
        if (why := _CLOUDS.get(getattr(hook, "__module__", ""))) is not None:
            return why
    return None


def _methods() -> Iterable[Method]:
    styles: tuple[tuple[str, str, Style], ...] = (
        ("HttpClient", "request", "call"),
        ("HttpClient", "stream", "manager"),
        ("AsyncHttpClient", "request", "coroutine"),
        ("AsyncHttpClient", "stream", "async manager"),
    )
    for owner, name, style in styles:
        yield Method(
            owner=owner,
            name=name,
            style=style,
            parameters=("self", "path", "method", "base_url", "json", "request_options", "retries"),
            request=_sends,
            repeats=lambda said: bool(said.get("retries")),
        )


def _senders(client: object) -> Iterable[object]:
    if type(client).__module__.partition(".")[0] != "cohere":
        return
    sender = getattr(getattr(client, "_client_wrapper", None), "httpx_client", None)
    if sender is not None:
        yield sender


COHERE: Final = MethodSdk(
    name="cohere",
    package="cohere",
    distribution="cohere",
    module="cohere.core.http_client",
    oldest=(5, 21, 1),
    too_new=(8,),
    methods=tuple(_methods()),
    senders=_senders,
)
