"""Content that is kept in a cache: billed as it is read, and by the hour for as long as it is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.errors import ConfigurationError
from budgetguard.providers.base import Asked, Body, Endpoint, Fetching, Prepared, Preparing
from budgetguard.providers.google.input_tokens import gemini_input
from budgetguard.providers.google.known import remember_cached, size_of
from budgetguard.providers.google.paths import bare_model
from budgetguard.providers.json import mapping, parsed, text
from budgetguard.providers.shapes import either

HOURS: Final = "cache_token_hours"
_HOUR: Final = 3_600
_SECONDS: Final = re.compile(r"(\d{1,9})(?:\.\d{1,9})?s")
_INSTANT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")


class CacheEndpoint(Endpoint):
    """Content that is put into a cache.

    Its storage is booked at once, for all of the time that is asked for.

    Args:
        name: what calls to it are known by.
        path: as the table has it.
        vertex: whether it is Vertex'.
    """

    def __init__(self, name: str, path: str, *, vertex: bool = False) -> None:
        super().__init__(name, path)
        self._vertex = vertex

    def project(self, asked: Asked) -> Projection:
        """Project content that is kept: it is read once, and stored for `ttl`, an hour by default.

        Raises:
            ConfigurationError: bad `ttl` or `expireTime`.
            UnknownModelError: nobody knows what its storage costs.
        """
        body = mapping(asked.body)
        seconds = _asked_seconds(body)
        shown = {**body, "contents": either(body, "contents") or [{"parts": [{"text": ""}]}]}
        found = gemini_input(shown, asked.model, vertex=self._vertex, known=size_of)
        tokens = with_margin(found.tokens) + found.unseen
        units = {"input_tokens": tokens, "input_audio_tokens": found.heard, HOURS: _hours(tokens, seconds)}
        return projected(asked.model, asked.rates, {unit: n for unit, n in units.items() if n}, {})

    def input_tokens(self, body: Body, model: str) -> int:
        return gemini_input(mapping(body), model, vertex=self._vertex).tokens

    def read(self, answer: object) -> Reported:
        """Read the tokens that are kept, and for how long."""
        answer = parsed(answer)
        tokens = remember_cached(answer)
        begun, ends = _instant(either(answer, "createTime")), _instant(either(answer, "expireTime"))
        if tokens is None or begun is None or ends is None:
            return Reported(usage=None)
        hours = _hours(tokens, max(0, round((ends - begun).total_seconds())))
        return Reported(usage=Usage({"input_tokens": tokens, HOURS: hours}))


class ExtendEndpoint(Endpoint):
    """Content in a cache that is kept for longer: the time beyond what was asked for before."""

    method = "PATCH"
    fetches = True

    def prepare(self, preparing: Preparing) -> Fetching:
        """Ask what is kept, and until when."""
        name = preparing.path.lstrip("/")
        try:
            kept = yield preparing.fetch.get(name)
        except Exception as error:
            error.add_note(f"budgetguard asked for {name} to project its storage, which was not changed")
            raise
        tokens, model = remember_cached(kept), text(either(kept, "model"))
        ends = _instant(either(kept, "expireTime"))
        if tokens is None or model is None or ends is None:
            raise ConfigurationError(
                f"{name} does not say how much it keeps, and until when, so it was not changed"
            )
        wanted = _wanted_end(preparing.body)
        seconds = 0 if wanted is None else max(0, round((wanted - ends).total_seconds()))
        return Prepared(bare_model(model), {"hours": _hours(tokens, seconds)})

    def project(self, asked: Asked) -> Projection:
        hours = asked.body.get("hours")
        return projected(asked.model, asked.rates, {HOURS: hours} if hours else {}, {})

    def read(self, answer: object) -> Reported:
        """Return nothing: what is asked for is what is billed."""
        remember_cached(parsed(answer))
        return Reported(usage=None)


def _hours(tokens: int, seconds: int) -> int:
    return -(-tokens * seconds // _HOUR)


def _asked_seconds(body: Mapping[str, Any]) -> int:
    ttl = body.get("ttl")
    if ttl is not None:
        found = _SECONDS.fullmatch(ttl) if isinstance(ttl, str) else None
        if found is None:
            raise ConfigurationError(f"ttl must be seconds such as '3600s', not {ttl!r}")
        return int(found[1]) + 1
    ends = either(body, "expireTime")
    if ends is None:
        return _HOUR
    instant = _instant(ends)
    if instant is None:
        raise ConfigurationError(
            f"expireTime must be an instant such as '2026-01-01T00:00:00Z', not {ends!r}"
        )
    return max(0, round((instant - datetime.now(UTC)).total_seconds())) + 1


def _wanted_end(body: Mapping[str, Any]) -> datetime | None:
    if body.get("ttl") is None and either(body, "expireTime") is None:
        return None
    ends = _instant(either(body, "expireTime"))
    if ends is not None and body.get("ttl") is None:
        return ends
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + _asked_seconds(body), UTC)


def _instant(value: object) -> datetime | None:
    found = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    return datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00"))
