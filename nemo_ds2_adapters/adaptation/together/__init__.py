"""Many adapters trained at once."""
