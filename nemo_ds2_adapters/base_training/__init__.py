"""Base models and full fine-tuning, with Lightning."""
