"""Adapting and serving on many machines, over Ray."""
