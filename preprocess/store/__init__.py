"""Windows on disk."""
