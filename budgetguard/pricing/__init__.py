"""Prices of units of usage: those the user registered, then genai-prices' list, then a small dated table."""
