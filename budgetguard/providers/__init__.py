"""Adapters: how a provider's requests and answers, or any function's, are read."""
