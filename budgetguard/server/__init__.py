"""The hosted budget service: LiteLLM's hosted protocol and one of its own, over HTTP, on any store."""
