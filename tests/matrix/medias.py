"""Images, speech, recordings and videos: most of them are forms with files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from openai.types import ImageEditStreamEvent, ImageGenStreamEvent, ImagesResponse
from openai.types.audio import Transcription, TranscriptionStreamEvent, Translation

from tests.adapters.media import billed_nanos, o200k
from tests.adapters.pictures import png
from tests.provider.media import MediaServer, silence

from .case import Case
from .ways import POLLED, POST, Way, calls, done, faces, post_stream, posts, stream_faces, streams

PROMPT = "A cat that counts coins on a marble table."
PICTURE = ("a.png", png(512, 512), "image/png")
SOUND = ("sound.wav", silence(8.4), "audio/wav")

DRAW: Any = {"prompt": PROMPT, "model": "gpt-image-1.5", "size": "1024x1024", "quality": "medium"}
BY_IMAGE: Any = {"prompt": PROMPT, "model": "dall-e-3"}
EDIT: Any = {**DRAW, "image": PICTURE}
EDIT_BY_IMAGE: Any = {"prompt": PROMPT, "model": "dall-e-2", "image": PICTURE, "size": "512x512"}
VARY: Any = {"model": "dall-e-2", "image": PICTURE, "size": "512x512", "n": 2}
SPEAK: Any = {
    "input": "Good morning to the people in the room.",
    "voice": "alloy",
    "model": "gpt-4o-mini-tts",
}
SPEAK_BY_CHARACTER: Any = {**SPEAK, "model": "tts-1"}
WRITE: Any = {"file": SOUND, "model": "gpt-4o-transcribe"}
WHISPER: Any = {"file": SOUND, "model": "whisper-1"}
FILM: Any = {"prompt": "A cat walks over a table.", "model": "sora-2"}


def _form(body: Mapping[str, Any], *files: str) -> dict[str, Any]:
    """Return what `client.post` takes for a form, as the SDK's own methods pass it."""
    return {
        "body": {name: value for name, value in body.items() if name not in files},
        "files": [(name, body[name]) for name in files],
        "options": {"headers": {"Content-Type": "multipart/form-data"}},
    }


def _post_form_stream(path: str, body: Mapping[str, Any], file: str, item: Any) -> Way:
    form = _form(body, file)
    return post_stream(path, form.pop("body"), item, **form)


def _generations() -> Iterator[Way]:
    yield from calls("images.generate", {"by tokens": DRAW, "by the image": BY_IMAGE})
    partial = {**DRAW, "partial_images": 2}
    yield from streams("images.generate", {"plain": DRAW, "partial images": partial})
    yield from faces("images.generate", DRAW)
    yield from stream_faces("images.generate", DRAW)
    yield from posts("/images/generations", {"body": {"body": DRAW}}, (ImagesResponse, object))
    yield post_stream("/images/generations", DRAW, ImageGenStreamEvent)


def _edits() -> Iterator[Way]:
    several = {**EDIT, "image": [PICTURE, PICTURE]}
    yield from calls("images.edit", {"by tokens": EDIT, "several": several, "by the image": EDIT_BY_IMAGE})
    yield from streams("images.edit", {"plain": EDIT, "partial images": {**EDIT, "partial_images": 1}})
    yield from faces("images.edit", EDIT)
    yield from stream_faces("images.edit", EDIT)
    yield from posts("/images/edits", {"form": _form(EDIT, "image")}, (ImagesResponse, object))
    yield _post_form_stream("/images/edits", EDIT, "image", ImageEditStreamEvent)


def _variations() -> Iterator[Way]:
    yield from calls("images.create_variation", {"plain": VARY})
    yield from faces("images.create_variation", VARY)
    yield from posts("/images/variations", {"form": _form(VARY, "image")}, (ImagesResponse, object))


def _speech() -> Iterator[Way]:
    # Billed by tokens, its length is measured, unless it comes as events, which report it.
    measured = {
        "by tokens": SPEAK,
        "instructions": {**SPEAK, "instructions": "Whisper."},
        "slow": {**SPEAK, "speed": 0.5},
    }
    told = {
        "events": {**SPEAK, "stream_format": "sse"},
        "by the character": SPEAK_BY_CHARACTER,
        "by the character, hd": {**SPEAK, "model": "tts-1-hd"},
    }
    yield from calls("audio.speech.create", measured, estimated=True)
    yield from calls("audio.speech.create", told)
    for body in (SPEAK, SPEAK_BY_CHARACTER):
        for way in faces("audio.speech.create", body, estimated=body is SPEAK):
            yield replace(way, name=f"{way.name}, {body['model']}")
    yield from posts("/audio/speech", {"body": {"body": SPEAK}}, (bytes,), estimated=True)


def _transcriptions() -> Iterator[Way]:
    bodies = {
        "by tokens": WRITE,
        "a prompt": {**WRITE, "prompt": "Names: Ann, Bob"},
        "by the second": WHISPER,
        "verbose": {**WHISPER, "response_format": "verbose_json"},
    }
    yield from calls("audio.transcriptions.create", bodies)
    text = {**WHISPER, "response_format": "text"}
    yield from calls("audio.transcriptions.create", {"text, which reports nothing": text}, estimated=True)
    yield from streams("audio.transcriptions.create", {"plain": WRITE})
    yield from faces("audio.transcriptions.create", WRITE)
    yield from stream_faces("audio.transcriptions.create", WRITE)
    yield from posts("/audio/transcriptions", {"form": _form(WRITE, "file")}, (Transcription, object))
    yield _post_form_stream("/audio/transcriptions", WRITE, "file", TranscriptionStreamEvent)


def _translations() -> Iterator[Way]:
    yield from calls("audio.translations.create", {"plain": WHISPER}, estimated=True)
    yield from faces("audio.translations.create", WHISPER, estimated=True)
    form = {"form": _form(WHISPER, "file")}
    yield from posts("/audio/translations", form, (Translation, object), estimated=True)


async def _filmed(client: Any) -> Any:
    job = await done(client.videos.create(**FILM))
    seen = [await done(client.videos.retrieve(job.id)) for _ in range(3)]
    return job, seen, await done(client.videos.download_content(job.id))


def _videos() -> Iterator[Way]:
    reference = {**FILM, "input_reference": PICTURE}
    yield from calls("videos.create", {"plain": FILM, "long": {**FILM, "seconds": "12"}, "a form": reference})
    yield from faces("videos.create", FILM)
    yield Way(POST, "post", "body", lambda client: done(client.post("/videos", body=FILM, cast_to=object)))
    yield Way(POLLED, "videos.create", "retrieved and downloaded", _filmed)
    yield Way(
        POLLED,
        "videos.create_and_poll",
        "plain",
        lambda client: done(client.videos.create_and_poll(**FILM, poll_interval_ms=1)),
    )


def _serve() -> MediaServer:
    return MediaServer(count_tokens=o200k)


CASES = tuple(
    Case((row,), title, _serve, billed_nanos, tuple(ways))
    for row, title, ways in (
        ("images", "Images", _generations()),
        ("image edits", "Image edits", _edits()),
        ("image variations", "Image variations", _variations()),
        ("speech", "Speech", _speech()),
        ("transcriptions", "Transcriptions", _transcriptions()),
        ("translations", "Translations", _translations()),
        ("videos", "Videos", _videos()),
    )
)
