"""Settings, prompts and data files: read once, validated, frozen."""
