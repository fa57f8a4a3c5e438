"""The table of SDKs whose clients are guarded, and which of those that this process uses are not.

Another SDK is a folder and a row here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Protocol, TypeVar

from budgetguard.engine.engine import Engine
from budgetguard.errors import ConfigurationError
from budgetguard.providers.anthropic.sdk import ANTHROPIC
from budgetguard.providers.bedrock.sdk import AIOBOTOCORE, BEDROCK
from budgetguard.providers.cohere.sdk import COHERE
from budgetguard.providers.compatible import CEREBRAS, GROQ, TOGETHER
from budgetguard.providers.litellm.sdk import LITELLM
from budgetguard.providers.method_patch import MethodPatch
from budgetguard.providers.mistral.sdk import MISTRAL
from budgetguard.providers.openai.sdk import OPENAI
from budgetguard.providers.patching import ClientPatch

C = TypeVar("C")


class Row(Protocol):
    """What of a row of the table every part of the guard asks for."""

    @property
    def name(self) -> str:
        """What errors and `patch()` call the SDK."""

    @property
    def package(self) -> str:
        """The name that it is imported by."""

    @property
    def versions(self) -> str:
        """The versions that are known, as errors and documents name them."""

    @property
    def is_used(self) -> Callable[[], bool] | None:
        """Whether this process uses it; None: whether `package` is imported."""


class SdkPatch(Protocol):
    """The guard around the clients of one SDK, whatever kind of row it has."""

    @property
    def sdk(self) -> Row:
        """The SDK."""

    @property
    def is_patched(self) -> bool:
        """Whether `patch` is in force."""

    def patch(self, engine: Engine) -> None:
        """Guard every client in this process."""

    def unpatch(self) -> None:
        """Take the patch off again. Idempotent."""

    def unguarded(self) -> str | None:
        """Return in what a patched SDK is not guarded all the same, or None."""

    def knows(self, client: object) -> bool:
        """Whether something is a client of the SDK."""

    def wrap(self, client: C, engine: Engine, model_map: Mapping[str, str] | None = None) -> C:
        """Guard one client in place, and return it."""


_PATCHES: Final[tuple[SdkPatch, ...]] = (
    *map(ClientPatch, (OPENAI, ANTHROPIC, GROQ, CEREBRAS, TOGETHER)),
    *map(MethodPatch, (BEDROCK, AIOBOTOCORE, MISTRAL, COHERE, LITELLM)),
)
SDKS: Final[Mapping[str, SdkPatch]] = {patch.sdk.name: patch for patch in _PATCHES}


def chosen(names: Iterable[str]) -> list[SdkPatch]:
    """Return the patches of SDKs by name; of all, if none is named.

    Raises:
        ConfigurationError: there is no such SDK in the table.
    """
    names = tuple(names)
    for name in names:
        if name not in SDKS:
            near = get_close_matches(str(name), SDKS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"{name!r} is no SDK that budgetguard patches: {', '.join(SDKS)}{hint}")
    return [SDKS[name] for name in dict.fromkeys(names)] if names else list(SDKS.values())


def patch(engine: Engine, *names: str) -> None:
    """Guard every client of the SDKs that are named, or of every SDK of the table; see `ClientPatch.patch`.

    Raises:
        ConfigurationError: one is patched by another guard, or is of a version that is not known to work;
            those before it in the table are patched.
    """
    for one in chosen(names):
        one.patch(engine)
    for one in _PATCHES:
        if isinstance(one, ClientPatch):
            one.watch_passers(is_guarded)


def is_guarded(package: str) -> bool:
    """Whether an SDK is patched, by the name that it is imported by."""
    return any(one.is_patched and one.sdk.package == package for one in SDKS.values())


def unpatch(*names: str) -> None:
    """Undo `patch`. Idempotent.

    Raises:
        ConfigurationError: there is no such SDK in the table.
    """
    for one in chosen(names):
        one.unpatch()


def wrap(client: C, engine: Engine, model_map: Mapping[str, str] | None = None) -> C:
    """Guard one client of any SDK of the table, and return it; see `ClientPatch.wrap`.

    Raises:
        ConfigurationError: no client of these SDKs; or as `ClientPatch.wrap`.
    """
    kind = type(client)
    for one in SDKS.values():
        if one.knows(client):
            return one.wrap(client, engine, model_map)
    what = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(client, type):
        what = f"the class {client.__qualname__} itself: make a client of it"
    raise ConfigurationError(
        f"wrap() guards clients of {', '.join(SDKS)}, not {what}; guard other calls with guard.call() or "
        "@budgeted"
    )


_DECORATE: Final = "call it in functions decorated with @budgeted"
# By the module that is in `sys.modules` where the SDK is used.
_OTHERS: Final = (
    "ai21",
    "dashscope",
    "fireworks.client",
    "google.genai",
    "google.generativeai",
    "ollama",
    "replicate",
    "vertexai",
    "voyageai",
    "xai_sdk",
    "zhipuai",
)
UNGUARDED: Final = dict.fromkeys(_OTHERS, _DECORATE)


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
    found = [_checked(one) for one in SDKS.values() if _is_used(one.sdk)]
    others = [name for name in UNGUARDED if sys.modules.get(name) is not None]
    found += [Checked(name, False, UNGUARDED[name]) for name in others]
    return found


def _checked(one: SdkPatch) -> Checked:
    package = one.sdk.package
    again = f'patch("{one.sdk.name}")'
    if not one.is_patched:
        return Checked(
            package, False, f"call patch() or {again}; clients that were given to wrap() are guarded"
        )
    why = one.unguarded()
    if why is None:
        return Checked(package, True)
    return Checked(package, False, f"{why}; call {again} once more")


def _is_used(sdk: Row) -> bool:
    return sys.modules.get(sdk.package) is not None and (sdk.is_used is None or sdk.is_used())
