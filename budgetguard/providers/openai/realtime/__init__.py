"""OpenAI's realtime sessions."""
