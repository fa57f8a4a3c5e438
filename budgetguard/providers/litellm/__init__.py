"""LiteLLM: its functions, whichever provider they ask."""
