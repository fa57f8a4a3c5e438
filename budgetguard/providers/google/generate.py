"""Gemini's answers to contents: `models/...:generateContent`, and the same as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.events import logger
from budgetguard.providers.answers import Piece
from budgetguard.providers.base import Asked, Body, Endpoint, Fetching, Prepared, Preparing
from budgetguard.providers.google.answers import MAPS, GeminiAccumulator, gemini_texts, read_gemini
from budgetguard.providers.google.input_tokens import GeminiInput, gemini_input, named_files
from budgetguard.providers.google.known import (
    cached_tokens,
    is_known,
    remember_cached,
    remember_file,
    size_of,
    uploaded_name,
)
from budgetguard.providers.google.paths import model_in
from budgetguard.providers.hidden_input import UNSEEN, input_beyond
from budgetguard.providers.json import count, field, mapping, parsed, text, whole
from budgetguard.providers.shapes import either
from budgetguard.providers.thinking import thinking_tokens
from budgetguard.tokens.models import bare_name

# Input tokens to allow at first for what tools find that run at Google, from recorded requests (most): code
# execution 1 732, a search 550, pages 2 395, stores of files 1 190.
_ALLOWANCES: Final[Mapping[str, int]] = {
    "code_execution": 2_000,
    "google_search": 1_000,
    "google_maps": 2_000,
    "url_context": 8_000,
    "file_search": 4_000,
    "computer_use": 2_000,
}
# Searches that an answer makes at first. Each is billed from Gemini 3 on; before, those of an answer as one.
_SEARCHES: Final = 4
# Content that is in a cache, of which nothing is known: more than the least that is kept.
_UNSEEN_CACHE: Final = 40_000
# Tokens of a drawn image by `imageSize`, the price page's: https://ai.google.dev/gemini-api/docs/pricing
_DRAWN: Final[Mapping[str, int]] = {"512": 747, "0.5K": 747, "1K": 1_120, "2K": 1_680, "4K": 2_520}
_DRAWN_UNSAID: Final = 1_290
# gemini-3-pro-image: 2K as 1K, and 4K 2 000.
_DRAWS_PRO: Final = re.compile(r"gemini-3-pro-image|nano-banana-pro")
_DRAWN_PRO: Final[Mapping[str, int]] = {"4K": 2_000}
_DRAWS: Final = re.compile(r".*(?:-image|nano-banana)")
_SPEAKS: Final = re.compile(r".*-tts")
# Sound has 25 tokens a second, in which 3 to 4 tokens of text are spoken.
_SPOKEN_A_TOKEN: Final = 8
_SPOKEN_LEAST: Final = 40
_MOST_CANDIDATES: Final = 64
_PATIENCE: Final = 10.0
_COUNTED: Final = ("contents", "systemInstruction", "tools", "generationConfig")

_warned: set[str] = set()


class GeminiEndpoint(Endpoint):
    """Contents that Gemini answers.

    Args:
        name: what calls to it are known by.
        path: as the table has it.
        vertex: whether it is Vertex', which bills some of the input otherwise.
        streamed: whether its answers come as streams.
    """

    counts_input = True
    streams = True

    def __init__(self, name: str, path: str, *, vertex: bool = False, streamed: bool = False) -> None:
        super().__init__(name, path)
        self._vertex = vertex
        self._streamed = streamed

    def project(self, asked: Asked) -> Projection:
        """Project an answer.

        What is found in a cache is priced as such. What tools find at Google is allowed for, until settled
        calls have taught better. What a model thinks is output.

        Raises:
            ConfigurationError: bad `contents`, `maxOutputTokens` or `candidateCount`.
            UnknownModelError: the call would use a unit that has no price.
        """
        body, model = mapping(asked.body), asked.model
        found = self._input(body, model)
        config = mapping(either(body, "generationConfig") or {})
        cap = whole({"maxOutputTokens": either(config, "maxOutputTokens")}, "maxOutputTokens", least=1)
        choices = (
            whole(
                {"candidateCount": either(config, "candidateCount")},
                "candidateCount",
                least=1,
                most=_MOST_CANDIDATES,
            )
            or 1
        )
        thinking = thinking_tokens(body)
        output = _output(config, model, asked, found, cap, thinking)
        cached = 0 if found.cached is None else cached_tokens(found.cached) or 0
        allowances, fees, unknown = _of_hosted_tools(found, model)
        if found.unseen:
            allowances[UNSEEN] = found.unseen
        if found.cached is not None and not cached:
            allowances["cached_content"] = _UNSEEN_CACHE
        if asked.counted is None:
            shown = with_margin(found.tokens)
            kinds = sorted(found.kinds)
            hidden, more = input_beyond(self.name, body, model, kinds, allowances, shown, asked.learned)
        else:
            shown, hidden, more = max(0, asked.counted - cached), None, 0
            allowances = {kind: n for kind, n in allowances.items() if kind in _ALLOWANCES}
            if allowances:
                hidden, more = input_beyond(
                    f"counted {self.name}", body, model, [], allowances, shown, asked.learned
                )
        tokens = shown + more + cached
        read = {"input_tokens": tokens, "cache_read_tokens": cached, "input_audio_tokens": found.heard}
        tier = text(field(body, "serviceTier"))
        return projected(
            model,
            asked.rates,
            {unit: n for unit, n in {**read, **fees, **unknown}.items() if n},
            {unit: n * choices for unit, n in {**output.units, **self.more_output(body, model)}.items()},
            cap_assumed=cap is None,
            output_cap=output.cap,
            choices=choices,
            asked_tier=tier.lower() if tier is not None and tier.lower() in ("flex", "priority") else None,
            hidden=hidden,
            fees=unknown,
            asked_to_think=thinking is not None,
        )

    def more_output(self, body: Mapping[str, Any], model: str) -> Mapping[str, int]:
        """Return units of output beside tokens of text, images and sound."""
        return {}

    def input_tokens(self, body: Body, model: str) -> int:
        return self._input(mapping(body), model).tokens

    def cap_name(self, provider: str) -> str | None:
        return "maxOutputTokens"

    def read(self, answer: object) -> Reported:
        return read_gemini(parsed(answer))

    def texts(self, answer: Any) -> Iterable[Piece]:
        return gemini_texts(answer)

    def accumulator(self, model: str) -> GeminiAccumulator:
        return GeminiAccumulator(model)

    def must_fetch(self, body: Body) -> bool:
        """Whether a request names what is not known here: content in a cache, files that were uploaded."""
        return any(True for _ in _to_ask(mapping(body)))

    def prepare(self, preparing: Preparing) -> Fetching:
        """Ask for what the request names and what is not known here, and have its input counted if wanted.

        What cannot be had is allowed for instead.
        """
        body, model = mapping(preparing.body), model_in(preparing.path) or ""
        for name in dict.fromkeys(_to_ask(body)):
            try:
                answer = yield preparing.fetch.get(name)
            except Exception as error:  # noqa: BLE001 - the call itself will be told what is wrong
                _warn(f"{name} was not found ({type(error).__name__})")
                continue
            if name.startswith("files/"):
                remember_file(name, answer)
            else:
                remember_cached(answer)
        if not preparing.counts:
            return Prepared(model, body)
        asked: dict[str, Any] = {name: body[name] for name in _COUNTED if body.get(name) is not None}
        if not self._vertex:
            asked = {"generateContentRequest": {"model": f"models/{model}", **asked}}
        path = preparing.path.rpartition(":")[0] + ":countTokens"
        try:
            answer = yield preparing.fetch.post(path, asked, timeout=_PATIENCE)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, there is a count of our own
            _warn(f"the provider did not count the input ({type(error).__name__})")
            return Prepared(model, body)
        counted = count(either(answer, "totalTokens"))
        if counted is None:
            _warn("the provider answered without a count of the input")
        return Prepared(model, body, counted=counted)

    def _input(self, body: Mapping[str, Any], model: str) -> GeminiInput:
        return gemini_input(body, model, vertex=self._vertex, streamed=self._streamed, known=size_of)


@dataclass(frozen=True, slots=True)
class _Output:
    """What an answer will be at most.

    Attributes:
        cap: output tokens.
        units: by what they are.
    """

    cap: int
    units: Mapping[str, int]


def _output(
    config: Mapping[str, Any],
    model: str,
    asked: Asked,
    found: GeminiInput,
    cap: int | None,
    thinking: int | None,
) -> _Output:
    name = bare_name(model)
    modalities = {str(one).upper() for one in either(config, "responseModalities") or ()}
    if "AUDIO" in modalities or _SPEAKS.match(name):
        spoken = _SPOKEN_LEAST + _SPOKEN_A_TOKEN * found.tokens
        spoken = max(spoken, asked.learned(model) or 0) if cap is None else min(cap, spoken)
        return _Output(spoken, {"output_tokens": spoken, "output_audio_tokens": spoken})
    given = cap
    if cap is None:
        cap = assumed_output_cap(model, asked.learned(model), thinking)
    if "IMAGE" not in modalities and (modalities or not _DRAWS.match(name)):
        return _Output(cap, {"output_tokens": cap})
    drawn = _drawn(config, name)
    # What is drawn is not cut off in the middle.
    cap = drawn + cap if given is None else max(drawn, cap)
    return _Output(cap, {"output_tokens": cap, "output_image_tokens": drawn})


def _drawn(config: Mapping[str, Any], name: str) -> int:
    size = text(either(either(config, "imageConfig"), "imageSize"))
    if _DRAWS_PRO.match(name):
        return _DRAWN_PRO.get(size or "", _DRAWN["1K"])
    return _DRAWN_UNSAID if size is None else _DRAWN.get(size.upper(), max(_DRAWN.values()))


def _of_hosted_tools(found: GeminiInput, model: str) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Return what to allow for what tools find that run at Google, their fees, and those of unknown tools."""
    allowances = {kind: _ALLOWANCES[kind] for kind in found.hosted}
    older = any(part in model for part in ("gemini-1", "gemini-2"))
    fees: dict[str, int] = {}
    if "google_search" in found.hosted:
        fees["web_searches"] = 1 if older else _SEARCHES
    if "google_maps" in found.hosted:
        fees[MAPS] = 1
    unknown = {f"tool_uses_{_snake(name)}": 1 for name in found.unknown}
    return allowances, fees, unknown


def _snake(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()).strip("_")


def _to_ask(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a request names and nobody here knows: `cachedContents/...`, `files/...`."""
    cached = text(either(body, "cachedContent"))
    if cached is not None and cached_tokens(cached) is None:
        yield cached
    for address in named_files(body):
        if (name := uploaded_name(address)) is not None and not is_known(name):
            yield name


def _warn(what: str) -> None:
    if what not in _warned:
        _warned.add(what)
        logger.warning("budgetguard: to project a call, %s; it was estimated here", what)
