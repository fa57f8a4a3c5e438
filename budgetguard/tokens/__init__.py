"""Counting: how many tokens a request is billed as, offline."""
