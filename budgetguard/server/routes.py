"""A route: how it is asked, who may ask, what answers, and how it is described, in one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from budgetguard.errors import ConfigurationError
from budgetguard.server.keys import Key, Role
from budgetguard.server.projects import Projects
from budgetguard.stores.base import Store
from budgetguard.stores.wire_reading import JsonReader

Answer = TypeVar("Answer", bound=Callable[["Call"], Any])
Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request, authorized and read.

    Attributes:
        key: who asks.
        project: whose accounts; empty where the body names the project.
        projects: all stores.
        body: what the route's `body` has read, or None.
        query: what the route's `query` has read; empty if it has none.
        cookies: the request's.
        to_write: the request may write.
        headers: of the answer; a route may add some.
    """

    key: Key
    project: str
    projects: Projects
    body: Any
    query: Any
    cookies: dict[str, str]
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
class ApiRoute:
    """One route.

    Attributes:
        method: the HTTP method.
        path: with `{project}` where a project's name stands, percent-encoded.
        role: the least that a key needs.
        answer: returns what `stores.wire` writes as JSON; runs in a worker thread.
        summary: what it does, imperative.
        name: identifies the operation.
        result: the type of the answer.
        body: reads the body, or None.
        query: reads the query parameters, or None.
        most: the most bytes of a body that are read.
        heavy: its answer takes long to make; one project may have few of those at once.
    """

    method: Method
    path: str
    role: Role
    answer: Callable[[Call], Any]
    summary: str
    name: str
    result: JsonReader[Any]
    body: JsonReader[Any] | None = None
    query: JsonReader[Any] | None = None
    most: int = 2**20
    heavy: bool = False

    @property
    def project(self) -> bool:
        """Whether the path names the project."""
        return "{project}" in self.path

    def read_body(self, body: object) -> Any:
        """Return the body as its type.

        Raises:
            ConfigurationError: a wrong value; the text names it.
        """
        return None if self.body is None else self.body(body)

    def read_query(self, pairs: list[tuple[str, str]]) -> Any:
        """Return the query's parameters as their type.

        Raises:
            ConfigurationError: one that is unknown, given twice, missing or wrong.
        """
        found: dict[str, str] = {}
        for name, value in pairs:
            if name in found:
                raise ConfigurationError(f"query.{name[:60]} is given twice")
            found[name] = value
        if self.query is not None:
            return self.query(found)
        if found:
            raise ConfigurationError(
                f"unknown query parameter {next(iter(found))[:60]!r}: there are none here"
            )
        return found


class RouteTable:
    """Routes, declared at the functions that answer them.

    Args:
        prefix: what their paths begin with.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.routes: list[ApiRoute] = []

    def route(
        self,
        method: Method,
        path: str,
        role: Role,
        result: JsonReader[Any],
        *,
        query: Any = None,
        **more: Any,
    ) -> Callable[[Answer], Answer]:
        """Return a decorator that adds a route. Its summary is the first line of the function's docstring.

        Args:
            method, path, role, result: see `ApiRoute`.
            query: the type of the query parameters, if there are any.
            more: further fields of an `ApiRoute`; `name` is the function's name unless it is given.
        """
        read_query: JsonReader[Any] | None = None if query is None else JsonReader(query, "query")

        def add(answer: Answer) -> Answer:
            fields = {
                "summary": (answer.__doc__ or "").partition("\n")[0],
                "name": answer.__name__,
                "query": read_query,
                **more,
            }
            self.routes.append(ApiRoute(method, self._prefix + path, role, answer, result=result, **fields))
            return answer

        return add
