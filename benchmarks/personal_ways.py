"""Ways of making a recogniser a person's own, which benchmarks/personal.py compares: people in, their scores out."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import OmegaConf

from nemo_ds2_adapters.adaptation.group import adapt_group, training_engine
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.configs import shipped_config
from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.speakers import read_speakers
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.evaluation.recognised import recognise
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.layers import MaskedBatchNorm

AT_ONCE = 16  # people
LINEAR = {"_target_": "nemo.collections.common.parts.adapter_modules.LinearAdapter", "dim": 32}
LINEAR_STEPS, LINEAR_BATCH = 1000, 16  # of NeMo's asr_adaptation.yaml, as is the optimiser below
COSINE = {"name": "CosineAnnealing", "warmup_ratio": 0.1, "min_lr": 1e-5}
LINEAR_OPTIM = {"name": "adamw", "lr": 0.001, "betas": [0.9, 0.98], "weight_decay": 0.0, "sched": COSINE}


@dataclass(frozen=True)
class Person:
    """Whose utterances are trained and tested on."""

    train: tuple[Utterance, ...]
    test: tuple[Utterance, ...]

    def seconds(self) -> float:
        """Of speech for training."""
        return sum(utterance.duration for utterance in self.train)

    def given(self, seconds: float) -> "Person":
        """With the first utterances, so many seconds of them or just less; the first one in any case."""
        ends = np.cumsum([utterance.duration for utterance in self.train])
        return Person(self.train[: max(1, int((ends <= seconds).sum()))], self.test)


def read_people(train: str, test: str) -> list[Person]:
    """Those who are in both manifests."""
    training, testing = (
        {speaker.user_id: tuple(speaker.utterances) for speaker in read_speakers(path, path, "speaker")[0]}
        for path in (train, test)
    )
    return [Person(own, testing[name]) for name, own in training.items() if name in testing]


def at_once(people: Sequence[Person]) -> Iterator[Sequence[Person]]:
    """So many at a time as share their training."""
    return (people[first : first + AT_ONCE] for first in range(0, len(people), AT_ONCE))


def scored(
    model: EncDecCTCModel, adapters: Sequence[Adapter | None], like: Adapter, people: list[Person]
) -> list[Score]:
    """Of each person's test utterances, with an adapter each, None for the base."""
    with training_engine(model, [person.test for person in people], like) as (engine, positions, _):
        return [sum(engine.score(one, adapter), Score()) for adapter, one in zip(adapters, positions)]


def by_adapters(
    model: EncDecCTCModel, people: list[Person], like: Adapter, prior: VoicePrior | None
) -> tuple[list[Score], str]:
    """With what `adapt_group` keeps for each; and how often it is what, and its processor time."""
    started = time.process_time()
    settings = Settings.of(OmegaConf.to_container(shipped_config("asr_adapters/speaker_adaptation")))
    start = new_adapter(model, "person", dict(like.config), 0)
    adapters: list[Adapter | None] = []
    kinds: list[str] = []
    for some in at_once(people):
        outcomes = dict(adapt_group(model, [person.train for person in some], settings, start, prior=prior))
        adapters += [outcomes[i].adapter for i in range(len(some))]
        kinds += [outcomes[i].kind if outcomes[i].problem is None else "problem" for i in range(len(some))]
    seconds = (time.process_time() - started) / len(people)
    note = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    return scored(model, adapters, like, people), f"{note}; {seconds:.1f} s each"


def by_linear_adapters(model: EncDecCTCModel, people: list[Person]) -> tuple[list[Score], str]:
    """As NeMo's script trains it: so many steps each, and what has come of it is kept."""
    started = time.process_time()
    start = new_adapter(model, "linear", LINEAR, 0)
    scores = []
    for some in at_once(people):
        parts = [part for person in some for part in (person.train, person.test)]
        with training_engine(model, parts, start) as (engine, positions, own):
            members = []
            for train in positions[::2]:
                epochs = math.ceil(LINEAR_STEPS / math.ceil(len(train) / LINEAR_BATCH))
                members.append(
                    engine.member(own, train, [], Settings(LINEAR_OPTIM, LINEAR_BATCH, epochs, gradient_clip_val=0.0))
                )
            while running := [member for member in members if member.epochs < member.settings.max_epochs]:
                engine.train_epoch(running)
            scores += [sum(engine.score(t, m.adapter()), Score()) for t, m in zip(positions[1::2], members)]
    return scores, f"{(time.process_time() - started) / len(people):.1f} s each"


def by_fine_tuning(base: str, people: list[Person], lr: float, epochs: int) -> tuple[list[Score], list[Score], str]:
    """With all weights trained for each person: their scores, and those of the next person with the same weights."""
    started = time.process_time()
    own, others = [], []
    for person, other in zip(people, [*people[1:], people[0]]):
        tuned = fine_tuned(restore_model(base, None), person.train, lr, epochs)
        own.append(sum((one.score for one in recognise(tuned, person.test, progress=False)), Score()))
        others.append(sum((one.score for one in recognise(tuned, other.test, progress=False)), Score()))
    return own, others, f"{(time.process_time() - started) / len(people):.1f} s each"


def fine_tuned(tuned: EncDecCTCModel, utterances: Sequence[Utterance], lr: float, epochs: int) -> EncDecCTCModel:
    """The base, all of its weights trained; norms keep their statistics, which a minute does not give."""
    torch.manual_seed(0)
    tuned.spec_augmentation = None
    tuned.unfreeze()
    tuned.train()
    for module in tuned.modules():
        if isinstance(module, MaskedBatchNorm):
            module.eval()
    data = UtteranceDataset(utterances, tuned)
    batches = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, collate_fn=data.collate_fn)
    optimiser = torch.optim.AdamW(tuned.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    for _ in range(epochs):
        for signals, lengths, tokens, token_lengths in batches:
            log_probs, frames, _ = tuned(input_signal=signals, input_signal_length=lengths)
            loss = tuned.loss(log_probs=log_probs, targets=tokens, input_lengths=frames, target_lengths=token_lengths)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tuned.parameters(), 1.0)
            optimiser.step()
    return tuned.eval()
