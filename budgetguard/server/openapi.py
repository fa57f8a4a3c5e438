"""The OpenAPI document: the table of routes, said in OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

from budgetguard.server import schemas
from budgetguard.server.routes import Route

_REFUSALS: Final = {
    "400": "The body is not JSON, or the request is not HTTP that is read here.",
    "401": "No key, or none that is known.",
    "403": "A key of another project, or of a lesser role.",
    "409": "The project keeps as many accounts or open holds as it may. Nothing was changed.",
    "413": "The body is too long.",
    "415": "The body is not called JSON.",
    "422": "A value is wrong; the message names it. Nothing was changed.",
    "429": "Too many requests.",
    "503": "The store cannot be read or written now. Sending the same request again is safe.",
}
_WITH_BODY: Final = ("413", "415")


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document that describes routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths["/healthz"] = _probe("healthz", "Tell that the process runs.")
    paths["/readyz"] = _probe("readyz", "Tell that the store answers.", "503")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "budgetguard",
            "version": version("budgetguard-ai"),
            "description": "Budgets for LLM calls: reserve before a call, settle after it. Money is integer "
            "Nanos (1e-9 USD) under /v1/projects, float USD in LiteLLM's hosted protocol.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": schemas.ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    left_out = () if route.body is not None else _WITH_BODY
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Needs a key of the role `{route.role}` or more.",
        "security": [{"key": []}],
        "parameters": list(_parameters(route)),
        "responses": {
            "200": {"description": "Done.", "content": _json(result_of(route))},
            **{code: _refusal(text) for code, text in _REFUSALS.items() if code not in left_out},
        },
    }
    if route.body is not None:
        made["requestBody"] = {"required": True, "content": _json(route.body)}
    return made


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    if route.project:
        yield {"name": "project", "in": "path", "required": True, "schema": schemas.PROJECT}
    for one in route.parameters:
        yield {
            "name": one.name,
            "in": "query",
            "required": one.required,
            "schema": one.schema,
            "description": one.description,
        }


def result_of(route: Route) -> Any:
    """Return the schema of a route's answer, with the expiries that were found on the way."""
    if not route.project:
        return route.result
    shapes = [
        {**one, "properties": {**one["properties"], "told": schemas.EXPIRIES}}
        for one in route.result.get("oneOf", (route.result,))
    ]
    return shapes[0] if len(shapes) == 1 else {"oneOf": shapes}


def _probe(name: str, summary: str, *codes: str) -> dict[str, Any]:
    answers: dict[str, Any] = {
        "200": {"description": "Yes.", "content": _json(schemas.record(status=schemas.choice("ok")))}
    }
    answers.update((code, _refusal(_REFUSALS[code])) for code in codes)
    return {"get": {"operationId": name, "summary": summary, "security": [], "responses": answers}}


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
