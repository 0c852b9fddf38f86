"""The Hugging Face hub: registries at hf:// URLs, and its errors in words."""

HUB = "hf://"
"""How locations there begin."""
