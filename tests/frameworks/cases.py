"""All rows of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import crewai, dspy, langchain, litellm_proxy, litellm_router, llama_index, openai_agents, pydantic_ai
from .case import Case, Way

_MODULES: Final = (
    langchain,
    openai_agents,
    pydantic_ai,
    llama_index,
    litellm_router,
    litellm_proxy,
    crewai,
    dspy,
)
CASES: Final[tuple[Case, ...]] = tuple(case for module in _MODULES for case in module.CASES)


def all_ways() -> Iterator[tuple[Case, Way]]:
    """Yield every way of every case."""
    for case in CASES:
        for way in case.ways:
            yield case, way
