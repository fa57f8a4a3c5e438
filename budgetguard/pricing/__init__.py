"""Pricing: what a unit of usage costs, by the user's word, by genai-prices, or by our own dated table."""
