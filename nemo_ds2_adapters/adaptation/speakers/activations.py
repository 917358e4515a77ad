"""Prefix activations of many speakers, where `AdapterStore.erase` finds them."""

from collections.abc import Iterable

from torch import Tensor

from nemo_ds2_adapters.activations.cache import Key, PrefixCache
from nemo_ds2_adapters.data.speakers import Speaker
from nemo_ds2_adapters.store.store import AdapterStore


class ActivationsInStore(PrefixCache):
    """A cache that keeps each speaker's activations in the speaker's folder of a store.

    Args:
        store: on the local disk.
        speakers: whose recordings are whose.
    """

    def __init__(self, store: AdapterStore, speakers: Iterable[Speaker]) -> None:
        super().__init__()
        self._caches: dict[tuple[str, float], PrefixCache] = {}
        for speaker in speakers:
            cache = PrefixCache(store.cache_folder(speaker.user_id), memory=0.0)
            for utterance in speaker.utterances:
                self._caches[str(utterance.audio.resolve()), utterance.offset] = cache

    def get(self, key: Key) -> Tensor | None:
        """See `PrefixCache`."""
        return self._of_speaker(key).get(key)

    def put(self, key: Key, tensor: Tensor) -> None:
        """See `PrefixCache`."""
        self._of_speaker(key).put(key, tensor)

    def _of_speaker(self, key: Key) -> PrefixCache:
        path, _, _, offset, _ = key["audio"]
        return self._caches[path, offset or 0.0]
