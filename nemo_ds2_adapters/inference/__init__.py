"""Using adapted models: many users in one batch."""
