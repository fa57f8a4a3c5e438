"""Extra prices of other providers than OpenAI, with the date and the source of each row."""

from __future__ import annotations

from datetime import date
from typing import Final

from budgetguard.pricing.extra_row import LITELLM, OCTOBER, ExtraPrice, usd
from budgetguard.pricing.steps import stepped
from budgetguard.pricing.tiers import BATCH

_AZURE: Final = "https://azure.microsoft.com/en-us/pricing/details/azure-openai/"
_AZURE_METERS: Final = "https://prices.azure.com/api/retail/prices"
_BEDROCK: Final = "https://aws.amazon.com/bedrock/pricing/"
_BEDROCK_CARDS: Final = "https://docs.aws.amazon.com/bedrock/latest/userguide/"
_COHERE: Final = "https://cohere.com/pricing"
_RERANK_5: Final = "https://cohere.com/blog/rerank-5"
_VOYAGE: Final = "https://docs.voyageai.com/docs/pricing"
_GITHUB: Final = "https://docs.github.com/en/billing/reference/costs-for-github-models"

_CLAUDE: Final = "https://platform.claude.com/docs/en/about-claude/pricing"
_MYTHOS: Final = {
    "input_mtok": "10",
    "output_mtok": "50",
    "cache_write_mtok": "12.5",
    "cache_write_1h_mtok": "20",
    "cache_read_mtok": "1",
    "web_searches_kcount": "10",
}
_MYTHOS_IN_BATCH: Final = {
    "input_mtok": "5",
    "output_mtok": "25",
    "cache_write_mtok": "6.25",
    "cache_write_1h_mtok": "10",
    "cache_read_mtok": "0.5",
}

