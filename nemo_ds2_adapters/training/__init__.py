"""Training: base models and adapters."""
