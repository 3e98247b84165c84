"""Store -> trained run."""
