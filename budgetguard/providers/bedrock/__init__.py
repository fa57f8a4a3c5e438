"""Amazon's Bedrock."""
