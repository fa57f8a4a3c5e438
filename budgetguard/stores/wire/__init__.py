"""Values that cross files and networks as JSON, and what is checked when they come back."""
