"""The OpenAPI document is true: what it allows is taken, what it forbids is refused, and nothing is a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from budgetguard.core.accounts import Budget
from budgetguard.server.app import ROUTES
from budgetguard.server.openapi import document
from tests.server.services import Service, running

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import Case, GenerationMode, checks  # noqa: E402


def _without_keys(described: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a service that needs no key: that keys are refused is proved elsewhere."""
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["security"] = []
    return described


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
