"""A base lent to the training of adapters: frozen, with one of them attached, and as it was afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain, pairwise

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.activations.dataset import PrefixData
from nemo_ds2_adapters.activations.point import resume_point, why_not_exact
from nemo_ds2_adapters.adaptation.engine import Engine
from nemo_ds2_adapters.adaptation.prepare import left_as_it_was
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.attach import attach, undone
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError

IN_TRAINING = "in_training"  # name of the attached adapter that says what the trained ones are like


@contextmanager
def training_engine(
    model: ASRModel,
    groups: Sequence[Sequence[Utterance]],
    start: Adapter,
    cache: PrefixCache | Sequence[PrefixCache] | None = None,
) -> Iterator[tuple[Engine, list[range], Adapter]]:
    """In this block, adapters like `start` can be trained on the groups' utterances; the model must not be used.

    Args:
        model: the base, with the device and precision to train in; it is as it was afterwards.
        groups: utterances.
        start: an adapter for this base.
        cache: of activations, one for all or one per group; None: in memory, and beyond a limit in temporary files.

    Yields:
        the engine, the positions of each group's utterances in its data, and the start in the model's precision.

    Raises:
        InputError: the adapter does not fit the model, or the model is no frozen DeepSpeech2; a recording cannot be
            read.
    """
    with left_as_it_was(model), undone(model):
        attach(model, start, as_name=IN_TRAINING)
        with enabled_adapters(model, IN_TRAINING):
            model.spec_augmentation = None
            model.freeze()
            if reason := why_not_exact(model):
                raise InputError(f"adapters cannot be trained together: {reason}")
            caches = cache if isinstance(cache, Sequence) else [cache or PrefixCache()] * len(groups)
            dataset = UtteranceDataset([*chain.from_iterable(groups)], model)
            own = [one for one, group in zip(caches, groups) for _ in group]
            data = PrefixData(model, dataset, resume_point(model), own)
            data.compute()
            ends = accumulate((len(group) for group in groups), initial=0)
            positions = [range(first, end) for first, end in pairwise(ends)]
            yield Engine(model, data, IN_TRAINING), positions, attached_adapter(model, IN_TRAINING, start.metadata)
