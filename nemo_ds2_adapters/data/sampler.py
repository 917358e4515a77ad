"""Order of utterances in training: NeMo's sampler, whose class is swapped as NeMo does it with adapters."""

from collections.abc import Iterator

import numpy as np
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.parts.utils.asr_batching import SemiSortBatchSampler


class SeededBatchSampler(SemiSortBatchSampler):
    """NeMo's batches of similar duration, decided by seed and epoch alone.

    NeMo draws them from NumPy's global state, so what else is drawn before, by another user's training for example,
    would change a user's batches.
    """

    def _make_batches(self) -> list[np.ndarray]:
        state = np.random.get_state()
        np.random.seed([self.seed, self.epoch])
        try:
            return super()._make_batches()
        finally:
            np.random.set_state(state)


class ShorterFirstBatchSampler(SemiSortBatchSampler):
    """NeMo's batches of similar duration, the first epoch in increasing duration.

    "SortaGrad", Amodei et al. 2015, section 3.3: long utterances have the most unstable gradients, so a network
    that has seen nothing yet starts with the short ones.
    """

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch, also when it resumes."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.epoch > 0:
            yield from super().__iter__()
            return
        batches = self._make_batches()
        yield from sorted(batches, key=lambda batch: self.durations[batch].mean())


def use_shorter_first(model: EncDecCTCModel) -> None:
    """Make the model's training batches, which must be semi-sorted (ValueError), start with short utterances."""
    if not isinstance(model._train_dl.sampler, SemiSortBatchSampler):
        raise ValueError("model.train_ds.shorter_first needs model.train_ds.use_semi_sorted_batching=true")
    model._train_dl.sampler.__class__ = ShorterFirstBatchSampler


def use_seeded_batches(model: EncDecCTCModel, seed: int) -> None:
    """Make the model's semi-sorted training batches depend on seed and epoch alone; others are left as they are."""
    sampler = model._train_dl.sampler
    if isinstance(sampler, SemiSortBatchSampler):
        sampler.__class__, sampler.seed = SeededBatchSampler, seed
