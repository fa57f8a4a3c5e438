"""What a Responses request may cost beyond what it shows: tools that run at the provider, earlier turns
that it keeps, and the fees of those tools.

Nobody can read off the request what a search will find. So an allowance of input tokens stands for it,
until what has been settled for the same model and the same kinds has taught better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from budgetguard.core.usage import Usage
from budgetguard.pricing.extra_units import drawn_unit
from budgetguard.providers.json import count, field, items, mapping, text
from budgetguard.tokens.models import is_reasoning

# Input tokens, from real requests (median, most): web search with a reasoning model 9 500, 115 900 with
# seven searches in one answer, without one 16 900, 17 700 (294 with the preview tool); file search 1 130, 1 150 on small documents, where the
# provider's default of 20 chunks of 800 would be 16 000; code interpreter 2 950, 4 540; image generation
# 1 730, 2 780; MCP 1 100, 5 400; tool search 510, 560. Computer use and shells were not in the data.
WEB_SEARCH_TOKENS: Final = 18_000
_ALLOWANCES: Final[Mapping[str, int]] = {
    "web_search": WEB_SEARCH_TOKENS,
    "file_search": 4_000,
    "code_interpreter": 5_000,
    "image_generation": 3_000,
    "mcp": 6_000,
    "tool_search": 600,
    "computer_use": 2_000,
    "shell": 2_000,
    "apply_patch": 1_000,
    "other_tool": 5_000,
}
# An earlier turn is seldom long, but a conversation can be; one template was billed 11 000 tokens.
_CONTINUED: Final[Mapping[str, int]] = {
    "previous_response": 8_000,
    "conversation": 8_000,
    "prompt": 12_000,
}
PRO: Final = "pro_mode"
"""The kind of hidden input of `reasoning.mode="pro"`: drafts, each of which reads the input once more."""
PRO_READS_AGAIN: Final = 4
_PRO: Final = 1_600
KEPT: Final = frozenset(_CONTINUED)
"""The kinds of hidden input that the provider has when a request is made, and can count."""
_MOST_OF_NAME: Final = 80
_QUIET_SEARCH: Final = 400
_XAI: Final = "x-ai"
SHOWN: Final = frozenset({"function", "custom", "namespace"})
"""The kinds of tools that run in the caller's program."""
_LEAST_MEMORY: Final = "1g"
# Searches of one answer: with reasoning the model looks again.
_SEARCHES: Final = 1
_SEARCHES_REASONING: Final = 3
# Output tokens of one image: 1 024 x 1 536 in high quality, the dearest that is listed:
# https://platform.openai.com/docs/guides/image-generation
IMAGE_TOKENS: Final = 6_240
# The image model of a tool that names none: the API's default, and the dearest that is listed.
_DRAWS: Final = "gpt-image-1"


