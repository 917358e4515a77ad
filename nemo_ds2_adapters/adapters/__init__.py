"""Adapters as things of their own: the value, its name, and its place in a model."""
