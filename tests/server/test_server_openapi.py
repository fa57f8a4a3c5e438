"""The OpenAPI document is true: good requests are taken, and answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema_rs import validator_for

from budgetguard.core.accounts import Budget
from budgetguard.server.app import ROUTES
from budgetguard.server.openapi import document

from .requests_of import Sample, samples
from .services import Service, running


def validator_of(part: dict[str, Any]) -> Any:
    """Return what checks a body or an answer by its part of the document."""
    schema = part["content"]["application/json"]["schema"]
    return validator_for({**schema, "components": DOCUMENT["components"]})


DOCUMENT = document(ROUTES)
SAMPLES = samples()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(f"disk://{tmp_path_factory.mktemp('shared')}/budgets", rate="none") as made:
        store = made.open()
        store.set_budget("user:1", Budget(10**9))
        store.close()
        yield made


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
