"""What a realtime session is set to do, in the names of the present API and of its beta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from budgetguard.providers.json import items, mapping, text

_PCM: Final = "audio/pcm"


class SessionConfig:
    """The settings of a session, or what `session.update` events have put together of them.

    Args:
        values: JSON.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def updated(self, change: object) -> SessionConfig:
        """Return it with a change on top, as the server does it: what is absent stays."""
        return SessionConfig(_merged(self._values, mapping(change)))

    @property
    def model(self) -> str | None:
        """The model that answers."""
        return text(self._values.get("model"))

    @property
    def instructions(self) -> object:
        """What every response is told."""
        return self._values.get("instructions")

    @property
    def tools(self) -> object:
        """The tools that every response is offered."""
        return self._values.get("tools")

    @property
    def cap(self) -> int | None:
        """The most output tokens of a response, or None if there is no cap."""
        return response_cap(self._values)

    @property
    def speaks(self) -> bool:
        """Whether responses are spoken."""
        return speaks(self._values)

    @property
    def audio_in(self) -> str:
        """The format of the sound that is sent."""
        return _format(self._input("format"), self._values.get("input_audio_format"))

    @property
    def audio_out(self) -> str:
        """The format of the sound that comes."""
        output = mapping(mapping(self._values.get("audio")).get("output"))
        return _format(output.get("format"), self._values.get("output_audio_format"))

    @property
    def transcribes_with(self) -> str | None:
        """The model that writes down what is heard, or None if none does."""
        chosen = self._input("transcription")
        if chosen is None:
            chosen = self._values.get("input_audio_transcription")
        if not chosen:
            return None
        return text(mapping(chosen).get("model")) or "whisper-1"

    @property
    def answers_unasked(self) -> bool:
        """Whether the server makes responses that nobody asked it for.

        It does when it hears that somebody stopped speaking, unless `turn_detection` is null or says
        otherwise; and it may go on by itself after it has called a tool of an MCP server.
        """
        if self._values.get("type") == "transcription":
            return False
        if any(mapping(tool).get("type") == "mcp" for tool in items(self.tools)):
            return True
        detection = self._detection()
        return detection is not None and detection.get("create_response") is not False

    @property
    def answers_silence(self) -> bool:
        """Whether the server makes responses although nothing is sent to it."""
        detection = self._detection()
        return self.answers_unasked and bool(detection and detection.get("idle_timeout_ms"))

    def _detection(self) -> Mapping[str, Any] | None:
        for holder in (mapping(mapping(self._values.get("audio")).get("input")), self._values):
            if "turn_detection" in holder:
                found = holder["turn_detection"]
                return None if found is None else mapping(found)
        return {}  # on by default

    def _input(self, name: str) -> Any:
        return mapping(mapping(self._values.get("audio")).get("input")).get(name)


def response_cap(values: Mapping[str, Any]) -> int | None:
    """Return the cap on output tokens that a session or a response sets; None where there is none (`inf`)."""
    for name in ("max_output_tokens", "max_response_output_tokens"):
        cap = values.get(name)
        if isinstance(cap, int) and not isinstance(cap, bool) and cap > 0:
            return cap
    return None


def speaks(values: Mapping[str, Any], default: bool = True) -> bool:
    """Whether a session or a response is spoken."""
    for name in ("output_modalities", "modalities"):
        if (chosen := values.get(name)) is not None:
            return "audio" in list(items(chosen))
    return default


def _format(present: Any, beta: Any) -> str:
    kind = mapping(present).get("type") if present is not None else beta
    return kind if isinstance(kind, str) else _PCM


def _merged(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in change.items():
        before = merged.get(name)
        # What is nested is changed field by field; lists are replaced.
        if isinstance(value, Mapping) and isinstance(before, Mapping) and name != "tool_choice":
            merged[name] = _merged(before, value)
        else:
            merged[name] = value
    return merged