PRICES_ELSEWHERE: Final = (
    # Tools of other providers. A container for code execution costs $0.05 an hour. The least, 5 minutes, is
    # booked.
    ExtraPrice(
        None,
        usd(container_sessions="0.0042"),
        date(2026, 2, 9),
        "https://platform.claude.com/docs/en/about-claude/pricing",
        provider="anthropic",
        tool=True,
    ),
    # The same in Microsoft Foundry, and searches on Google's Vertex.
    ExtraPrice(
        r"claude-.*",
        usd(container_sessions="0.0042"),
        date(2026, 2, 9),
        _CLAUDE,
        provider="azure",
        tool=True,
    ),
    ExtraPrice(
        r"claude-.*",
        usd(web_searches_kcount="10"),
        OCTOBER,
        "https://cloud.google.com/vertex-ai/generative-ai/pricing",
        provider="google",
        tool=True,
        read_in=LITELLM,
    ),
    # Of limited availability, at the prices of the Fables of the same version; in a batch at half.
    *(
        ExtraPrice(
            f"claude-mythos-{version}", usd(**prices), OCTOBER, _CLAUDE, provider="anthropic", tier=tier
        )
        for version, tier, prices in (
            ("5", None, _MYTHOS),
            ("5", BATCH, _MYTHOS_IN_BATCH),
            ("5-1", None, {**_MYTHOS, "cache_read_mtok": "0.25"}),
            ("5-1", BATCH, {**_MYTHOS_IN_BATCH, "cache_read_mtok": "0.125"}),
        )
    ),
    ExtraPrice(
        None,
        usd(search_sources_kcount="25"),
        date(2025, 5, 22),
        "https://docs.x.ai/docs/guides/live-search",
        provider="x-ai",
        tool=True,
    ),
    ExtraPrice(
        None,
        usd(
            web_searches_kcount="5",
            social_searches_kcount="5",
            code_executions_kcount="5",
            storage_searches_kcount="2.50",
        ),
        date(2026, 1, 12),
        "https://docs.x.ai/developers/pricing.md",
        provider="x-ai",
        tool=True,
    ),
    ExtraPrice(
        None,
        usd(search_results_kcount="4"),
        date(2025, 12, 11),
        "https://openrouter.ai/docs/web-search",
        provider="openrouter",
        tool=True,
    ),
    ExtraPrice(
        None,
        usd(input_document_kpages="2"),
        date(2025, 12, 11),
        "https://openrouter.ai/docs/features/multimodal/pdfs",
        provider="openrouter",
        tool=True,
    ),
    # Azure: what differs from OpenAI's own prices, and pictures and speech, which its list lacks.
    ExtraPrice(
        "gpt-audio",
        usd(input_audio_mtok="40", output_audio_mtok="80"),
        OCTOBER,
        "https://learn.microsoft.com/en-us/azure/foundry/foundry-models/concepts/models-sold-directly-by-azure",
        provider="azure",
        instead_of=usd(input_audio_mtok="32", output_audio_mtok="64"),
        read_in=LITELLM,
    ),
    ExtraPrice(
        "gpt-4o-audio-preview",
        usd(input_audio_mtok="40", output_audio_mtok="80"),
        OCTOBER,
        _AZURE,
        provider="azure",
        read_in=LITELLM,
    ),
    ExtraPrice(
        "gpt-4o-mini-audio-preview",
        usd(input_audio_mtok="10", output_audio_mtok="20"),
        OCTOBER,
        _AZURE,
        provider="azure",
        read_in=LITELLM,
    ),
    ExtraPrice(
        "gpt-4o-mini-tts",
        usd(output_audio_mtok="12"),
        OCTOBER,
        _AZURE,
        provider="azure",
        read_in=LITELLM,
    ),
    ExtraPrice(
        "gpt-image-1", usd(output_image_mtok="40"), OCTOBER, _AZURE, provider="azure", read_in=LITELLM
    ),
    ExtraPrice(
        "gpt-image-1-mini", usd(output_image_mtok="8"), OCTOBER, _AZURE, provider="azure", read_in=LITELLM
    ),
    ExtraPrice(
        r"gpt-image-2|gpt-image-2\.5-(?:sunburst|flare)",
        usd(output_image_mtok="30"),
        OCTOBER,
        _AZURE,
        provider="azure",
        read_in=LITELLM,
    ),
    # Long prompts with priority. Microsoft's guide says that they are served as standard ones; where an
    # answer says otherwise, this is the meter.
    ExtraPrice(
        r"gpt-5\.4",
        {
            "input_mtok": stepped("5", 272_000, "10"),
            "cache_read_mtok": stepped("0.5", 272_000, "1"),
            "output_mtok": stepped("30", 272_000, "45"),
        },
        OCTOBER,
        _AZURE_METERS,
        provider="azure",
        tier="priority",
        instead_of=usd(input_mtok="5", cache_read_mtok="0.5", output_mtok="30"),
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"gpt-5\.5",
        {
            "input_mtok": stepped("12.5", 272_000, "20"),
            "cache_read_mtok": stepped("1.25", 272_000, "2"),
            "output_mtok": stepped("75", 272_000, "90"),
        },
        OCTOBER,
        _AZURE_METERS,
        provider="azure",
        tier="priority",
        instead_of=usd(input_mtok="12.5", cache_read_mtok="1.25", output_mtok="75"),
        read_in=LITELLM,
    ),
    # Bedrock.
    ExtraPrice(
        r"openai\.gpt-5\.4",
        {
            "input_mtok": stepped("2.75", 272_000, "5.5"),
            "cache_read_mtok": stepped("0.275", 272_000, "0.55"),
            "output_mtok": stepped("16.5", 272_000, "24.75"),
        },
        OCTOBER,
        f"{_BEDROCK_CARDS}model-card-openai-gpt-54.html",
        provider="aws",
        instead_of=usd(input_mtok="2.75", cache_read_mtok="0.275", output_mtok="16.5"),
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"openai\.gpt-5\.5",
        {
            "input_mtok": stepped("5.5", 272_000, "11"),
            "cache_read_mtok": stepped("0.55", 272_000, "1.1"),
            "output_mtok": stepped("33", 272_000, "49.5"),
        },
        OCTOBER,
        f"{_BEDROCK_CARDS}model-card-openai-gpt-55.html",
        provider="aws",
        instead_of=usd(input_mtok="5.5", cache_read_mtok="0.55", output_mtok="33"),
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"eu\.amazon\.nova-2-lite-v1:0",
        usd(input_mtok="0.429", cache_read_mtok="0.10725", output_mtok="3.597"),
        OCTOBER,
        _BEDROCK,
        provider="aws",
        instead_of=usd(input_mtok="0.33", cache_read_mtok="0.0825", output_mtok="2.75"),
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"openai\.gpt-oss(?:-safeguard)?-120b",
        usd(input_mtok="0.15", output_mtok="0.6"),
        OCTOBER,
        _BEDROCK,
        provider="aws",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"openai\.gpt-oss-20b",
        usd(input_mtok="0.07", output_mtok="0.3"),
        OCTOBER,
        _BEDROCK,
        provider="aws",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"openai\.gpt-oss-safeguard-20b",
        usd(input_mtok="0.07", output_mtok="0.2"),
        OCTOBER,
        _BEDROCK,
        provider="aws",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"moonshot(?:ai)?\.kimi-k2-thinking",
        usd(input_mtok="0.6", output_mtok="2.5"),
        OCTOBER,
        _BEDROCK,
        provider="aws",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"zai\.glm-4\.7-flash",
        usd(input_mtok="0.07", output_mtok="0.4"),
        OCTOBER,
        _BEDROCK,
        provider="aws",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"xai\.grok-4\.3",
        usd(input_mtok="1.25", output_mtok="2.5"),
        OCTOBER,
        _BEDROCK,
        provider="aws",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"xai\.grok-4\.[67]",
        usd(input_mtok="2.2", cache_read_mtok="0.55", output_mtok="6.6"),
        OCTOBER,
        _BEDROCK,
        provider="aws",
        read_in=LITELLM,
    ),
    # Others.
    ExtraPrice(
        "meta-llama/(?:meta-)?llama-3.3-70b-instruct-turbo",
        usd(input_mtok="1.04", output_mtok="1.04"),
        OCTOBER,
        "https://api.together.ai/v1/models",
        provider="together",
        instead_of=usd(input_mtok="0.88", output_mtok="0.88"),
        read_in=LITELLM,
    ),
    ExtraPrice(
        "embed-(?:english|multilingual)-v3.0|embed-english-light-v3.0",
        usd(input_mtok="0.1"),
        OCTOBER,
        _COHERE,
        provider="cohere",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"embed-(?:english|multilingual)(?:-light)?-v3\.0",
        usd(images="0.0001"),
        OCTOBER,
        _COHERE,
        provider="cohere",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"rerank-(?:v3\.5|(?:english|multilingual)-v3\.0|v4\.0-fast)",
        usd(rerank_searches_kcount="2"),
        OCTOBER,
        _COHERE,
        provider="cohere",
        read_in=LITELLM,
    ),
    ExtraPrice(
        "rerank-v4.0-pro",
        usd(rerank_searches_kcount="2.5"),
        OCTOBER,
        _COHERE,
        provider="cohere",
        read_in=LITELLM,
    ),
    ExtraPrice(
        "rerank-v5.0-pro", usd(input_mtok="0.05"), OCTOBER, _RERANK_5, provider="cohere", read_in=LITELLM
    ),
    ExtraPrice(
        "rerank-v5.0-fast", usd(input_mtok="0.02"), OCTOBER, _RERANK_5, provider="cohere", read_in=LITELLM
    ),
    ExtraPrice(
        "parse-v5.0",
        usd(input_document_kpages="1.5"),
        OCTOBER,
        "https://cohere.com/blog/parse",
        provider="cohere",
        read_in=LITELLM,
    ),
    ExtraPrice(
        "embed-v4.0", usd(input_image_mtok="0.47"), OCTOBER, _COHERE, provider="cohere", read_in=LITELLM
    ),
    ExtraPrice(
        "embed-v5.0-pro", usd(input_mtok="0.12"), OCTOBER, _COHERE, provider="cohere", read_in=LITELLM
    ),
    ExtraPrice(
        "embed-v5.0-fast", usd(input_mtok="0.08"), OCTOBER, _COHERE, provider="cohere", read_in=LITELLM
    ),
    ExtraPrice(
        r"rerank-(?:1|2|2\.5|3)",
        usd(input_mtok="0.05"),
        OCTOBER,
        _VOYAGE,
        provider="voyageai",
        read_in=LITELLM,
    ),
    ExtraPrice(
        r"rerank-(?:2|2\.5|3)-lite|rerank-lite-1",
        usd(input_mtok="0.02"),
        OCTOBER,
        _VOYAGE,
        provider="voyageai",
        read_in=LITELLM,
    ),
    *(
        ExtraPrice(f"(?:[a-z0-9-]+/)?{models}", usd(**prices), OCTOBER, _GITHUB, provider="github")
        for models, prices in (
            ("gpt-4o", {"input_mtok": "2.5", "cache_read_mtok": "1.25", "output_mtok": "10"}),
            ("gpt-4o-mini", {"input_mtok": "0.15", "cache_read_mtok": "0.075", "output_mtok": "0.6"}),
            (r"gpt-4\.1", {"input_mtok": "2", "cache_read_mtok": "0.5", "output_mtok": "8"}),
            (r"gpt-4\.1-mini", {"input_mtok": "0.4", "cache_read_mtok": "0.1", "output_mtok": "1.6"}),
            ("phi-4", {"input_mtok": "0.125", "output_mtok": "0.5"}),
            ("phi-4-mini-instruct", {"input_mtok": "0.075", "output_mtok": "0.3"}),
            ("phi-4-multimodal-instruct", {"input_mtok": "0.08", "output_mtok": "0.32"}),
            ("(?:mai-ds|deepseek)-r1(?:-0528)?", {"input_mtok": "1.35", "output_mtok": "5.4"}),
            ("deepseek-v3-0324", {"input_mtok": "1.14", "output_mtok": "4.56"}),
            ("grok-3-mini", {"input_mtok": "0.25", "output_mtok": "1.27"}),
            ("grok-3", {"input_mtok": "3", "output_mtok": "15"}),
            (
                "llama-4-maverick-17b-128e-instruct-fp8",
                {"input_mtok": "0.25", "output_mtok": "1"},
            ),
            (r"llama-3\.3-70b-instruct", {"input_mtok": "0.71", "output_mtok": "0.71"}),
        )
    ),
)
