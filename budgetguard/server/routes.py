"""What a route is: one row says how it is asked, who may, what answers, and how it is described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from budgetguard.errors import ConfigurationError
from budgetguard.server.keys import Key, Role
from budgetguard.server.projects import Projects
from budgetguard.stores.base import Store

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]
Schema: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """Hold one request, let in and read.

    Attributes:
        key: who asks.
        project: whose accounts; empty where the body says it.
        projects: all stores.
        body: the JSON value that was sent, or None.
        query: the parameters, each known and given at most once.
        cookies: what the client was asked to send again.
        to_write: what is asked may write.
        headers: of the answer; a route may add some.
    """

    key: Key
    project: str
    projects: Projects
    body: Any
    query: Mapping[str, str]
    cookies: Mapping[str, str]
    to_write: bool
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The project's store."""
        return self.store_of(self.project)

    def store_of(self, project: str) -> Store:
        """Return a project's store."""
        return self.projects.store(project, to_write=self.to_write)


@dataclass(frozen=True, slots=True)
class Parameter:
    """Describe one query parameter: its name, its schema, and what it is."""

    name: str
    schema: Schema
    description: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Hold one route.

    Attributes:
        method: how it is asked.
        path: with `{project}` where a project's name stands, percent-encoded.
        role: the least that may.
        answer: the answer's JSON value, from the call; runs in a worker thread.
        summary: what it does, imperative.
        parameters: the query parameters that it takes.
        body: schema of the body, or None.
        result: schema of the answer.
        most: bytes of a body that are read.
        heavy: its answer takes long to make; one project has few of those at once.
        name: identifies the operation.
    """

    method: Method
    path: str
    role: Role
    answer: Callable[[Call], Mapping[str, Any]]
    summary: str
    result: Schema
    body: Schema | None = None
    parameters: tuple[Parameter, ...] = ()
    most: int = 2**20
    heavy: bool = False
    name: str = field(default="")

    @property
    def project(self) -> bool:
        """Whether the path names the project."""
        return "{project}" in self.path

    def read_query(self, pairs: list[tuple[str, str]]) -> dict[str, str]:
        """Return the query's parameters.

        Raises:
            ConfigurationError: one that is unknown, given twice, or missing.
        """
        known = {one.name for one in self.parameters}
        found: dict[str, str] = {}
        for name, value in pairs:
            if name not in known:
                takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
                raise ConfigurationError(f"unknown query parameter {name[:60]!r}: {takes}")
            if name in found:
                raise ConfigurationError(f"the query parameter {name} is given twice")
            found[name] = value
        for one in self.parameters:
            if one.required and one.name not in found:
                raise ConfigurationError(f"the query parameter {one.name} is missing")
        return found
