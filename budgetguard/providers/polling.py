"""Settle earlier calls when somebody asks for the answers that they wait for, in whichever process."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from budgetguard import events
from budgetguard.core.holds import HoldRecord, Settlement, recorded_hold
from budgetguard.core.money import MAX_NANOS, Nanos
from budgetguard.core.usage import Reported
from budgetguard.engine import background_answers
from budgetguard.engine.background import background
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import Work, finished
from budgetguard.engine.outcomes import Answered, Outcome
from budgetguard.engine.projection import named
from budgetguard.errors import StoreError, UnknownModelError
from budgetguard.providers.answers import http_response
from budgetguard.providers.base import Polled
from budgetguard.providers.body import BodyReader, EventReader, WholeReader
from budgetguard.providers.coding import Coding
from budgetguard.providers.sdk import Place, Sdk, address_of
from budgetguard.providers.streams import coding_of, follow, is_event_stream, is_read, read_before


def poll_of(engine: Engine, sdk: Sdk, client: Any, options: Any) -> Poll | None:
    """Return the poll that a free request is, or None if what it asks for ends no call."""
    base_url = str(client.base_url)
    row = sdk.table.polled(options.method, options.url, base_url=base_url)
    if row is None:
        return None
    free = engine.settings.is_free(address_of(client, options.url, base_url))
    place, path = sdk.place_of(client), sdk.table.path_of(options.url, base_url)
    return Poll(engine, row, path, base_url, place, default_provider=sdk.default_provider, free=free)


class Poll:
    """Ask for answers that calls may wait for, and finish those whose answers have ended.

    Nothing here raises: the answer is its caller's, whatever we make of it. The store is read only where an
    answer has ended.

    Args:
        engine: whose calls.
        row: how the answer is read.
        path: what is asked for, as the table has it.
        base_url: the client's; with the model it decides the price for calls of other processes.
        place: where the client's models run.
        default_provider: that of addresses that tell nothing, None for the price book's own default.
        free: what is asked there costs nothing, by the user's word.
        content: an answer -> the JSON, mapping or object that is read.
    """

    def __init__(
        self,
        engine: Engine,
        row: Polled,
        path: str,
        base_url: str,
        place: Place,
        *,
        default_provider: str | None,
        free: bool,
        content: Callable[[Any], object] = lambda answer: answer,
    ) -> None:
        self._engine = engine
        self._row = row
        self._path = path
        self._base_url = place.priced_at or base_url
        self._place = place
        self._default_provider = default_provider
        self._free = free
        self._content = content
        self._found: tuple[Reported, ...] = ()

    @property
    def blocking(self) -> bool:
        """Whether `finish` waits for I/O."""
        return self._engine.blocking

    def take(self, answer: Any) -> Any:
        """Look at the answer, and return it as it is."""
        if (outcome := self._look(answer)) is not None:
            self.finish(outcome)
        return answer

    async def take_async(self, answer: Any) -> Any:
        """Look at the answer, and return it as it is."""
        if (outcome := self._look(answer)) is not None:
            await finished(Work(partial(self.finish, outcome), self.blocking))
        return answer

    def finish(self, outcome: Outcome) -> None:
        """Finish the calls whose answers have ended; what was read by half tells nothing."""
        said = (outcome.reported,) if isinstance(outcome, Answered) else ()
        for one in self._found or said:
            if one.pending or one.request_id is None:
                continue
            try:
                self._settle(one, one.request_id)
            except StoreError as error:
                events.logger.warning(
                    "budgetguard: who waits for %s is unknown, since the store failed: %s",
                    one.request_id,
                    error,
                )
            except Exception:  # noqa: BLE001 - the answer is its caller's, whatever we make of it
                events.logger.exception("budgetguard: %s could not be settled by a poll", one.request_id)

    def finish_when_dropped(self, thing: object, outcome: Callable[[], Outcome]) -> Callable[[], bool]:
        """Have this finished in the background if a thing becomes garbage before."""
        pid = os.getpid()
        return background.when_dropped(thing, lambda: self.finish(outcome()) if pid == os.getpid() else None)

    def _look(self, answer: Any) -> Outcome | None:
        try:
            response = http_response(answer)
            if response is not None and not is_read(response):
                follow(response, self._reader_of(response, coding_of(response, changes=False)), self)
                return None
            if response is not None and self._row.reader is not None:
                return read_before(response, self._reader_of(response, encoding=""))
            if response is not None and self._row.accumulator is not None and is_event_stream(response):
                return read_before(response, self._reader_of(response, encoding=""))
            if self._row.reader is not None and isinstance(answer, str | bytes):
                reader = self._row.reader(self._path, "")
                reader.feed(answer.encode() if isinstance(answer, str) else answer)
                reader.end()
                return reader.outcome(None)
            said = self._read(self._content(answer) if response is None else response.content)
            return None if all(one.pending for one in self._found) else Answered(said)
        except Exception:  # noqa: BLE001 - as above
            events.logger.exception("budgetguard: a poll could not be read; its call keeps its hold")
            return None

    def _reader_of(self, response: Any, encoding: str | Coding) -> BodyReader:
        if self._row.reader is not None:
            return self._row.reader(self._path, encoding)
        if self._row.accumulator is not None and is_event_stream(response):
            return EventReader(self._row.accumulator(""), hide_usage=False, encoding=encoding)
        return WholeReader(self._read, encoding=encoding)

    def _read(self, answer: object) -> Reported:
        self._found = tuple(self._row.read(answer))
        return self._found[0] if self._found else Reported(usage=None, pending=True)

    def _settle(self, said: Reported, request_id: str) -> None:
        engine = self._engine
        call = background_answers.waiting(engine, request_id)
        if call is not None:
            background_answers.forget(call, request_id)
            call.finish(Answered(self._row.told(said, call.request.endpoint)))
            return
        record = background_answers.waiting_hold(engine, request_id)
        if record is None:
            return
        said = self._row.told(said, record.endpoint)
        cost, estimated = self._cost(record, said)
        settlement = Settlement(
            cost, usage=said.usage, request_id=request_id, thresholds=engine.settings.thresholds
        )
        background_answers.end(engine, request_id)
        engine.settle(recorded_hold(record), settlement, estimated=estimated)

    def _cost(self, record: HoldRecord, said: Reported) -> tuple[Nanos, bool]:
        """Return what an answer cost at the prices of its call's time, and whether that is an estimate."""
        if self._free:
            return 0, False
        if said.usage is None:
            return said.part_of(record.amount_nanos), True
        if not said.usage.units:
            return 0, False
        try:
            rates = self._engine.prices.rates(
                record.model,
                provider=self._provider_of(record.model),
                base_url=self._base_url,
                tier=said.tier,
                at=datetime.fromtimestamp(record.created_ms / 1000, UTC),
            )
            cost = min(rates.cost_of(named(said, partial(self._listed, record.model))), MAX_NANOS)
            # Of the projection no more is known than what it cost.
            return (max(cost, record.amount_nanos), True) if said.unsaid else (cost, False)
        except UnknownModelError as error:
            if not record.amount_nanos:
                return 0, True  # a model without a price, allowed by the user's word
            events.logger.error("budgetguard: booked as projected, because %s", error)
            return record.amount_nanos, True

    def _provider_of(self, model: str) -> str | None:
        place = self._place.provider
        if place is not None or self._default_provider is None or "/" in model:
            return place
        return self._engine.prices.provider_at(self._base_url) or self._default_provider

    def _listed(self, asked: str, answered: str) -> str:
        return self._place.served(asked, self._place.listed(answered))
