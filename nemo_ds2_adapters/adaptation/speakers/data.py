"""The utterances of some speakers, through the frozen part of the base."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.activations.dataset import PrefixDataset
from nemo_ds2_adapters.activations.point import resume_point
from nemo_ds2_adapters.activations.use import PRECISIONS
from nemo_ds2_adapters.adaptation.speakers.activations import ActivationsInStore
from nemo_ds2_adapters.data.sections import DataSection, loader_config
from nemo_ds2_adapters.data.speakers import Speaker
from nemo_ds2_adapters.store.store import AdapterStore


@contextmanager
def speakers_data(
    cfg: DictConfig, model: ASRModel, store: AdapterStore, speakers: Sequence[Speaker]
) -> Iterator[PrefixDataset]:
    """Activations of all utterances of these speakers, at the first point with an enabled adapter.

    Args:
        cfg: the section `model` of conf/asr_adapters/asr_adaptation.yaml.
        model: with the adapter enabled.
        store: where activations stay if `adapter.keep_activations` is set.
        speakers: whose recordings are sound.
    """
    lines = [{**u.fields, "audio_filepath": str(u.audio.resolve())} for s in speakers for u in s.utterances]
    cache = PrefixCache(None, cfg.adapter.cache_memory)
    if cfg.adapter.keep_activations:
        cache = ActivationsInStore(store, speakers)
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / "speakers.json"
        manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        section = DictConfig({**cfg.train_ds, "manifest_filepath": str(manifest)})
        loader = model._setup_dataloader_from_config(loader_config(DataSection("train_ds", section, []), model))
        data = PrefixDataset(
            loader.dataset, model, resume_point(model), cache, PRECISIONS[cfg.adapter.cache_precision]
        )
        data.compute(progress=False)
        yield data


def utterances_of(speakers: Sequence[Speaker], data: PrefixDataset) -> list[list[int]]:
    """Each speaker's utterances in the data, but for those that NeMo left out, `max_duration` for one."""
    samples = data.dataset.manifest_processor.collection
    places = {(str(Path(s.audio_file).resolve()), s.offset or 0.0): i for i, s in enumerate(samples)}
    found = []
    for speaker in speakers:
        wanted = [(str(utterance.audio.resolve()), utterance.offset) for utterance in speaker.utterances]
        found.append([places[place] for place in wanted if place in places])
    return found
