"""Batches of the Developer API: each request in one is projected, at half its price, and held to its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.pricing.rates import BATCH
from budgetguard.providers.base import Body, Endpoint, Fetching, Polled, Prepared, Preparing
from budgetguard.providers.batching import BatchSum
from budgetguard.providers.google.answers import read_gemini
from budgetguard.providers.google.paths import bare_model, model_in
from budgetguard.providers.json import count, field, items, mapping, parsed, text
from budgetguard.providers.openai.batches import BatchesEndpoint, BatchLines
from budgetguard.providers.shapes import either

_DAY: Final = 24 * 60 * 60 * 1000
# Its answers come within a day, mostly; somebody asks for them within days, and who asks later still corrects
# what the hold's expiry booked.
_WITHIN: Final = 7 * _DAY
_GOES_ON: Final = ("PENDING", "RUNNING", "QUEUED", "PAUSED", "CANCELLING", "UPDATING", "UNSPECIFIED")


class GeminiLines(BatchLines):
    """The projections of a batch's requests, added up.

    Args:
        preparing: the batch's request.
        source: where its requests are, for messages.
        row: what each request is for.
        model: what all of them ask.
    """

    def __init__(self, preparing: Preparing, source: str, row: Endpoint, model: str) -> None:
        super().__init__(BatchSum(preparing), source)
        self._row = row
        self._model = model

    def take_request(self, number: int, request: object) -> None:
        """Take one request that the batch has inside."""
        self._found += 1
        try:
            self._add(request)
        except BudgetGuardError as error:
            values = {name: getattr(error, name) for name in error.fields}
            self.problem = type(error)(f"request {number} of the batch: {error.message}", **values)

    def _project(self, line: bytes) -> None:
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ConfigurationError(f"not JSON ({error}), so the batch was not created") from error
        self._add(field(found, "request"))

    def _add(self, request: object) -> None:
        if not isinstance(request, Mapping):
            raise ConfigurationError("a request is an object with contents, so the batch was not created")
        named = text(field(request, "model"))
        self.sum.add(self._row, _unfolded(request), bare_model(named) if named else self._model)


class GeminiBatches(BatchesEndpoint):
    """Batches of requests, inside of the batch or in an uploaded file.

    Args:
        name: what calls to it are known by.
        path: as the table has it.
        row: what each request is for.
    """

    def __init__(self, name: str, path: str, row: Endpoint) -> None:
        super().__init__(name, path)
        self._row = row

    def prepare(self, preparing: Preparing) -> Fetching:
        """Project the requests of a batch; of a file of them, after reading it.

        What the provider answers instead of the file is raised as it is: it would refuse the batch as well.

        Raises:
            ConfigurationError: the batch names no requests.
        """
        model = model_in(preparing.path) or ""
        asked = either(either(mapping(preparing.body), "batch"), "inputConfig")
        name = text(either(asked, "fileName"))
        lines = GeminiLines(preparing, name or "", self._row, model)
        requests = items(field(field(asked, "requests"), "requests"))
        if name is not None:
            try:
                yield preparing.fetch.content(name, lines.take)
            except Exception as error:
                error.add_note(f"budgetguard asked for {name} to project a batch, which was not created")
                raise
            lines.end()
        elif requests:
            for number, one in enumerate(requests, 1):
                lines.take_request(number, field(one, "request"))
                if lines.problem is not None:
                    break
        else:
            raise ConfigurationError(
                "a batch has its requests inside, or names an uploaded file of them, so it was not created"
            )
        rates = lines.sum.dearest() if lines.sum.rates else preparing.rates(model)
        return Prepared(rates.model, {"lines": lines}, None, rates)

    def least_ttl(self, body: Body) -> int:
        return _WITHIN

    def read(self, answer: object) -> Reported:
        return read_gemini_batch(answer)


def _unfolded(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a request as it would be made alone: the SDK puts too much into `generationConfig`."""
    config = either(request, "generationConfig")
    if not isinstance(config, Mapping):
        return request
    inside = {
        name: config[name]
        for name in ("systemInstruction", "tools", "toolConfig", "cachedContent", "safetySettings")
        if name in config
    }
    return {**request, **inside} if inside else request


def read_gemini_batch(answer: object) -> Reported:
    """Read what a batch used; it is `pending` until it has succeeded, failed, expired or been cancelled.

    Of one whose answers are in a file, the part of the requests that succeeded is told.

    Args:
        answer: a mapping, or the JSON text of one.
    """
    answer = parsed(answer)
    told = field(answer, "metadata") or answer
    name = batch_id(text(field(answer, "name")))
    state = str(field(told, "state") or "UNSPECIFIED").upper()
    if state.endswith(_GOES_ON) and field(answer, "done") is not True:
        return Reported(usage=None, request_id=name, pending=True)
    model = text(field(told, "model"))
    output = field(told, "output") or field(answer, "response")
    inside = either(output, "inlinedResponses")
    answers = items(either(inside, "inlinedResponses") if inside is not None else None)
    if answers:
        found = [read_gemini(response) for one in answers if (response := field(one, "response")) is not None]
        parts = tuple(Reported(one.usage, one.model) for one in found if one.usage is not None)
        if len(parts) == len(found):
            return Reported(_sum(parts), model and bare_model(model), BATCH, name, parts=parts)
    stats = either(told, "batchStats")
    total, done = count(either(stats, "requestCount")), count(either(stats, "successfulRequestCount"))
    if not state.endswith("SUCCEEDED") and not done:
        return Reported(usage=Usage(), request_id=name)
    part = (done or 0, total) if total and done is not None else (1, 1)
    return Reported(usage=None, tier=BATCH, request_id=name, done=part)


def _sum(parts: Iterable[Reported]) -> Usage:
    total: dict[str, int] = {}
    for one in parts:
        for unit, number in (one.usage or Usage()).units.items():
            total[unit] = total.get(unit, 0) + number
    return Usage(total)


def batch_id(name: str | None) -> str | None:
    """Return a batch's id, whatever it is below: `batches/...`."""
    return None if name is None else "batches/" + name.rpartition("batches/")[2]


def _read_one(answer: object) -> Iterable[Reported]:
    return (read_gemini_batch(answer),)


def _read_page(answer: object) -> Iterable[Reported]:
    shown = parsed(answer)
    found = items(field(shown, "operations")) or items(field(shown, "batches"))
    return [read_gemini_batch(one) for one in found]


POLLED: Final = (Polled("GET", "/batches", _read_page), Polled("GET", "/batches/{}", _read_one))
