"""Adapters as bytes: this package's files, NeMo's, and the original's."""
