"""Settle an earlier call when somebody asks for the answer that it is waiting for."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from budgetguard import events, pending
from budgetguard.adapters.paths import polled
from budgetguard.adapters.responses import ResponseTally, read_response
from budgetguard.adapters.streams import follow, http_response
from budgetguard.adapters.watches import BodyWatch, EventWatch, Watch
from budgetguard.background import background
from budgetguard.bookkeeping import Bookkeeper
from budgetguard.calls import Call
from budgetguard.flow import Work, finished
from budgetguard.request import Answered, Ending


def poll_of(keeper: Bookkeeper, client: Any, options: Any) -> Poll | None:
    """Return the poll that a free request is, or None if no call waits for what it asks for."""
    request_id = polled(options.method, options.url, base_url=str(client.base_url))
    call = None if request_id is None else pending.waiting(keeper, request_id)
    return None if call is None or request_id is None else Poll(call, request_id)


class Poll:
    """Ask for the answer of a call that waits for it, and finish the call if the answer has ended.

    Args:
        call: the call that is waiting.
        request_id: the provider's id of its answer.
    """

    def __init__(self, call: Call, request_id: str) -> None:
        self._call = call
        self._request_id = request_id

    @property
    def blocking(self) -> bool:
        """Whether `finish` waits for I/O."""
        return self._call.blocking

    def take(self, answer: Any) -> Any:
        """Look at the answer, and return it as it is."""
        if (ending := self._look(answer)) is not None:
            self.finish(ending)
        return answer

    async def take_async(self, answer: Any) -> Any:
        """Look at the answer, and return it as it is."""
        if (ending := self._look(answer)) is not None:
            await finished(Work(partial(self.finish, ending), self.blocking))
        return answer

    def finish(self, ending: Ending) -> None:
        """Finish the call, if this tells how it ended: what was read of it by half tells nothing."""
        if not isinstance(ending, Answered) or ending.reported.pending:
            return
        if ending.reported.request_id == self._request_id:
            pending.forget(self._call, self._request_id)
            self._call.finish(ending)

    def finish_when_dropped(self, thing: object, ending: Callable[[], Ending]) -> Callable[[], bool]:
        """Have this finished in the background if a thing becomes garbage before."""
        pid = os.getpid()
        return background.when_dropped(thing, lambda: self.finish(ending()) if pid == os.getpid() else None)

    def _look(self, answer: Any) -> Ending | None:
        try:
            response = http_response(answer)
            if response is not None and not response.is_closed:
                follow(response, self._watch(response), self)
                return None
            whole = response.content if response is not None and not hasattr(answer, "usage") else answer
            return Answered(read_response(whole))
        except Exception:  # noqa: BLE001 - the answer is its caller's, whatever we make of it
            events.logger.exception("budgetguard: a poll could not be read; its call keeps its hold")
            return None

    def _watch(self, response: Any) -> Watch:
        encoding = response.headers.get("content-encoding", "")
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return EventWatch(
                ResponseTally(self._call.request.model),
                hide_usage=False,
                projected_output=self._call.projection.output_tokens,
                encoding=encoding,
            )
        return BodyWatch(read_response, encoding=encoding)
