"""The OpenAPI document is true: what it allows is taken, what it forbids is refused, and nothing is a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from jsonschema_rs import validator_for
from schemathesis import Case, GenerationMode, checks

from budgetguard.core.accounts import Budget
from budgetguard.server.app import ROUTES
from budgetguard.server.openapi import document

from .requests_of import Sample, samples
from .services import Service, running


def _without_keys(described: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a service that needs no key: that keys are refused is proved elsewhere."""
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["security"] = []
    return described


def validator_of(part: dict[str, Any]) -> Any:
    """Return what checks a body or an answer by its part of the document."""
    schema = part["content"]["application/json"]["schema"]
    return validator_for({**schema, "components": DOCUMENT["components"]})


DOCUMENT = document(ROUTES)
# Not that all it allows is taken: that a zone exists, or that one time is before another, no schema says.
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
schema = schemathesis.openapi.from_dict(_without_keys(document(ROUTES)))
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
SAMPLES = samples()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(f"disk://{tmp_path_factory.mktemp('shared')}/budgets", rate="none") as made:
        store = made.open()
        store.set_budget("user:1", Budget(10**9))
        store.close()
        yield made


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_asked_the_answer_is_as_described(case: Case, shared: Service) -> None:
    response = case.call(base_url=shared.url)
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda one: one.route.name)
def test_answers_are_what_the_document_says(shared: Service, sample: Sample) -> None:
    operation = DOCUMENT["paths"][sample.route.path][sample.route.method.lower()]
    if sample.route.body is not None:
        validator_of(operation["requestBody"]).validate(sample.body)
    with shared.client() as client:
        answer: Any = sample.send(client).json()
    validator_of(operation["responses"]["200"]).validate(answer)


def test_every_operation_is_described_once() -> None:
    paths = document(ROUTES)["paths"]
    names = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(set(names)) == len(names) == len(ROUTES) + 2
