"""One person's adapter from their recordings, in the worker process."""

from collections.abc import Callable
from threading import RLock
from typing import Any

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from nemo_ds2_adapters.adaptation.fit_settings import StartSettings
from nemo_ds2_adapters.adaptation.many_speakers import adapt_speakers
from nemo_ds2_adapters.adaptation.report import SpeakerResult
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adaptation.start import starting_adapter
from nemo_ds2_adapters.adaptation.voice_prior.prior import read_prior
from nemo_ds2_adapters.configs import shipped_config
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.speakers import Speaker
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.serving.training.worker import Task, WorkerSettings
from nemo_ds2_adapters.store.store import AdapterStore

CONFIG = "asr_adapters/speaker_adaptation"


class Trainer:
    """Trains as `ds2-adapters adapt-speakers` does with its default settings."""

    def __init__(self, settings: WorkerSettings) -> None:
        torch.set_num_threads(settings.threads)
        tqdm.set_lock(RLock())  # its own, between processes, outlives a process that is killed
        values: Any = OmegaConf.to_container(shipped_config(CONFIG), resolve=True)
        self._settings = Settings.of(values)
        self._model = restore_model(str(settings.model), None)
        self._prior = read_prior(settings.prior) if settings.prior else None
        beginning = StartSettings.of(values["model"]["adapter"])
        self._start = starting_adapter(self._model, "speaker", beginning, self._settings.seed)

    def train(self, task: Task, report: Callable[[dict[str, Any]], object]) -> SpeakerResult:
        """Train, and leave the adapter, if there is to be one, in a store at the task's output."""
        report({"stage": "training", "share": 0.0})
        utterances = [
            Utterance(path, text, seconds, place=f"recording {number}")
            for number, (path, text, seconds) in enumerate(task.recordings, start=1)
        ]
        speaker = Speaker(task.user, utterances)
        (result,) = adapt_speakers(
            self._model,
            [speaker],
            AdapterStore(task.output),
            self._settings,
            self._start,
            prior=self._prior,
            key="recordings",
            on_epoch=lambda share: report({"stage": "training", "share": share}),
        )
        return result
