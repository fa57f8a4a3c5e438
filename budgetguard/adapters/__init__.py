"""Adapters: how one kind of request and its answer are read."""
