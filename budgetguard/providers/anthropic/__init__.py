"""Anthropic: the `anthropic` package's clients, and the endpoints of its API."""
