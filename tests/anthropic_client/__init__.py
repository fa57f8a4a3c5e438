"""The real `anthropic` client, over a real socket, against a server of Anthropic's protocol."""
