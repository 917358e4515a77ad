"""An adapter for every speaker of a manifest, in one run."""
