"""All rows of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import langchain, llama_index, openai_agents, pydantic_ai
from .case import Case, Way

CASES: Final[tuple[Case, ...]] = (
    *langchain.CASES,
    *llama_index.CASES,
    *openai_agents.CASES,
    *pydantic_ai.CASES,
)


def all_ways() -> Iterator[tuple[Case, Way]]:
    """Yield every way of every case."""
    for case in CASES:
        for way in case.ways:
            yield case, way
