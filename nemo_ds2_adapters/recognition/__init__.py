"""Recognising speech with adapters: many users in one batch."""
