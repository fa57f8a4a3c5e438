"""What a realtime session is, what it was asked to become, and what has been said in it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from budgetguard.providers.json import count, field, items
from budgetguard.providers.openai.realtime.calls import ResponseCall, Tariff, TranscriptCall
from budgetguard.providers.openai.realtime.config import SessionConfig, response_cap, speaks
from budgetguard.providers.openai.realtime.conversation import Conversation


class SessionState:
    """What decides the cost of what comes next in one session.

    Args:
        model: the model that answers; None until the server says.
        tariff: whose prices count.

    Attributes:
        lock: held by whoever changes any of this, or what is kept beside it.
        over: nothing passes any more.
        config: what the session is, as the server said.
        conversation: what has been said.
        spoken_to: sound was sent.
    """

    def __init__(self, model: str | None, tariff: Tariff) -> None:
        self.lock = threading.RLock()
        self.over = False
        self.config = SessionConfig({} if model is None else {"model": model})
        self.conversation = Conversation(model or "")
        self.spoken_to = False
        self._tariff = tariff
        self._changes: list[tuple[str, Mapping[str, Any]]] = []

    @property
    def asked_config(self) -> SessionConfig:
        """What the session will be if the server takes every change that it has not spoken of yet."""
        config = self.config
        for _, change in self._changes:
            config = config.updated(change)
        return config

    def asked(self, ident: str, change: Mapping[str, Any]) -> None:
        """Record a change that is asked for under an id."""
        self._changes.append((ident, change))

    def refused(self, ident: str) -> None:
        """Remove a change that the server does not make."""
        self._changes = [one for one in self._changes if one[0] != ident]

    def told(self, session: Mapping[str, Any], *, changed: bool) -> None:
        """Take over what the server says that the session is; it may be the answer to a change."""
        if changed:
            del self._changes[:1]
        self.config = self.config.updated(session)
        if not self.conversation.model:
            self.conversation.model = self.config.model or ""

    @property
    def answers_unasked(self) -> bool:
        """Whether the server makes, or may be about to make, responses that nobody asked it for."""
        return self.config.answers_unasked or self.asked_config.answers_unasked

    @property
    def may_answer_now(self) -> bool:
        """Whether it may make one now, without more being sent to it."""
        silent = self.config.answers_silence or self.asked_config.answers_silence
        tools = any(field(tool, "type") == "mcp" for tool in items(self.asked_config.tools))
        return self.answers_unasked and (self.spoken_to or silent or tools)

    @property
    def transcriber(self) -> str | None:
        """The model that writes down what is heard, or None if none does."""
        return self.asked_config.transcribes_with or self.config.transcribes_with

    def response(self, asked: Mapping[str, Any], more_ms: int = 0) -> ResponseCall:
        """Return the response that is asked for, after so many milliseconds more of sound."""
        # What the session was asked to become may be refused: the dearer of both counts.
        configs = self.config, self.asked_config
        caps = [config.cap for config in configs]
        own = response_cap(asked)
        if own is not None or count(asked.get("max_output_tokens")) is not None:
            caps = [own]
        sizes = [self.conversation.size(config, asked, more_ms) for config in configs]
        return ResponseCall(
            self._tariff.model_of(self.conversation.model or self.asked_config.model or ""),
            self._tariff,
            size=max(sizes, key=lambda size: size.total),
            cap=None if None in caps else max(cap for cap in caps if cap is not None),
            spoken=speaks(asked, any(config.speaks for config in configs)),
            apart=isinstance(asked.get("input"), list),
        )

    def transcript(self, milliseconds: int) -> TranscriptCall:
        """Return a transcript of that much sound."""
        return TranscriptCall(self.transcriber or "", self._tariff, seconds=-(-milliseconds // 1_000))
