"""The table of SDKs whose clients are guarded: one row each. Another one is a folder and a row here."""

from __future__ import annotations

from collections.abc import Mapping
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
