"""Recognising people while they speak: many streams in one batch."""
