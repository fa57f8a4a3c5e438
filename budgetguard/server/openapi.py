"""The OpenAPI 3.1 document: the table of routes, described for clients in any language."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from budgetguard.server import problems
from budgetguard.server.requests import PROJECT_SCHEMA
from budgetguard.server.routes import ApiRoute

_REFUSALS: Final = {
    **{str(kind.status): kind.__doc__ or "" for kind in problems.OF_ROUTES},
    "422": "A value is wrong; the message names it. Nothing was changed.",
}
_WITH_BODY: Final = ("413", "415")
_ERROR: Final = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error", "message"],
}
_STATUS: Final = {
    "type": "object",
    "properties": {"status": {"const": "ok"}},
    "required": ["status"],
    "additionalProperties": False,
}


class _Schemas(GenerateJsonSchema):
    """Pydantic's JSON Schema without titles, which would repeat the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def document(routes: Iterable[ApiRoute]) -> dict[str, Any]:
    """Return the document that describes routes."""
    routes = list(routes)
    schemas, definitions = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    paths["/healthz"] = _probe("healthz", "Answer while the process runs.")
    paths["/readyz"] = _probe("readyz", "Answer while the store answers.", "503")
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
            "schemas": {"Error": _ERROR, **definitions},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(routes: list[ApiRoute]) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """Return the schemas of bodies and results, by route and part, and those that they refer to."""
    inputs: list[Any] = [
        ((route.name, part), "validation", reader.adapter)
        for route in routes
        for part, reader in (("body", route.body), ("result", route.result))
        if reader is not None
    ]
    made, about = TypeAdapter.json_schemas(
        inputs, ref_template="#/components/schemas/{model}", schema_generator=_Schemas
    )
    return {key: schema for (key, _), schema in made.items()}, about.get("$defs", {})


def _operation(route: ApiRoute, schemas: dict[tuple[str, str], Any]) -> dict[str, Any]:
    left_out = () if route.body is not None else _WITH_BODY
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Needs a key of the role `{route.role}` or more.",
        "security": [{"key": []}],
        "parameters": list(_parameters(route)),
        "responses": {
            "200": {"description": "Done.", "content": _json(schemas[route.name, "result"])},
            **{code: _refusal(text) for code, text in sorted(_REFUSALS.items()) if code not in left_out},
        },
    }
    if route.body is not None:
        made["requestBody"] = {"required": True, "content": _json(schemas[route.name, "body"])}
    return made


def _parameters(route: ApiRoute) -> Iterable[dict[str, Any]]:
    if route.project:
        yield {"name": "project", "in": "path", "required": True, "schema": PROJECT_SCHEMA}
    if route.query is None:
        return
    query = route.query.adapter.json_schema(schema_generator=_Schemas)
    for name, schema in query["properties"].items():
        yield {"name": name, "in": "query", "required": name in query.get("required", ()), "schema": schema}


def _probe(name: str, summary: str, *codes: str) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": "Yes.", "content": _json(_STATUS)}}
    answers.update((code, _refusal(_REFUSALS[code])) for code in codes)
    return {"get": {"operationId": name, "summary": summary, "security": [], "responses": answers}}


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
