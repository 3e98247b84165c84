"""Buckets and downloads as files; knows no model and no store."""
