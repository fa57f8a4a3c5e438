"""The row of the `google-genai` package in the table of SDKs: what its client's requests are."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from budgetguard.engine.outcomes import Unknown
from budgetguard.engine.provider_call import Do, ProviderCall
from budgetguard.providers.fetching import Fetcher, Take
from budgetguard.providers.google import nextgen
from budgetguard.providers.google.endpoints import TABLE, TABLE_VERTEX
from budgetguard.providers.google.paths import bare_model, model_in
from budgetguard.providers.json import field, parsed, text
from budgetguard.providers.methods import Method, MethodSdk, Sending, Style, note_failed_try, sent_call
from budgetguard.providers.polling import Poll
from budgetguard.providers.sdk import Place
from budgetguard.providers.sent_call import outcome_of_sdk_error
from budgetguard.providers.table import EndpointTable

PROVIDER: Final = "google"
_CAP: Final = "maxOutputTokens"
# Vertex takes the tier that is asked for as a header.
_TIER: Final = "x-vertex-ai-llm-shared-request-type"
_VERSION: Final = "{api_version}/"

_LIVE: Final = "opens a session over a websocket, which spends where budgetguard does not see it"


def _request_of(sending: Sending, *, is_async: bool, streams: bool) -> ProviderCall | Poll | None:
    """Return what a request of the SDK's client is; see `RequestOf`."""
    client, given = sending.sender, sending.arguments
    method, path = str(given.get("http_method") or ""), str(given.get("path") or "")
    body, options = given.get("request_dict"), given.get("http_options")
    table = TABLE_VERTEX if client.vertexai else TABLE
    sent = client._build_request(method, path, _copied(body, client, options), options)
    base_url, path = _base_url(client, options), path.replace(_VERSION, "v1/")
    polled = table.polled(method, path, base_url=base_url)
    if polled is not None:
        free = sending.settings.is_free(sent.url)
        return Poll(
            sending.engine,
            polled,
            table.path_of(path, base_url),
            base_url,
            Place(PROVIDER),
            default_provider=PROVIDER,
            free=free,
            content=_content,
        )
    model = _model_of(table, path, base_url, sent.data)
    return sent_call(
        sending,
        table,
        method=method,
        base_url=base_url,
        path=path,
        body=_with_tier(sent.data, sent.headers),
        headers=_own_headers(options),
        provider=PROVIDER if model is not None and "/" in model else None,
        default_provider=PROVIDER,
        model=model,
        streams=streams,
        content=_content,
        rewrite=partial(_rewrite, body),
        fetcher=lambda: GoogleFetcher(client, options, is_async=is_async),
    )


def _copied(body: Any, client: Any, options: Any) -> Any:
    """Return a body that the SDK may change on its way to what is sent."""
    if not isinstance(body, Mapping):
        return body
    # What is added to a body is merged into its inside.
    merges = field(options, "extra_body") or field(client._http_options, "extra_body")
    return copy.deepcopy(body) if merges else dict(body)


def _base_url(client: Any, options: Any) -> str:
    for holder in (options, client._http_options):
        if (found := text(field(holder, "base_url"))) is not None:
            return found
    return "https://generativelanguage.googleapis.com/"


def _model_of(table: EndpointTable, path: str, base_url: str, body: Any) -> str | None:
    named = model_in(table.path_of(path, base_url))
    if named is None and (inside := text(field(body, "model"))) is not None:
        named = bare_model(inside)
    return named


def _with_tier(body: Any, headers: Any) -> Any:
    asked = {str(name).lower(): value for name, value in dict(headers or {}).items()}.get(_TIER)
    return {**body, "serviceTier": asked} if asked and isinstance(body, Mapping) else body


def _own_headers(options: Any) -> Mapping[str, str]:
    found = field(options, "headers")
    return dict(found) if isinstance(found, Mapping) else {}


def _content(answer: Any) -> object:
    """Return what is to be read of an answer: the text of its JSON."""
    return getattr(answer, "body", answer)


def _rewrite(body: Any, changed: Mapping[str, Any]) -> None:
    """Write the cap of what is sent into what the SDK sends."""
    body.setdefault("generationConfig", {})[_CAP] = changed[_CAP]


