"""What models of other makers than OpenAI are shown around the text: tokens, by the model's name.

A model reads more than what a request says: marks around each message, prompts that explain tools, a default
prompt of the provider. Its provider bills that too. Constants here were fitted to the recorded usage of 2 400
requests (2024-07 to 2026-11) after their text was counted with the models' own tokenizers; where a figure is
documented, its page is named. `budgetguard.providers.templated` counts with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from budgetguard.tokens.models import is_counted_exactly

Rendering = Literal["compact", "spaced", "fields", "typescript"]


@dataclass(frozen=True, slots=True)
class Template:
    """What surrounds the text of a request, in tokens.

    Attributes:
        request: once a request.
        message: each message, one of the system too.
        unprompted: where no system message is in the request: the prompt that stands for it.
        begun: where the assistant's message is the first one.
        tools: where there are tools: the prompt that explains them.
        forced: the same, where one of them must be used.
        tool: each tool, beside its definition.
        argument: each parameter of a tool, where definitions are rendered as fields.
        nested: each object inside of another, the same way.
        rendered: how definitions are shown: as compact or spaced JSON, as the texts of their fields, or as
            TypeScript.
        call: each earlier call of a tool, beside its name and arguments.
        called_argument: each argument of such a call.
        result: each earlier result of a tool, beside its text.
        schema: for an answer's schema, beside its text.
        schema_multiple: how often an answer's schema is shown; 0 if it is not billed.
        thinking: where the request asks for thinking with a budget.
        unwraps: whether a tool's `function` alone is shown, without what OpenAI's shape has around it.
        json_mode: where JSON is asked for without a schema.
        unformatted: where no format of the answer is asked for.
        drops_tools: whether tools are not shown where the request forbids to use them.
        keeps_thoughts: whether earlier thoughts are read again, outside of a loop of tool calls too.
        page: an image of a PDF's page, beside its text.
    """

    request: int = 4
    message: int = 3
    unprompted: int = 0
    begun: int = 0
    tools: int = 80
    forced: int = 80
    tool: int = 8
    argument: int = 0
    nested: int = 0
    rendered: Rendering = "compact"
    call: int = 15
    called_argument: int = 0
    result: int = 8
    schema: int = 20
    schema_multiple: float = 1.0
    thinking: int = 0
    unwraps: bool = False
    json_mode: int = 0
    unformatted: int = 0
    drops_tools: bool = False
    keeps_thoughts: bool = True
    page: int = 256


# Beside tools, prompts: https://platform.claude.com/docs/en/docs/build-with-claude/tool-use; more is billed.
_CLAUDE: Final = Template(
    request=4,
    message=3,
    tools=500,
    forced=606,
    tool=8,
    unwraps=True,
    call=38,
    called_argument=14,
    result=0,
    schema=100,
    schema_multiple=1.65,
    thinking=30,
    keeps_thoughts=False,
    page=1_600,
    begun=9,
)
_CLAUDE_LATER: Final = replace(_CLAUDE, tools=365, forced=490, thinking=0, keeps_thoughts=True)
_GEMINI: Final = Template(
    request=0,
    message=1,
    tools=0,
    forced=0,
    tool=18,
    argument=9,
    nested=32,
    rendered="fields",
    call=10,
    result=10,
    schema_multiple=0.0,
    schema=0,
    page=1_290,
)
VERTEX: Final = replace(_GEMINI, message=0, tool=2, argument=0, nested=0, call=0, result=1)
"""Gemini at Vertex AI, which bills the texts alone."""
_LLAMA: Final = Template(
    request=31,
    message=5,
    tools=150,
    forced=165,
    tool=4,
    call=8,
    result=4,
    schema=85,
    json_mode=16,
    drops_tools=True,
)
_MISTRAL: Final = Template(
    request=2,
    message=2,
    tools=4,
    forced=4,
    tool=0,
    rendered="spaced",
    call=5,
    result=4,
    schema=0,
    schema_multiple=0.0,
    drops_tools=True,
    page=24,
)
_DEEPSEEK: Final = Template(
    request=4,
    message=1,
    tools=222,
    forced=222,
    tool=0,
    rendered="spaced",
    unwraps=True,
    call=34,
    result=10,
    thinking=79,
    json_mode=20,
    drops_tools=True,
    keeps_thoughts=False,
)
# Billed for less than they read: their prompts (500 tokens, 1 450 beside tools) are not.
_COHERE: Final = Template(
    request=0,
    message=0,
    tools=0,
    forced=0,
    tool=0,
    unwraps=True,
    call=3,
    result=0,
    schema=0,
    schema_multiple=0.0,
)

# The first pattern that matches counts.
_TEMPLATES: Final = tuple(
    (re.compile(rf"(?:.*[./-])?(?:{pattern})"), template)
    for pattern, template in (
        (r"claude-3-opus", replace(_CLAUDE, tools=545, forced=550)),
        (r"claude-(?:[12v]|instant|3)", replace(_CLAUDE, tools=280, forced=388)),
        (r"claude-(?:opus|sonnet)-4(?:[-.][01](?!\d)|-20|@20|$)", replace(_CLAUDE, tools=330, forced=330)),
        (r"claude-(?:opus-4[-.][56]|sonnet-4[-.]6)", replace(_CLAUDE, keeps_thoughts=True)),
        (r"claude-(?:opus|sonnet|haiku)-4(?:[-.][0-6])?(?:$|[@:]|-(?:\d{8}|latest|v\d))", _CLAUDE),
        (r"claude-opus-4[-.]7", replace(_CLAUDE_LATER, request=8, tools=700, forced=830)),
        (r"claude", _CLAUDE_LATER),
        (r"gemini-(?:1|2\.0)", replace(VERTEX, schema=2, schema_multiple=0.3)),
        (r"gemini-2|gemma", _GEMINI),
        (r"gemini", replace(_GEMINI, argument=12, call=15, result=15)),
        (r"(?:meta-)?llama-?4", replace(_LLAMA, request=8, tools=640, forced=640)),
        # Before 3.1 there was no default prompt.
        (r"(?:meta-)?llama-?3(?:$|-\d+b)", replace(_LLAMA, request=6)),
        (r"(?:meta-)?llama", _LLAMA),
        (r"(?:mistral-(?:small|medium)|magistral-small)-latest", replace(_MISTRAL, unformatted=12)),
        (r"(?:open-)?(?:mi[sx]tral|ministral|codestral|devstral|magistral|pixtral|voxtral)", _MISTRAL),
        (r"deepseek", _DEEPSEEK),
        (r"qwen-?2", Template(4, 5, unprompted=20, tools=100, forced=100, rendered="spaced")),
        (r"qwen|qwq|qvq", Template(4, 5, tools=100, forced=100, rendered="spaced")),
        (
            r"gpt-oss",
            Template(
                66, 4, tools=12, forced=12, tool=0, rendered="typescript", call=16, schema=50, json_mode=30
            ),
        ),
        (r"grok", Template(126, 4, unprompted=60, tools=25, forced=25, tool=20, call=10, result=10)),
        (r"sonar", Template(0, 0, schema=0, schema_multiple=0.0)),
        (r"nova-2", Template(40, 2, tools=830, forced=830, tool=4)),
        (r"nova-", Template(0, 0, tools=350, forced=360, tool=10)),
        (r"titan-", Template(3, 0)),
        (r"command|c4ai", _COHERE),
    )
)
_UNKNOWN: Final = Template()


@lru_cache(maxsize=1_024)
def template_of(model: str) -> Template | None:
    """Return what surrounds the text for a model, by its name; None for OpenAI's own models."""
    if is_counted_exactly(model):
        return None
    name = model.lower().rpartition("/")[2]
    return next((template for pattern, template in _TEMPLATES if pattern.match(name)), _UNKNOWN)
