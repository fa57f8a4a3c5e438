"""Batches: project every line of the uploaded file at batch prices, and read what became of a batch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.core.windows import duration_ms
from budgetguard.engine.projection import Projection
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.pricing.rates import BATCH
from budgetguard.providers.answers import reported
from budgetguard.providers.base import Asked, Body, Endpoint, Fetching, Polled, Prepared, Preparing
from budgetguard.providers.batching import BatchSum
from budgetguard.providers.json import count, field, items, parsed, text

# A batch whose usage does not tell all that it bills: calls of hosted tools, pictures, sound.
_PARTLY_TOLD: Final = "batches with tools"
_TOLD: Final = frozenset({"input_tokens", "output_tokens"})
_OVER: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_DAY: Final = 24 * 60 * 60 * 1000
# Somebody asks for a batch within days of its window; who asks later still corrects what its expiry booked.
_MARGIN: Final = 6 * _DAY


@dataclass
class BatchLines:
    """The projections of a batch's lines, added up while its file is read.

    What is wrong with a line is kept as the `problem`, and ends the reading.

    Attributes:
        sum: what the lines so far will use and cost.
        file_id: the batch's input file, for messages.
        problem: why the batch must not be created, or None.
    """

    sum: BatchSum
    file_id: str
    problem: BudgetGuardError | None = None
    _number: int = 0
    _found: int = 0
    _rest: bytes = b""

    def take(self, piece: bytes) -> bool:
        """Take a piece of the file; return whether to go on."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._take_line(line)
            if self.problem is not None:
                return False
        return True

    def end(self) -> None:
        """Take the end of the file."""
        if self.problem is None:
            rest, self._rest = self._rest, b""
            self._take_line(rest)
        if self.problem is None and not self._found:
            self.problem = ConfigurationError(
                f"the batch's input file {self.file_id} has no requests, so the batch was not created"
            )

    @property
    def is_told(self) -> bool:
        """Whether a batch's usage tells all that these lines bill."""
        return {unit for unit, number in self.sum.units.items() if number} <= _TOLD

    def _take_line(self, line: bytes) -> None:
        self._number += 1
        if not line.strip():
            return
        self._found += 1
        try:
            self._project(line)
        except BudgetGuardError as error:
            values = {name: getattr(error, name) for name in error.fields}
            self.problem = type(error)(
                f"line {self._number} of the batch's input file {self.file_id}: {error.message}", **values
            )

    def _project(self, line: bytes) -> None:
        try:
            request = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(f"not JSON ({error}), so the batch was not created") from error
        url, body = field(request, "url"), field(request, "body")
        if not isinstance(request, dict) or not isinstance(url, str) or not isinstance(body, dict):
            raise ConfigurationError("a request has a url and a body, so the batch was not created")
        row = self.sum.preparing.row_of(url)
        if row is None:
            return
        if row.fetches:
            raise ConfigurationError(f"{url} has no place in a batch, so the batch was not created")
        self.sum.add(row, body)


class BatchesEndpoint(Endpoint):
    """Batches, projected from the file of requests that they name."""

    fetches = True

    def prepare(self, preparing: Preparing) -> Fetching:
        """Read the input file of a batch, and project its lines.

        What the provider answers instead of the file is raised as it is: it would refuse the batch as well.
        """
        file_id = field(preparing.body, "input_file_id")
        if not isinstance(file_id, str) or not file_id:
            raise ConfigurationError(
                f"input_file_id must be the id of an uploaded file, not {file_id!r}: a batch is projected "
                "from it"
            )
        lines = BatchLines(BatchSum(preparing), file_id)
        try:
            yield preparing.fetch.content(file_id, lines.take)
        except Exception as error:
            error.add_note(f"budgetguard asked for {file_id} to project a batch, which was not created")
            raise
        lines.end()
        # Its usage does not tell models apart.
        rates = lines.sum.dearest()
        return Prepared(rates.model, {"lines": lines}, None if lines.is_told else _PARTLY_TOLD, rates)

    def project(self, asked: Asked) -> Projection:
        """Return what the lines will use, each at its own model's batch price.

        Raises:
            BudgetGuardError: a line cannot be priced; the message has its number.
        """
        lines: BatchLines = asked.body["lines"]
        if lines.problem is not None:
            raise lines.problem
        return lines.sum.projection(asked.model)

    def least_ttl(self, body: Body) -> int:
        """Return a batch's completion window and six days."""
        try:
            return duration_ms(field(body, "completion_window")) + _MARGIN
        except ConfigurationError:
            return _DAY + _MARGIN

    def read(self, answer: object) -> Reported:
        return read_batch(answer)


def read_batch(answer: object) -> Reported:
    """Read what a batch used; it is `pending` until it has completed, failed, expired or been cancelled.

    Of one that does not tell (those of before September 2025, and other servers' batches), the part of the
    requests that were completed is told. Requests that failed are not billed.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    answer = parsed(answer)
    said = reported(answer)
    if text(field(answer, "status")) not in _OVER:
        return Reported(usage=None, request_id=said.request_id, pending=True)
    counts = field(answer, "request_counts")
    completed, total = count(field(counts, "completed")), count(field(counts, "total"))
    usage, done = said.usage, (1, 1)
    if completed is not None and total:
        done = completed, total
    if usage is not None and not usage.units and completed:
        usage = None
    if usage is None and (completed == 0 or field(answer, "status") == "failed"):
        usage = Usage()
    return Reported(usage, text(field(answer, "model")), BATCH, said.request_id, done=done)


def _read_one(answer: object) -> Iterable[Reported]:
    return (read_batch(answer),)


def _read_page(answer: object) -> Iterable[Reported]:
    return [read_batch(one) for one in items(field(parsed(answer), "data"))]


def _told(said: Reported, endpoint: str) -> Reported:
    """Return what may be booked of what a batch says: not a usage that leaves some of it out."""
    if endpoint == _PARTLY_TOLD and said.usage is not None and said.usage.units:
        return replace(said, usage=None)
    return said


BATCHES: Final = BatchesEndpoint("batches", "/batches")
POLLED: Final = (
    Polled("GET", "/batches", _read_page, told=_told),
    Polled("GET", "/batches/{}", _read_one, told=_told),
    Polled("POST", "/batches/{}/cancel", _read_one, told=_told),
)
