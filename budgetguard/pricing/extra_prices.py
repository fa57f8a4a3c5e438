"""Extra prices of OpenAI: what genai-prices lacks or has wrong, with the date and the source of each row.

Every figure is from a public page of the provider, read in dated copies. What is on no page is not here and
is refused: a price is never guessed. `read_in` names the other table in which a page's figure was read, where
the page itself was not at hand.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from budgetguard.pricing.extra_row import LITELLM, OCTOBER, ExtraPrice, usd
from budgetguard.pricing.steps import stepped
from budgetguard.pricing.tiers import BATCH

_FEBRUARY: Final = date(2026, 2, 7)
_SEPTEMBER: Final = date(2026, 9, 8)
_MODELS: Final = "https://developers.openai.com/api/docs/models/"
_NOT_REASONING: Final = r"gpt-4(?:o|\.1|-turbo|\.5)?(?:-(?:mini|nano|preview))*|gpt-3\.5-turbo|chatgpt-4o"

OPENAI_PRICES: Final = (
    # Per image. OpenAI shut these down on 2026-05-12; other addresses still serve models of these names.
    ExtraPrice(
        "dall-e-2",
        usd(
            images_standard_256x256="0.016",
            images_standard_512x512="0.018",
            images_standard_1024x1024="0.02",
        ),
        _FEBRUARY,
    ),
    ExtraPrice(
        "dall-e-3",
        usd(
            images_standard_1024x1024="0.04",
            images_standard_1024x1792="0.08",
            images_standard_1792x1024="0.08",
            images_hd_1024x1024="0.08",
            images_hd_1024x1792="0.12",
            images_hd_1792x1024="0.12",
        ),
        _FEBRUARY,
    ),
    # genai-prices lists this price as their output price, but answers report image tokens separately.
    ExtraPrice("gpt-image-1", usd(output_image_mtok="40"), _FEBRUARY),
    ExtraPrice("gpt-image-1-mini", usd(output_image_mtok="8"), _FEBRUARY),
    ExtraPrice(r"gpt-image-2|gpt-image-2\.[56]-(?:sunburst|flare)", usd(output_image_mtok="30"), _SEPTEMBER),
    # The same for speech, which is the only output of this model.
    ExtraPrice("gpt-4o-mini-tts", usd(output_audio_mtok="12"), _FEBRUARY),
    # Fine-tuned models, which cost more than their bases.
    ExtraPrice(
        r"ft:gpt-4\.1",
        usd(input_mtok="3", cache_read_mtok="0.75", output_mtok="12"),
        OCTOBER,
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"ft:gpt-4\.1",
        usd(input_mtok="1.5", cache_read_mtok="0.5", output_mtok="6"),
        OCTOBER,
        tier=BATCH,
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"ft:gpt-4\.1-mini",
        usd(input_mtok="0.8", cache_read_mtok="0.2", output_mtok="3.2"),
        OCTOBER,
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"ft:gpt-4\.1-mini",
        usd(input_mtok="0.4", cache_read_mtok="0.1", output_mtok="1.6"),
        OCTOBER,
        tier=BATCH,
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"ft:gpt-4\.1-nano",
        usd(input_mtok="0.2", cache_read_mtok="0.05", output_mtok="0.8"),
        OCTOBER,
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"ft:gpt-4\.1-nano",
        usd(input_mtok="0.1", cache_read_mtok="0.025", output_mtok="0.4"),
        OCTOBER,
        tier=BATCH,
        read_in=LITELLM,
    ),
    ExtraPrice(
        "ft:o4-mini",
        usd(input_mtok="4", cache_read_mtok="1", output_mtok="16"),
        date(2026, 3, 21),
        f"{_MODELS}o4-mini",
    ),
    ExtraPrice(
        "ft:o4-mini",
        usd(input_mtok="2", cache_read_mtok="0.5", output_mtok="8"),
        OCTOBER,
        tier=BATCH,
        read_in=LITELLM,
    ),
    ExtraPrice("ft:gpt-4o", usd(cache_read_mtok="1.875"), OCTOBER, read_in=LITELLM),
    ExtraPrice(
        "ft:gpt-4o",
        usd(input_mtok="2.225", cache_read_mtok="0.9", output_mtok="12.5"),
        OCTOBER,
        tier=BATCH,
        read_in=LITELLM,
    ),
    ExtraPrice("ft:gpt-4o-mini", usd(cache_read_mtok="0.15"), OCTOBER, read_in=LITELLM),
    # What these hear and say, beside their text.
    ExtraPrice(
        "gpt-4o-audio-preview",
        usd(input_audio_mtok="40", output_audio_mtok="80"),
        _SEPTEMBER,
        f"{_MODELS}gpt-4o-audio-preview",
    ),
    ExtraPrice(
        "gpt-4o-mini-audio-preview",
        usd(input_audio_mtok="10", output_audio_mtok="20"),
        _SEPTEMBER,
        f"{_MODELS}gpt-4o-mini-audio-preview",
    ),
    ExtraPrice(
        "gpt-4o-transcribe(?:-diarize)?",
        usd(input_audio_mtok="2.5"),
        date(2026, 5, 7),
        f"{_MODELS}gpt-4o-transcribe",
        instead_of=usd(input_audio_mtok="6"),
    ),
    ExtraPrice(
        "gpt-4o-mini-transcribe",
        usd(input_audio_mtok="1.25"),
        date(2026, 9, 3),
        f"{_MODELS}gpt-4o-mini-transcribe",
        instead_of=usd(input_audio_mtok="3"),
    ),
    ExtraPrice("gpt-4o-search-preview", usd(cache_read_mtok="1.25"), OCTOBER, read_in=LITELLM),
    # Long prompts: twice the input and one and a half times the output above 272 000 tokens.
    ExtraPrice(
        r"gpt-5\.5-pro",
        {"input_mtok": stepped("15", 272_000, "30"), "output_mtok": stepped("90", 272_000, "135")},
        OCTOBER,
        tier=BATCH,
        instead_of=usd(input_mtok="15", output_mtok="90"),
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"gpt-5\.6-cyber",
        {
            "input_mtok": stepped("12.5", 272_000, "25"),
            "cache_read_mtok": stepped("1.25", 272_000, "2.5"),
            "cache_write_mtok": stepped("15.625", 272_000, "31.25"),
            "output_mtok": stepped("75", 272_000, "112.5"),
        },
        OCTOBER,
        instead_of=usd(
            input_mtok="12.5", cache_read_mtok="1.25", cache_write_mtok="15.625", output_mtok="75"
        ),
        read_in=LITELLM,
    ),
    # Images in a batch cost half.
    ExtraPrice("gpt-image-1-mini", usd(output_image_mtok="4"), OCTOBER, tier=BATCH, read_in=LITELLM),
    ExtraPrice(
        r"gpt-image-2|gpt-image-2\.[56]-(?:sunburst|flare)",
        usd(output_image_mtok="15"),
        OCTOBER,
        tier=BATCH,
        read_in=LITELLM,
    ),
    # Per second of video. Shut down on 2026-09-24.
    ExtraPrice("sora-2", usd(video_seconds_720x1280="0.10"), _FEBRUARY),
    ExtraPrice("sora-2-pro", usd(video_seconds_720x1280="0.30", video_seconds_1024x1792="0.50"), _FEBRUARY),
    ExtraPrice("sora-2-pro", usd(video_seconds_1080x1920="0.70"), _SEPTEMBER),
    ExtraPrice("sora-2-pro-high-res", usd(video_seconds="0.50"), OCTOBER, read_in=LITELLM),
    # Per call of a hosted tool, besides the input tokens that it reads. This model uses the preview tool,
    # although its requests do not name it.
    ExtraPrice("gpt-4o-search-preview", usd(web_searches_kcount="25"), _FEBRUARY, tool=True),
    ExtraPrice(_NOT_REASONING, usd(web_search_previews_kcount="25"), _FEBRUARY, tool=True),
    ExtraPrice(r"o\d.*|gpt-[5-9].*", usd(web_search_previews_kcount="10"), _FEBRUARY, tool=True),
    ExtraPrice(
        None,
        usd(
            web_searches_kcount="10",
            storage_searches_kcount="2.50",
            container_sessions_1g="0.03",
            container_sessions_4g="0.12",
            container_sessions_16g="0.48",
            container_sessions_64g="1.92",
            drawn_mtok_gpt_image_1="40",
            drawn_mtok_gpt_image_1_mini="8",
            drawn_mtok_gpt_image_1_5="32",
            drawn_mtok_chatgpt_image_latest="32",
        ),
        _FEBRUARY,
        tool=True,
    ),
    ExtraPrice(
        None,
        usd(
            drawn_mtok_gpt_image_2="30",
            drawn_mtok_gpt_image_2_5_sunburst="30",
            drawn_mtok_gpt_image_2_5_flare="30",
            drawn_mtok_gpt_image_2_6_sunburst="30",
            drawn_mtok_gpt_image_2_6_flare="30",
        ),
        _SEPTEMBER,
        tool=True,
    ),
)
