"""Anybody's audio -> tags and embeddings."""
