"""The rows of botocore (boto3) and aiobotocore in the table of SDKs: clients of Bedrock's services."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Awaitable, Hashable, Iterable, Mapping
from functools import cache, partial
from typing import Any, Final

from budgetguard.engine.call import GuardedCall
from budgetguard.providers.base import RefusedEndpoints
from budgetguard.providers.bedrock.converse import CONVERSE_ENDPOINT, CONVERSE_STREAM
from budgetguard.providers.bedrock.invoke import INVOKE, INVOKE_STREAM
from budgetguard.providers.json import parsed
from budgetguard.providers.live import guard_stream
from budgetguard.providers.methods import Method, MethodSdk, Sending, note_lost_try, sent_call
from budgetguard.providers.sent_call import SentCall
from budgetguard.providers.table import EndpointTable

_RUNTIME: Final = "bedrock-runtime"
_AGENTS: Final = "bedrock-agent-runtime"
_CONTROL: Final = "bedrock"
SERVICES: Final = frozenset({_RUNTIME, _AGENTS, _CONTROL})

# Operation -> path, as Bedrock's API has it without the model.
_PATHS: Final[Mapping[str, str]] = {
    "Converse": CONVERSE_ENDPOINT.path,
    "ConverseStream": CONVERSE_STREAM.path,
    "InvokeModel": INVOKE.path,
    "InvokeModelWithResponseStream": INVOKE_STREAM.path,
}
_STREAMED: Final = ("ConverseStream", "InvokeModelWithResponseStream")
# The parts of an answer that are read as they come.
_STREAMS: Final = ("stream", "body")

TABLE: Final = EndpointTable(
    (CONVERSE_ENDPOINT, CONVERSE_STREAM, INVOKE, INVOKE_STREAM),
    (
        "/bedrock-runtime/CountTokens",
        "/bedrock-runtime/GetAsyncInvoke",
        "/bedrock-runtime/ListAsyncInvokes",
        "/bedrock-agent-runtime/CreateInvocation",
        "/bedrock-agent-runtime/CreateSession",
        "/bedrock-agent-runtime/EndSession",
        "/bedrock-agent-runtime/PutInvocationStep",
        "/bedrock-agent-runtime/StopFlowExecution",
        "/bedrock-agent-runtime/UpdateSession",
    ),
    (
        RefusedEndpoints(
            "is billed by text units or by what it makes, which no answer of it tells",
            (
                "/bedrock-runtime/ApplyGuardrail",
                "/bedrock-runtime/InvokeGuardrailChecks",
                "/bedrock-runtime/InvokeModelWithBidirectionalStream",
                "/bedrock-runtime/StartAsyncInvoke",
            ),
        ),
        RefusedEndpoints(
            "runs models where budgetguard does not see what they spend",
            tuple(
                f"/{_AGENTS}/{name}"
                for name in (
                    "AgenticRetrieveStream",
                    "GenerateQuery",
                    "InvokeAgent",
                    "InvokeFlow",
                    "InvokeInlineAgent",
                    "OptimizePrompt",
                    "Rerank",
                    "Retrieve",
                    "RetrieveAndGenerate",
                    "RetrieveAndGenerateStream",
                    "StartFlowExecution",
                )
            ),
        ),
        RefusedEndpoints(
            "runs, trains or rents models, which budgetguard does not price",
            tuple(
                f"/{_CONTROL}/{name}"
                for name in (
                    "CreateAdvancedPromptOptimizationJob",
                    "CreateCustomModelDeployment",
                    "CreateEvaluationJob",
                    "CreateMarketplaceModelEndpoint",
                    "CreateModelCustomizationJob",
                    "CreateModelImportJob",
                    "CreateModelInvocationJob",
                    "CreateProvisionedModelThroughput",
                )
            ),
        ),
    ),
)
# Of the services beside the runtime, what begins so asks or sets, and runs nothing.
_ASKING: Final = ("Get", "List", "Delete", "Tag", "Untag", "Describe")
_SETTING: Final = (*_ASKING, "Put", "Update", "Stop", "Cancel", "Archive", "BatchDelete", "Deregister")
_COSTLY_UPDATES: Final = frozenset({"UpdateProvisionedModelThroughput", "UpdateCustomModelDeployment"})


class BedrockCall(SentCall):
    """A call of Bedrock's runtime, whose streams are in a field of the answer."""

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        if not self.streams:
            return None
        for name in _STREAMS:
            if (inner := answer.get(name)) is not None:
                answer[name] = guard_stream(inner, call, lambda _answer: self.reader())
                return answer
        return None


def service_of(client: object) -> str | None:
    """Return the service that a client of botocore's is of, if it is one of Bedrock's."""
    model = getattr(getattr(client, "meta", None), "service_model", None)
    name = getattr(model, "service_name", None)
    return name if name in SERVICES else None


def _request(sending: Sending) -> SentCall | None:
    service = service_of(sending.sender)
    if service is None:
        return None
    operation = str(sending.arguments.get("operation_name"))
    given = sending.arguments.get("api_params")
    params: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    if operation.startswith(_ASKING):
        return None
    if service == _CONTROL and operation.startswith(_SETTING) and operation not in _COSTLY_UPDATES:
        return None
    return sent_call(
        sending,
        TABLE,
        method="POST",
        base_url=str(sending.sender.meta.endpoint_url),
        path=_PATHS.get(operation, f"/{service}/{operation}"),
        body=_body_of(operation, params),
        provider="aws",
        model=model_of(params.get("modelId")),
        streams=operation in _STREAMED,
        content=_piece if operation in _STREAMED else _content,
        kind=BedrockCall,
    )


