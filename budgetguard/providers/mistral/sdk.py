"""The row of the `mistralai` package in the table of SDKs: what Speakeasy's generator sends by."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from budgetguard.engine.provider_call import ProviderCall
from budgetguard.providers.methods import Method, MethodSdk, Sending, Style, note_failed_try, sent_call
from budgetguard.providers.mistral.endpoints import AZURE_TABLE, TABLE
from budgetguard.providers.request import with_files
from budgetguard.providers.table import EndpointTable

# Where the base class of its clients is, from 2.0 on and before.
_BASE: Final = "mistralai.client.basesdk"
_AZURE: Final = "mistralai.azure.client.basesdk"
_GOOGLE: Final = "mistralai.gcp.client.basesdk"
_HOOKS: Final = "mistralai.client._hooks.sdkhooks"
_SENDERS: Final[Mapping[str, Style]] = {"do_request": "call", "do_request_async": "coroutine"}
# What opens a websocket, past the methods that send.
_SOCKETS: Final = {
    "mistralai.extra.realtime.transcription": "RealtimeTranscription",
    "mistralai.extra.realtime.speech": "RealtimeSpeech",
}
_ON_VERTEX: Final = (
    "goes to a Mistral model on Vertex AI, whose prices budgetguard does not know; call it in functions "
    "decorated with @budgeted"
)
_LIVE: Final = (
    "opens a websocket, through which budgetguard does not see what is billed; transcribe recordings with "
    "audio.transcriptions.complete"
)


def _sends(table: EndpointTable, provider: str, sending: Sending) -> ProviderCall | None:
    """Return the call that a request of the SDK's is."""
    request: Any = sending.arguments["request"]
    url = request.url.copy_with(fragment=None, query=None)
    base_url = str(getattr(sending.arguments["hook_ctx"], "base_url", None) or "") or _origin(url)
    path = str(url)
    base_url = base_url if path.startswith(base_url) else _origin(url)
    return sent_call(
        sending,
        table,
        method=request.method,
        base_url=base_url,
        path=path.removeprefix(base_url.rstrip("/")),
        body=_body(request) if request.method == "POST" else None,
        headers=request.headers,
        provider=provider,
        streams=bool(sending.arguments.get("stream")),
        rewrite=lambda body: _rewrite(request, body),
    )


def _origin(url: Any) -> str:
    return str(url.copy_with(path="", query=None, fragment=None)).rstrip("/")


def _body(request: Any) -> Mapping[str, Any] | None:
    """Return what a request uploads: its JSON object, or the fields of its form; None if it is neither."""
    if (fields := getattr(request.stream, "fields", None)) is not None:
        named = {one.name: one.value for one in fields if not hasattr(one, "file")}
        return with_files(
            named, [(one.name, (one.filename, one.file)) for one in fields if hasattr(one, "file")]
        )
    try:
        body = json.loads(request.read() or b"null")
    except ValueError:
        return None
    return body if isinstance(body, Mapping) else None


def _rewrite(request: Any, body: Mapping[str, Any]) -> None:
    """Have a request send another body. It is the SDK's own, made for this one call."""
    made = type(request)(
        request.method,
        request.url,
        headers=[
            (name, value) for name, value in request.headers.items() if name.lower() != "content-length"
        ],
        content=json.dumps(body).encode(),
        extensions=request.extensions,
    )
    made.read()
    request.stream, request.headers = made.stream, made.headers
    request._content = made.content


def _refuses(why: str, table: EndpointTable, sending: Sending) -> None:
    """Refuse what costs, of a way whose answers are not read.

    Raises:
        UnknownEndpointError: it may cost money, and the user does not allow it.
    """
    request: Any = sending.arguments.get("request")
    path = "/realtime" if request is None else str(request.url.path)
    method = "GET" if request is None else request.method
    if request is not None and (sending.settings.is_free(str(request.url)) or table.is_free(method, path)):
        return
    table.check_allowed(method, path, sending.settings.allow_endpoints, why)


def _methods() -> Iterable[Method]:
    tables = (
        (_BASE, partial(_sends, TABLE, "mistral")),
        (_AZURE, partial(_sends, AZURE_TABLE, "azure")),
        (_GOOGLE, partial(_refuses, _ON_VERTEX, TABLE)),
    )
    for module, request in tables:
        for name, style in _SENDERS.items():
            yield Method(
                owner="BaseSDK",
                name=name,
                style=style,
                parameters=("self", "hook_ctx", "request", "stream", "retry_config"),
                request=request,
                module=module,
            )
    for module, owner in _SOCKETS.items():
        yield Method(
            owner=owner,
            name="connect",
            style="coroutine",
            parameters=("self", "model"),
            request=partial(_refuses, _LIVE, TABLE),
            module=module,
        )
    yield Method(
        owner="SDKHooks",
        name="after_error",
        style="call",
        parameters=("self", "hook_ctx", "response", "error"),
        observe=_note_failed,
        module=_HOOKS,
    )


def _note_failed(arguments: Mapping[str, Any], _changed: object, _error: object) -> None:
    note_failed_try(arguments.get("error") if arguments.get("response") is None else None)


def _configuration(sender: Any) -> object:
    return getattr(sender, "sdk_configuration", None) or getattr(sender, "_sdk_config", sender)


def _senders(client: object) -> Iterable[object]:
    module = type(client).__module__
    if module.partition(".")[0] == "mistralai":
        configuration = getattr(client, "sdk_configuration", None)
        if configuration is not None:
            yield configuration


MISTRAL: Final = MethodSdk(
    name="mistral",
    package="mistralai",
    distribution="mistralai",
    module=_BASE,
    oldest=(2, 10, 1),
    too_new=(4,),
    methods=tuple(_methods()),
    senders=_senders,
    # The parts of a client share its configuration, and each sends by itself.
    carrier=_configuration,
)
