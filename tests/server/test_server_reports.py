"""The service's report by any labels: answered over HTTP, as its document says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import ValidationError, validator_for

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Settlement, new_hold
from budgetguard.core.process import system_clock
from budgetguard.server.app import ROUTES
from budgetguard.server.openapi import document

from .services import Service, running

DOCUMENT = document(ROUTES)
OPERATION = DOCUMENT["paths"]["/v1/projects/{project}/report"]["get"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(f"disk://{tmp_path}/budgets", rate="none") as made:
        store = made.open()
        store.set_budget("user:1", Budget(10**9))
        for labels, cost in (({"team": "red"}, 300), ({"team": "blue", "provider": "openai"}, 20), ({}, 1)):
            hold = new_hold(
                system_clock(),
                (Charge("user:1"),),
                amount=cost,
                ttl=60_000,
                model="m",
                user="1",
                labels=labels,
            )
            store.reserve(hold)
            store.settle(hold, Settlement(cost))
        store.close()
        yield made


def ask(service: Service, **query: str) -> Any:
    with service.client() as client:
        answer = client.get("/v1/projects/p/report", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


def validator() -> Any:
    schema = OPERATION["responses"]["200"]["content"]["application/json"]["schema"]
    return validator_for({**schema, "components": DOCUMENT["components"]})


def test_a_report_is_by_any_labels(service: Service) -> None:
    report = ask(service, by="team,provider")
    assert report["by"] == ["team", "provider"]
    assert [(row["team"], row["provider"], row["spent"]) for row in report["rows"]] == [
        ("red", None, "0.0000003"),
        ("blue", "openai", "0.00000002"),
        (None, None, "0.000000001"),
    ]
    assert report["total"]["calls"] == 3
    (route,) = (one for one in ROUTES if one.name == "report")
    assert route.result(report) == report, "clients read what the document says"
    validator().validate(report)
    by_month = ask(service, by="month")
    (row,) = by_month["rows"]
    assert len(row["month"]) == len("2026-11")
    validator().validate(by_month)


def test_the_document_says_what_further_fields_are(service: Service) -> None:
    report = ask(service, by="team")
    report["rows"][0]["team"] = 1
    with pytest.raises(ValidationError):
        validator().validate(report)
    (by,) = (one for one in OPERATION["parameters"] if one["name"] == "by")
    assert "labels" in by["schema"]["description"]
