"""The version, in a module of its own so that building a package does not import NeMo."""

__version__ = "0.1.0"
