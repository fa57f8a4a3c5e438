"""The rows of images, audio and video for the table of endpoints."""

from __future__ import annotations

from typing import Final

from budgetguard.providers.base import Endpoint
from budgetguard.providers.openai.audio import (
    SpeechTally,
    TranscriptionTally,
    project_speech,
    project_transcription,
    read_aloud,
    read_speech,
    read_transcription,
)
from budgetguard.providers.openai.images import (
    ImagesTally,
    image_count,
    project_images,
    read_images,
    unreported_images,
)
from budgetguard.providers.openai.video import project_video, read_video

MEDIA: Final = (
    *(
        Endpoint(
            name,
            path,
            project_images,
            choices=image_count,
            read=read_images,
            tally=ImagesTally,
            unreported=unreported_images,
        )
        for name, path in (
            ("images", "/images/generations"),
            ("image edits", "/images/edits"),
            ("image variations", "/images/variations"),
        )
    ),
    Endpoint(
        "speech",
        "/audio/speech",
        project_speech,
        read=read_speech,
        tally=SpeechTally,
        unreported=read_aloud,
    ),
    Endpoint(
        "transcriptions",
        "/audio/transcriptions",
        project_transcription,
        read=read_transcription,
        tally=TranscriptionTally,
    ),
    Endpoint("translations", "/audio/translations", project_transcription, read=read_transcription),
    Endpoint("videos", "/videos", project_video, read=read_video),
)
