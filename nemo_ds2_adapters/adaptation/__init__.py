"""Training adapters: one speaker's, many speakers'."""
