"""What runs on the machines of a cluster: the base, and groups of users that are adapted one after the other."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray
import torch

from nemo_ds2_adapters.adaptation.lightning_fit import one_device_trainer, place
from nemo_ds2_adapters.adaptation.many_speakers import adapt_together, finished_before, within_limits
from nemo_ds2_adapters.adaptation.plan import Plan
from nemo_ds2_adapters.adaptation.report import SpeakerResult
from nemo_ds2_adapters.adaptation.settings import PriorSettings
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import Learnt, learn_parts
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.cluster.shards import User, speakers_of
from nemo_ds2_adapters.data.speakers import Speaker, check_speakers
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.store.store import AdapterStore


@dataclass(frozen=True)
class Base:
    """The base as a worker restores it; paths lead to the same files on every machine.

    Args:
        nemo_model: path of a `.nemo`; or in its place
        pretrained_model: a name that NeMo can download.
        trainer: arguments that say device and precision.
        fingerprint: of the base.
        folder: that paths are relative to.
        cores: of a worker.
    """

    nemo_model: str | None
    pretrained_model: str | None
    trainer: Mapping[str, Any]
    fingerprint: str
    folder: str
    cores: int

    @classmethod
    def of(cls, values: Mapping[str, Any], fingerprint: str, cores: int) -> Self:
        """The base of a config, as plain values."""
        names = {name: values["model"][name] for name in ("nemo_model", "pretrained_model")}
        return cls(**names, trainer=values["trainer"], fingerprint=fingerprint, folder=os.getcwd(), cores=cores)


@dataclass(frozen=True)
class Source:
    """Whose lines are where, and where adapters go.

    Args:
        store: of the adapters.
        manifests: in their order.
        speaker_key: their field that names the user.
        limits: may have `min_duration` and `max_duration`, seconds.
    """

    store: str
    manifests: Sequence[Path]
    speaker_key: str
    limits: Mapping[str, Any]

    def speakers(self, users: Sequence[User]) -> list[Speaker]:
        """The users as speakers."""
        return within_limits(speakers_of(users, self.manifests, self.speaker_key), self.limits)


@dataclass(frozen=True)
class Adapted:
    """What came of a group."""

    results: list[SpeakerResult]
    core_seconds: float  # processor time


@ray.remote
class Worker:
    """A process with the base. All that it is asked to do, it can be asked again."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def ready(self) -> None:
        """Restore the base. Raises InputError: there is none, or another one."""
        os.chdir(self._base.folder)
        torch.set_num_threads(self._base.cores)
        self._model = restore_model(self._base.nemo_model, self._base.pretrained_model)
        place(self._model, one_device_trainer(self._base.trainer))
        if fingerprint(self._model) != self._base.fingerprint:
            raise InputError(f"{self._base.nemo_model}: is another base on {os.uname().nodename}")

    def adapt(self, users: list[User], source: Source, plan: Plan) -> Adapted:
        """Adapt a group of users, and put what comes of each into the store; who is finished is passed over."""
        began = time.process_time()
        store = AdapterStore(source.store, create=False)
        speakers = source.speakers(users)
        found = finished_before(speakers, store, plan)
        pending = [speaker for speaker in speakers if speaker.user_id not in found]
        check_speakers(pending, plan.key, self._model)
        results = [*found.values(), *adapt_together(self._model, pending, store, plan)]
        return Adapted(results, time.process_time() - began)

    def learn(
        self, parts: list[int], people: Sequence[Speaker], start: Adapter, settings: PriorSettings
    ) -> list[Learnt]:
        """See `learn_parts`."""
        return learn_parts(self._model, start, settings, people, parts)
