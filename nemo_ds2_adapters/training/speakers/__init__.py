"""An adapter for every speaker of a manifest, in one run."""

from nemo_ds2_adapters.training.speakers.run import adapt_speakers

__all__ = ["adapt_speakers"]
