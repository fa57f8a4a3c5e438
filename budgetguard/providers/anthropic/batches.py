"""Message batches: projected request by request at batch prices, and settled by their results.

A batch tells how many of its requests succeeded, and its results what each of these used. So a batch with
results waits until somebody reads them: `retrieve`, `list` and `cancel` settle only what has no results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.outcomes import Answered, Outcome, Unknown
from budgetguard.engine.projection import Projection
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.events import logger
from budgetguard.pricing.rates import BATCH
from budgetguard.providers.anthropic.answers import is_refused_unwritten, read_message, with_container
from budgetguard.providers.anthropic.messages import MESSAGES
from budgetguard.providers.base import Asked, Body, Endpoint, Fetching, Polled, Prepared, Preparing
from budgetguard.providers.batching import BatchSum
from budgetguard.providers.body import BodyReader
from budgetguard.providers.coding import Coding, coding_named
from budgetguard.providers.json import count, field, items, parsed, text

_DAY: Final = 24 * 60 * 60 * 1000
# https://platform.claude.com/docs/en/build-with-claude/batch-processing: a batch ends within 24 hours, and
# its results can be read until 29 days after it was created. One day more, for clocks that differ.
_TTL: Final = 30 * _DAY
_COUNTS: Final = ("canceled", "errored", "expired", "processing", "succeeded")
# Up to so many input tokens, results are added up: no price changes before. A batch may have 100 000.
_ADDED_UP: Final = 32_000


@dataclass
class _Requests:
    """The projections of a batch's requests, added up; what is wrong with one is kept as the `problem`."""

    sum: BatchSum
    problem: BudgetGuardError | None = None

    def project(self) -> None:
        for number, request in enumerate(items(self.sum.preparing.body.get("requests")), 1):
            params = field(request, "params")
            try:
                self.sum.add(MESSAGES, _params(params))
            except BudgetGuardError as error:
                values = {name: getattr(error, name) for name in error.fields}
                name = field(request, "custom_id")
                self.problem = type(error)(
                    f"request {number} ({name!r}) of the batch: {error.message}", **values
                )
                return


def _params(params: Any) -> Body:
    if isinstance(params, Mapping):
        return params
    raise ConfigurationError(
        f"its params must be a dict of what a message takes, not {type(params).__name__}, so the batch was "
        "not created"
    )


class MessageBatchesEndpoint(Endpoint):
    """Message batches, projected from the requests in them."""

    fetches = True

    def prepare(self, preparing: Preparing) -> Fetching:
        """Project the requests of a batch.

        Raises:
            ConfigurationError: there are none.
        """
        given = preparing.body.get("requests")
        if not items(given):
            wrong = "an empty one" if isinstance(given, list | tuple) else type(given).__name__
            raise ConfigurationError(
                f"requests must be a list of requests, not {wrong}, so the batch was not created"
            )
        requests = _Requests(BatchSum(preparing))
        yield preparing.fetch.work(requests.project)
        rates = requests.sum.dearest()
        return Prepared(rates.model, {"batch": requests}, rates=rates)

    def project(self, asked: Asked) -> Projection:
        """Return what the requests will use, each at its own model's batch price.

        Raises:
            BudgetGuardError: a request cannot be priced; the message has its number and id.
        """
        requests: _Requests = asked.body["batch"]
        if requests.problem is not None:
            raise requests.problem
        return requests.sum.projection(asked.model)

    def least_ttl(self, body: Body) -> int:
        """Return the time for which a batch and its results last."""
        return _TTL

    def read(self, answer: object) -> Reported:
        return read_batch(answer)


