"""Order of training utterances."""

import numpy as np

from nemo_ds2_adapters.data.sampler import ShorterFirstBatchSampler


def make_sampler(**changes: object) -> ShorterFirstBatchSampler:
    durations = np.random.default_rng(0).uniform(1, 10, 50)
    settings = {
        "global_rank": 0,
        "world_size": 1,
        "durations": durations,
        "batch_size": 4,
        "randomization_factor": 0.2,
    }
    return ShorterFirstBatchSampler(**{**settings, **changes})


def test_first_epoch_goes_from_short_to_long() -> None:
    sampler = make_sampler()
    means = [sampler.durations[batch].mean() for batch in sampler]
    assert means == sorted(means)


def test_later_epochs_are_shuffled() -> None:
    sampler = make_sampler()
    sampler.set_epoch(1)
    means = [sampler.durations[batch].mean() for batch in sampler]
    assert means != sorted(means)


def test_every_epoch_has_every_utterance_once() -> None:
    sampler = make_sampler()
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert sorted(np.concatenate(list(sampler))) == list(range(50))


def test_ranks_share_an_epoch() -> None:
    sampler = make_sampler()
    assert len(make_sampler(world_size=2)) * 2 >= len(sampler)