class GoogleFetcher(Fetcher):
    """Free requests with the caller's client and options.

    Args:
        client: the SDK's client of the API.
        options: of the request that is being prepared.
        is_async: whether the caller awaits.
    """

    def __init__(self, client: Any, options: Any, *, is_async: bool) -> None:
        super().__init__(client, {}, None)
        self._options = options
        self._awaits = is_async

    @property
    def _is_async(self) -> bool:
        return self._awaits

    def get(self, path: str) -> Do:
        return self._do("get", path, {})

    def post(self, path: str, body: Mapping[str, Any], **_more: Any) -> Do:
        return self._do("post", path, body)

    def content(self, file_id: str, take: Take) -> Do:
        """Return the step that reads an uploaded file."""
        path = f"files/{file_id.rpartition('files/')[2]}:download?alt=media"
        if self._awaits:
            return Do(partial(self._read_async, path, take))
        return Do(lambda: take(self._client.download_file(path, http_options=self._options)) and None)

    async def _read_async(self, path: str, take: Take) -> None:
        take(await self._client.async_download_file(path, http_options=self._options))

    def _do(self, method: str, path: str, body: Mapping[str, Any]) -> Do:
        path = path.lstrip("/")
        if self._client.vertexai and path.startswith("models/"):
            path = f"publishers/google/{path}"
        if self._awaits:
            return Do(partial(self._ask_async, method, path, body))
        return Do(lambda: parsed(_content(self._client.request(method, path, dict(body), self._options))))

    async def _ask_async(self, method: str, path: str, body: Mapping[str, Any]) -> object:
        return parsed(_content(await self._client.async_request(method, path, dict(body), self._options)))


def _refused(sending: Sending, *, path: str, why: str = _LIVE) -> None:
    """Refuse what does not pass the client's requests, unless the user allows it."""
    TABLE.check_allowed("GET", path, sending.settings.allow_endpoints, why)


def _senders(client: object) -> Iterable[object]:
    """Return what a client sends through: both its faces share it."""
    for kind in type(client).__mro__:
        if kind.__module__ == "google.genai.client" and kind.__name__ in ("Client", "AsyncClient"):
            api: Any = client
            inner = api._api_client
            # The newer resources send through its HTTP clients.
            http = (getattr(inner, name, None) for name in ("_httpx_client", "_async_httpx_client"))
            return (inner, *(one for one in http if one is not None))
    return ()


def _carrier(sender: Any) -> object:
    """Return which of `_senders` the object of a method sends through."""
    return getattr(sender, "_api_client", None) or nextgen.carrier(sender) or sender


def _note_try(_arguments: Mapping[str, Any], _answer: Any, error: BaseException | None) -> None:
    # An answer that is an error is raised here as well.
    lost = error is not None and isinstance(outcome_of_sdk_error(error), Unknown)
    note_failed_try(error if lost else None)


def _note_first_send(_arguments: Mapping[str, Any], _answer: Any, _error: BaseException | None) -> None:
    # It is called between two sends through aiohttp, while the first one's error is being handled.
    note_failed_try(sys.exception())


_OF_FILES: Final[Mapping[str, Style]] = {
    "upload_file": "call",
    "async_upload_file": "coroutine",
    "download_file": "call",
    "async_download_file": "coroutine",
}
_REQUEST: Final = ("http_method", "path", "request_dict", "http_options")
GOOGLE: Final = MethodSdk(
    name="google",
    package="google.genai",
    distribution="google-genai",
    module="google.genai._api_client",
    oldest=(1, 30, 0),
    too_new=(4,),
    methods=(
        Method(
            owner="BaseApiClient",
            name="request",
            style="call",
            parameters=_REQUEST,
            request=partial(_request_of, is_async=False, streams=False),
        ),
        Method(
            owner="BaseApiClient",
            name="request_streamed",
            style="generator",
            parameters=_REQUEST,
            request=partial(_request_of, is_async=False, streams=True),
        ),
        Method(
            owner="BaseApiClient",
            name="async_request",
            style="coroutine",
            parameters=_REQUEST,
            request=partial(_request_of, is_async=True, streams=False),
        ),
        Method(
            owner="BaseApiClient",
            name="async_request_streamed",
            style="coroutine",
            parameters=_REQUEST,
            request=partial(_request_of, is_async=True, streams=True),
        ),
        Method(
            owner="AsyncLive",
            name="connect",
            style="async manager",
            parameters=("model",),
            request=partial(_refused, path="/live"),
            module="google.genai.live",
        ),
        Method(
            owner="AsyncLiveMusic",
            name="connect",
            style="async manager",
            parameters=("model",),
            request=partial(_refused, path="/live/music"),
            module="google.genai.live_music",
        ),
        Method(
            owner="InteractionWebSocketConnectionContext",
            name="_open",
            style="coroutine",
            parameters=(),
            request=partial(_refused, path="/interactions/live"),
            module="google.genai._interactions_websocket",
        ),
        *nextgen.methods(GoogleFetcher),
        # Files cost nothing; these requests of theirs pass none of the methods above.
        *(
            Method(owner="BaseApiClient", name=name, style=style, parameters=())
            for name, style in _OF_FILES.items()
        ),
        Method(
            owner="BaseApiClient",
            name="_request_once",
            style="call",
            parameters=("http_request",),
            observe=_note_try,
        ),
        Method(
            owner="BaseApiClient",
            name="_async_request_once",
            style="coroutine",
            parameters=("http_request",),
            observe=_note_try,
        ),
        Method(
            owner="BaseApiClient",
            name="_ensure_aiohttp_ssl_ctx",
            style="call",
            parameters=(),
            observe=_note_first_send,
        ),
    ),
    senders=_senders,
    carrier=_carrier,
)
