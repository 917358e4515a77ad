"""Manifests, transcripts, recordings and speakers: read once, checked once, passed on as values."""