def model_of(model_id: object) -> str | None:
    """Return the model that an id or an ARN names: what follows the last slash."""
    return model_id.rpartition("/")[2] if isinstance(model_id, str) else None


def _body_of(operation: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not operation.startswith("InvokeModel"):
        return params
    body: Any = params.get("body")
    if hasattr(body, "read") and hasattr(body, "seek"):
        content = body.read()
        body.seek(0)
        body = content
    found = parsed(bytes(body) if isinstance(body, bytearray) else body)
    if not isinstance(found, Mapping):
        return None
    # What InvokeModel takes beside the body, as Converse has it.
    more: dict[str, Any] = {}
    if (latency := params.get("performanceConfigLatency")) is not None:
        more["performanceConfig"] = {"latency": latency}
    if (tier := params.get("serviceTier")) is not None:
        more["serviceTier"] = {"type": tier}
    if params.get("guardrailIdentifier") is not None:
        more["guardrailConfig"] = {"guardrailIdentifier": params["guardrailIdentifier"]}
    return {**found, **more}


def _content(answer: Any) -> object:
    """Return what is read of a whole answer; of InvokeModel, its head and body."""
    body = answer.get("body") if isinstance(answer, Mapping) else None
    if body is None:
        return answer
    head = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    kept = getattr(body, "_raw_stream", None)
    return {"head": head, "body": parsed(kept.content) if isinstance(kept, _Kept) else None}


def _piece(event: Any) -> object:
    """Return what is read of an event of a stream: of InvokeModel, the JSON that it carries."""
    chunk = event.get("chunk") if isinstance(event, Mapping) else None
    if not isinstance(chunk, Mapping) or "bytes" not in chunk:
        return event
    try:
        return json.loads(chunk["bytes"])
    except ValueError:
        return None


class _Kept(io.BytesIO):
    """A body that was read, and can be read again by its caller.

    Attributes:
        content: all of it.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content = content


def _receive(answer: Any) -> Any:
    """Read the body of a whole answer, which tells what it cost, and leave it to the caller unread."""
    body = _unread_body(answer)
    if body is not None:
        content = body.read()
        body.close()
        answer["body"] = type(body)(_Kept(content), len(content))
    return answer


async def _areceive(sent: Awaitable[Any]) -> Any:
    """Do the same in aiobotocore."""
    answer = await sent
    body = _unread_body(answer)
    if body is not None:
        async with body:
            content = await body.read()
        kind: Any = type(body)
        answer["body"] = _kept_kind(kind)(_Kept(content), len(content))
    return answer


def _unread_body(answer: Any) -> Any:
    """Return the body of an answer that is still to be read, None if it has none."""
    body = answer.get("body") if isinstance(answer, dict) else None
    kind: Any = getattr(sys.modules.get("botocore.response"), "StreamingBody", None)
    return body if kind is not None and isinstance(body, kind) else None


@cache
def _kept_kind(kind: Hashable) -> Any:
    """Return a class of aiobotocore's bodies whose content is there already."""

    async def read(self: Any, amt: int | None = None) -> bytes:
        content: bytes = self._raw_stream.read(amt)
        return content

    async def aclose(_self: Any) -> None:
        """There is no connection any more."""

    assert isinstance(kind, type)
    return type(kind.__name__, (kind,), {"read": read, "aclose": aclose, "close": lambda _self: None})


def _is_async(client: object) -> bool:
    return any(kind.__name__ == "AioBaseClient" for kind in type(client).__mro__)


def _senders(client: object) -> Iterable[object]:
    return () if service_of(client) is None or _is_async(client) else (client,)


def _async_senders(client: object) -> Iterable[object]:
    return (client,) if service_of(client) is not None and _is_async(client) else ()


def _is_used(module: str, name: str) -> bool:
    """Whether a client of Bedrock's was made: botocore, which does much else, makes a class for it then."""
    base = getattr(sys.modules.get(module), name, None)
    below: list[type] = base.__subclasses__() if isinstance(base, type) else []
    return any(kind.__name__.startswith("Bedrock") for kind in below)


def _note_retry(arguments: Mapping[str, Any], again: object, _error: object) -> None:
    if again:
        note_lost_try(arguments.get("caught_exception"))


BEDROCK: Final = MethodSdk(
    name="bedrock",
    package="botocore.client",
    distribution="botocore",
    module="botocore.client",
    oldest=(1, 38, 0),
    serves_others=True,
    too_new=(2,),
    methods=(
        Method(
            owner="BaseClient",
            name="_make_api_call",
            style="call",
            parameters=("operation_name", "api_params"),
            request=_request,
            receive=_receive,
        ),
        Method(
            module="botocore.endpoint",
            owner="Endpoint",
            name="_needs_retry",
            style="call",
            parameters=("caught_exception",),
            observe=_note_retry,
        ),
    ),
    senders=_senders,
    is_used=partial(_is_used, "botocore.client", "BaseClient"),
)

AIOBOTOCORE: Final = MethodSdk(
    name="aiobotocore",
    package="aiobotocore.client",
    distribution="aiobotocore",
    module="aiobotocore.client",
    oldest=(3, 8, 0),
    serves_others=True,
    too_new=(4,),
    methods=(
        Method(
            owner="AioBaseClient",
            name="_make_api_call",
            style="coroutine",
            parameters=("operation_name", "api_params"),
            request=_request,
            receive=_areceive,
        ),
        Method(
            module="aiobotocore.endpoint",
            owner="AioEndpoint",
            name="_needs_retry",
            style="coroutine",
            parameters=("caught_exception",),
            observe=_note_retry,
        ),
    ),
    senders=_async_senders,
    is_used=partial(_is_used, "aiobotocore.client", "AioBaseClient"),
)
