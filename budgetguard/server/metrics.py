"""Metrics for Prometheus: requests and their durations, holds granted and refused. No ids in labels."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder in which workers share metrics; set before prometheus_client is imported."""

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.seconds = Histogram(
            "budgetguard_request_seconds",
            "How long requests took.",
            ("route", "method", "status"),
            registry=self._registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.reservations = Counter(
            "budgetguard_reservations",
            "Holds asked for, by answer: granted, refused, unknown, unlimited.",
            ("answer",),
            registry=self._registry,
        )
        self.settlements = Counter(
            "budgetguard_settlements",
            "Settlements sent, by what they did: settled, repeated, late, unknown.",
            ("answer",),
            registry=self._registry,
        )

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Record one request."""
        self.seconds.labels(route, method, str(status)).observe(seconds)

    def count(self, name: str, answer: Mapping[str, object]) -> None:
        """Count the answer of `reserve` or `settle`."""
        if name == "reserve":
            self.reservations.labels(str(answer["answer"])).inc()
        elif name == "settle":
            kinds = [kind for kind in ("repeated", "late") if answer.get(kind)]
            self.settlements.labels(kinds[0] if kinds else str(answer["answer"])).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' format, those of every worker together."""
        if MULTIPROCESS not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # theirs is untyped
        return generate_latest(together)
