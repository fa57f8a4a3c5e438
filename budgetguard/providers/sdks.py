"""The table of SDKs whose clients are guarded, and which of those that this process uses are not.

Another SDK is a folder and a row here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from budgetguard.engine.engine import Engine
from budgetguard.errors import ConfigurationError
from budgetguard.providers.anthropic.sdk import ANTHROPIC
from budgetguard.providers.openai.sdk import OPENAI
from budgetguard.providers.patching import ClientPatch

C = TypeVar("C")

SDKS: Final[Mapping[str, ClientPatch]] = {row.name: ClientPatch(row) for row in (OPENAI, ANTHROPIC)}


def patch_all(engine: Engine) -> None:
    """Guard every client of every SDK of the table; see `ClientPatch.patch`.

    Raises:
        ConfigurationError: one is patched by another guard, or is of a version that is not known to work.
    """
    for patch in SDKS.values():
        patch.patch(engine)


def wrap(client: C, engine: Engine, model_map: Mapping[str, str] | None = None) -> C:
    """Guard one client of any SDK of the table, and return it; see `ClientPatch.wrap`.

    Raises:
        ConfigurationError: no client of these SDKs; or as `ClientPatch.wrap`.
    """
    kind = type(client)
    for patch in SDKS.values():
        if patch.sdk.base_of(kind) is not None or patch.sdk.refusal(client) is not None:
            return patch.wrap(client, engine, model_map)
    what = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(client, type):
        what = f"the class {client.__qualname__} itself: make a client of it"
    names = " and ".join(SDKS)
    raise ConfigurationError(
        f"wrap() guards clients of the {names} packages, not {what}; guard other functions with @budgeted"
    )


_DECORATE: Final = "call it in functions decorated with @budgeted"
# By the module that is in `sys.modules` where the SDK is used.
_OTHERS: Final = (
    "ai21",
    "cerebras.cloud.sdk",
    "cohere",
    "dashscope",
    "fireworks.client",
    "google.genai",
    "google.generativeai",
    "groq",
    "mistralai",
    "ollama",
    "replicate",
    "together",
    "vertexai",
    "voyageai",
    "xai_sdk",
    "zhipuai",
)
UNGUARDED: Final = dict(sorted({**dict.fromkeys(_OTHERS, _DECORATE), **OPENAI.passed_by}.items()))
_BEDROCK: Final = "botocore (Bedrock)"


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether one SDK is guarded.

    Attributes:
        sdk: the name that it is imported by.
        guarded: every call of it is projected, held and booked.
        why: why not, and what to do about it; None if it is guarded.
    """

    sdk: str
    guarded: bool
    why: str | None = None

    def __str__(self) -> str:
        return f"{self.sdk}: guarded" if self.guarded else f"{self.sdk}: NOT guarded: {self.why}"


def check() -> list[Checked]:
    """Return, for each SDK of models that this process has imported, whether it is guarded, and why not.

    It looks at what stands at the client's methods now, not at what was once put there. Calls inside
    functions decorated with `@budgeted` are guarded whatever this says of the SDK that they use.
    """
    found = [_checked(patch) for name, patch in SDKS.items() if sys.modules.get(name) is not None]
    others = [name for name in UNGUARDED if sys.modules.get(name) is not None]
    found += [Checked(name, False, UNGUARDED[name]) for name in others]
    if _has_bedrock():
        found.append(Checked(_BEDROCK, False, _DECORATE))
    return found


def _checked(patch: ClientPatch) -> Checked:
    name = patch.sdk.name
    if not patch.is_patched:
        return Checked(name, False, f"call patch_{name}(); clients that were given to wrap() are guarded")
    why = patch.unguarded()
    if why is None:
        return Checked(name, True)
    return Checked(name, False, f"{why}; call patch_{name}() once more")


def _has_bedrock() -> bool:
    """Whether a client of Bedrock's was made: botocore, which does much else, makes a class for it then."""
    base = getattr(sys.modules.get("botocore.client"), "BaseClient", None)
    below: list[type] = base.__subclasses__() if isinstance(base, type) else []
    return any(kind.__name__.startswith("Bedrock") and "Runtime" in kind.__name__ for kind in below)
