"""Responses that are made in the background, to be asked for."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from tests.provider import responses
from tests.provider.exchange import Exchange
from tests.provider.reply import RESPONSES, Draft, Reply

_CANCEL = "cancel"


class BackgroundResponses:
    """Keep what was begun in the background; a response ends when it was asked for `Reply.polls` times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._drafts: dict[str, Draft] = {}
        self._left: dict[str, int] = {}

    def begin(self, draft: Draft, reply: Reply) -> Draft:
        """Take a response, and return it as one of the background."""
        draft = replace(draft, background=True)
        with self._lock:
            name = f"resp_{draft.number:06d}"
            self._drafts[name] = draft
            self._left[name] = reply.polls
        return draft

    def knows(self, method: str, path: str) -> bool:
        """Whether a request asks for, or cancels, a response that was begun here."""
        name, verb = _parts(path)
        wanted = "POST" if verb else "GET"
        return method == wanted and verb in ("", _CANCEL) and name in self._drafts

    def serve(self, exchange: Exchange, query: str) -> None:
        """Answer a request that is known; it bills nothing.

        Raises:
            OSError: the client is gone.
        """
        name, verb = _parts(exchange.record.path)
        options = parse_qs(query)
        with self._lock:
            draft = self._drafts[name]
            if verb == _CANCEL and self._left[name] > 0:
                self._drafts[name] = draft = replace(draft, ends="cancelled")
                self._left[name] = 0
            left = self._left[name]
            self._left[name] = max(0, left - 1)
        if options.get("stream") == ["true"]:
            after = int(options.get("starting_after", ["-1"])[0])
            exchange.replay(responses.events(draft), after + 1)
            return
        exchange.send(200, _as_it_stands(draft, left))


def _as_it_stands(draft: Draft, left: int) -> dict[str, Any]:
    return responses.response(draft, done=left == 0, status="in_progress")


def _parts(path: str) -> tuple[str, str]:
    name, _, verb = path.removeprefix(RESPONSES + "/").partition("/")
    return (name, verb) if path.startswith(RESPONSES + "/") else ("", "")