def offered_tools(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tools that a request offers: those of its own, and those that its items bring."""
    tools = [mapping(tool) for tool in items(field(body, "tools"))]
    for item in items(field(body, "input")):
        tools += [mapping(tool) for tool in items(field(mapping(item), "tools"))]
    return tools


def hidden_input(body: Mapping[str, Any], model: str) -> dict[str, int]:
    """Return the kinds of input that a request does not show, with the tokens to allow for each at first.

    Empty for a request that shows all of its input. Kinds are hosted tools by name (`web_search`), each MCP
    server by its host (`mcp example.com`), because what one lists and answers says nothing of another, and
    `previous_response`, `conversation` and `prompt` (a template) for what the provider keeps.
    """
    found: dict[str, int] = {}
    for kind in _hosted(body):
        if kind == "mcp":
            found.update((f"mcp {server}", _ALLOWANCES[kind]) for server in _servers(body))
            continue
        found[kind] = _ALLOWANCES[kind]
        if kind == "web_search" and _is_quiet(body, model):
            found[kind] = _QUIET_SEARCH
    for key, kind in (
        ("previous_response_id", "previous_response"),
        ("conversation", "conversation"),
        ("prompt", "prompt"),
    ):
        if field(body, key):
            found[kind] = _CONTINUED[kind]
    if field(field(body, "reasoning"), "mode") == "pro":
        found[PRO] = _PRO
    return found


def projected_fees(body: Mapping[str, Any], model: str, provider: str = "openai") -> dict[str, int]:
    """Return the units that the hosted tools of a request will bill apart from its tokens.

    `web_searches` or `web_search_previews`, `storage_searches` (file search), `container_sessions_<memory>`
    (code interpreter) and `drawn_tokens_<image model>`. Each tool is taken to be used; `max_tool_calls` is
    heeded. At xAI, which bills each call of a tool, `code_executions` and `social_searches` too.
    """
    hosted = _hosted(body)
    most = field(body, "max_tool_calls")
    most = most if isinstance(most, int) and not isinstance(most, bool) and most >= 0 else None
    units: dict[str, int] = {}
    searches = _SEARCHES_REASONING if is_reasoning(model) or provider == _XAI else _SEARCHES
    if "web_search" in hosted:
        units[search_unit(body)] = searches
    if provider == _XAI and any(field(tool, "type") == "x_search" for tool in offered_tools(body)):
        units["social_searches"] = searches
    if "file_search" in hosted:
        units["storage_searches"] = 1
    if "code_interpreter" in hosted and provider == _XAI:
        units["code_executions"] = searches
    elif "code_interpreter" in hosted and (session := container_unit(body)) is not None:
        units[session] = 1
    if "image_generation" in hosted:
        units[drawn_by(body)] = IMAGE_TOKENS
    if most is not None:
        units = {unit: min(n, most) if unit.endswith("searches") else n for unit, n in units.items()}
        units = units if most else {}
    return units


def with_tool_fees(usage: Usage, answer: object) -> Usage:
    """Return a response's usage with the fees of the hosted tools that it used."""
    calls: dict[str, int] = {}
    containers: set[object] = set()
    for item in items(field(answer, "output")):
        kind = text(field(item, "type")) or ""
        if kind == "web_search_call" and field(field(item, "action"), "type") not in (None, "search"):
            continue  # a page that is opened or looked through again is not billed
        if kind == "code_interpreter_call":
            containers.add(text(field(item, "container_id")))
        calls[kind] = calls.get(kind, 0) + 1
    counted = field(answer, "tool_usage")
    searches = count(field(field(counted, "web_search"), "num_requests"))
    offered = {"tools": field(answer, "tools")}
    fees = {
        search_unit(offered): calls.get("web_search_call", 0) if searches is None else searches,
        "storage_searches": calls.get("file_search_call", 0),
        drawn_by(offered): _drawn(field(counted, "image_gen"), calls.get("image_generation_call", 0)),
    }
    if (session := container_unit(offered)) is not None:
        fees[session] = len(containers)
    return Usage.of(**{**usage.units, **fees})


def _drawn(counted: object, images: int) -> int:
    """Return the tokens of the image model; those that it read cost less than those it drew."""
    if not images:
        return 0
    output = count(field(counted, "output_tokens"))
    if not output:
        return images * IMAGE_TOKENS
    return output + (count(field(counted, "input_tokens")) or 0)


def drawn_by(body: Mapping[str, Any]) -> str:
    """Return the unit of what a request's image generation tool draws; `body` may be an answer too."""
    named = (
        field(tool, "model") for tool in offered_tools(body) if field(tool, "type") == "image_generation"
    )
    return drawn_unit(next((model for model in named if isinstance(model, str) and model), _DRAWS))


def search_unit(body: Mapping[str, Any]) -> str:
    """Return the unit that a request's web searches are billed by; `body` may be an answer too."""
    tools = [str(field(tool, "type")) for tool in offered_tools(body)]
    newer = any(tool.startswith("web_search") and "preview" not in tool for tool in tools)
    older = any(tool.startswith("web_search_preview") for tool in tools)
    return "web_search_previews" if older and not newer else "web_searches"


def _hosted(body: Mapping[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for tool in offered_tools(body):
        kind = field(tool, "type")
        if kind not in SHOWN:
            found[_kind(str(kind))] = None
    return sorted(found)


def _servers(body: Mapping[str, Any]) -> list[str]:
    """Return the hosts of a request's MCP servers, or what else tells one from another."""
    found: set[str] = set()
    for tool in offered_tools(body):
        if field(tool, "type") == "mcp":
            host = _host(text(field(tool, "server_url")) or "")
            found.add((host or text(field(tool, "connector_id")) or "server")[:_MOST_OF_NAME])
    return sorted(found)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _kind(tool: str) -> str:
    # Dated and preview names (`web_search_preview_2025_03_11`, `computer_use_preview`) are one kind each.
    for prefix, kind in (("computer", "computer_use"), ("local_shell", "shell")):
        if tool.startswith(prefix):
            return kind
    return next((kind for kind in _ALLOWANCES if tool.startswith(kind)), "other_tool")


def _is_quiet(body: Mapping[str, Any], model: str) -> bool:
    """Whether what a search finds is not billed: the preview tool, with a model that does not reason."""
    if is_reasoning(model):
        return False
    return search_unit(body) == "web_search_previews"


def container_unit(body: Mapping[str, Any]) -> str | None:
    """Return the unit that the container of a request's code interpreter is billed by.

    None if it has no code interpreter, or one that runs in a container which was made before.

    Args:
        body: a request, or an answer: both have the `tools`.
    """
    for tool in offered_tools(body):
        if field(tool, "type") == "code_interpreter":
            container = field(tool, "container")
            if isinstance(container, str):
                return None  # whoever made it has paid for it
            memory = field(mapping(container), "memory_limit")
            return f"container_sessions_{memory if isinstance(memory, str) else _LEAST_MEMORY}"
    return None