def read_batch(answer: object) -> Reported:
    """Read what a batch cost: nothing where none of its requests succeeded; else its results tell.

    It is `pending` until it has ended, and as long as it has results to be read. Where these are gone, the
    part of the requests that succeeded is told.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    answer = parsed(answer)
    ident = text(field(answer, "id"))
    if field(answer, "processing_status") != "ended":
        return Reported(usage=None, request_id=ident, pending=ident is not None)
    counts = {name: count(field(field(answer, "request_counts"), name)) or 0 for name in _COUNTS}
    succeeded, total = counts["succeeded"], sum(counts.values())
    if total and not succeeded:
        return Reported(Usage(), None, BATCH, ident)
    if field(answer, "results_url") is not None and field(answer, "archived_at") is None:
        return Reported(usage=None, request_id=ident, pending=True)
    return Reported(None, None, BATCH, ident, done=(succeeded, total) if total else (1, 1))


class ResultsReader(BodyReader):
    """A reader of a batch's results, line by line.

    Args:
        ident: the batch's id.
        encoding: the response's `content-encoding`, or what undoes it.
    """

    def __init__(self, ident: str, encoding: str | Coding = "") -> None:
        self._ident = ident
        self._coding = coding_named(encoding) if encoding else None
        self._rest = b""
        self._parts: list[Reported] = []
        self._last: dict[tuple[str | None, str | None], int] = {}
        self._succeeded = self._lines = self._unread = 0

    def feed(self, data: bytes) -> bytes:
        plain = data if self._coding is None else self._coding.decode(data)
        *lines, self._rest = (self._rest + plain).split(b"\n")
        for line in lines:
            self._take(line)
        return data

    def end(self) -> bytes:
        self.over = True
        rest, self._rest = self._rest, b""
        self._take(rest)
        return b""

    def outcome(self, error: BaseException | None) -> Outcome:
        if not self.over:
            return Unknown("not all of the results were read")  # the next who reads them settles
        if self._unread or not self._lines:
            logger.warning(
                "budgetguard: %d results of batch %s report no usage that is known, so the part of its "
                "projection that succeeded is booked",
                self._unread,
                self._ident,
            )
            done = (self._succeeded, self._lines) if self._lines else (1, 1)
            return Answered(Reported(None, None, BATCH, self._ident, done=done))
        usage: dict[str, int] = {}
        for part in self._parts:
            _add(usage, part)
        return Answered(Reported(Usage(usage), None, BATCH, self._ident, parts=tuple(self._parts)))

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        self._lines += 1
        try:
            result = field(json.loads(line), "result")
        except ValueError:
            result = None
        kind = field(result, "type")
        if kind in ("errored", "canceled", "expired"):
            return
        self._succeeded += 1
        message = field(result, "message")
        said = with_container(read_message(message), field(message, "container"))
        if kind != "succeeded" or said.unsaid:
            self._unread += 1
        elif not is_refused_unwritten(message):
            self._keep(replace(said, usage=said.rest, parts=()))
            for part in said.parts:
                self._keep(replace(part, region=said.region))

    def _keep(self, said: Reported) -> None:
        assert said.usage is not None
        name = said.model, said.region
        at = self._last.get(name)
        before = Usage() if at is None else self._parts[at].usage or Usage()
        if at is not None and before.input_tokens + said.usage.input_tokens <= _ADDED_UP:
            units = dict(before.units)
            _add(units, said)
            self._parts[at] = replace(self._parts[at], usage=Usage(units))
            return
        self._last[name] = len(self._parts)
        self._parts.append(Reported(said.usage, said.model, BATCH, region=said.region))


def _add(units: dict[str, int], said: Reported) -> None:
    for name, number in (said.usage or Usage()).units.items():
        units[name] = units.get(name, 0) + number


def _read_one(answer: object) -> Iterable[Reported]:
    return (read_batch(answer),)


def _read_page(answer: object) -> Iterable[Reported]:
    return [read_batch(one) for one in items(field(parsed(answer), "data"))]


def _results(path: str, encoding: str | Coding) -> BodyReader:
    return ResultsReader(path.split("/")[-2], encoding)


BATCHES: Final = MessageBatchesEndpoint("batches", "/messages/batches")
POLLED: Final = (
    Polled("GET", "/messages/batches", _read_page),
    Polled("GET", "/messages/batches/{}", _read_one),
    Polled("POST", "/messages/batches/{}/cancel", _read_one),
    Polled("GET", "/messages/batches/{}/results", lambda _: (), reader=_results),
)
