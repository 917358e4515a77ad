"""The frozen prefix of a network, computed once per utterance and reused in every epoch."""

from nemo_ds2_adapters.training.prefix.cache import PrefixCache
from nemo_ds2_adapters.training.prefix.data import Item, PrefixDataset, audio_identity, prefix_loader
from nemo_ds2_adapters.training.prefix.point import resume_point, why_not_exact

__all__ = [
    "Item",
    "PrefixCache",
    "PrefixDataset",
    "audio_identity",
    "prefix_loader",
    "resume_point",
    "why_not_exact",
]
