"""One speaker's adapter, from what it starts from to its place in the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf
from torch import Tensor

from nemo_ds2_adapters.adaptation.cross_validation import Verdict
from nemo_ds2_adapters.adaptation.guard import Guard
from nemo_ds2_adapters.adaptation.speakers.report import SpeakerResult
from nemo_ds2_adapters.adaptation.together.member import Member
from nemo_ds2_adapters.adaptation.together.parts import Parts, copied_parts
from nemo_ds2_adapters.adapters.blocks import adapter_parts, adapters_cfg
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter
from nemo_ds2_adapters.data.speakers import Speaker
from nemo_ds2_adapters.store.store import AdapterStore

TEMPLATE = "speaker"  # the attached adapter that the speakers' are copies of
LAST_VERSION = "speaker_last"  # a speaker's last version, while it is read


@dataclass
class Job:
    """A speaker whose adapter is to be trained."""

    speaker: Speaker
    utterances: Sequence[int]  # in the data set
    start: Parts
    continued: bool  # the start is the speaker's last version


def job_for(speaker: Speaker, utterances: Sequence[int], model: ASRModel, store: AdapterStore) -> Job:
    """Training starts from the speaker's last version, if that was made for this base and has this architecture."""
    if store.has(speaker.user_id):
        stored = store.header(speaker.user_id)
        same_base = stored.info is not None and stored.info.fingerprint == fingerprint(model)
        if same_base and _alike(stored.config, template_config(model)):
            store.load_into(model, speaker.user_id, as_name=LAST_VERSION)
            parts = copied_parts(model, LAST_VERSION)
            delete_adapter(model, LAST_VERSION)
            return Job(speaker, utterances, parts, continued=True)
    return Job(speaker, utterances, copied_parts(model, TEMPLATE), continued=False)


def finished(speaker: Speaker, settings_hash: str, model: ASRModel, store: AdapterStore) -> SpeakerResult | None:
    """What an earlier run with the same data, base and settings reached; None if there was none."""
    if not store.has(speaker.user_id):
        return None
    info = store.header(speaker.user_id).info
    assert info is not None
    about = info.metadata
    wanted = (fingerprint(model), settings_hash, speaker.data_hash())
    if (info.fingerprint, about.get("settings"), about.get("data")) != wanted:
        return None
    reached = {key: about.get(key) for key in ("wer_before", "wer_after", "epochs")}
    return result_of(speaker, "finished before", **reached)


def keep(
    job: Job, verdict: Verdict, member: Member, metadata: dict[str, Any], model: ASRModel, store: AdapterStore
) -> SpeakerResult:
    """Put the adapter that cross-validation chose into the store.

    Args:
        job: whose it is.
        verdict: after how many epochs.
        member: trained on everything for as many epochs, none if the start is kept.
        metadata: for the file, beside the result.
        model: with the template, which is lent to the adapter.
        store: where it goes.
    """
    weights = member.saved()
    if not all(torch.isfinite(weight).all() for weight in weights):
        return result_of(job.speaker, "skipped", problem="training did not converge, weights are not finite")
    reached = {"wer_before": verdict.wer_before, "wer_after": verdict.wer_after, "epochs": verdict.epochs}
    template = [p.detach().clone() for p in _template(model)]
    _load(model, weights)
    if not verdict.epochs and not job.continued:
        Guard(model, TEMPLATE, continued=False).restore()
    try:
        store.put(job.speaker.user_id, model, name=TEMPLATE, metadata={**metadata, **reached})
    finally:
        _load(model, template)
    if not verdict.epochs:
        return result_of(job.speaker, "start kept" if job.continued else "base kept", **reached)
    return result_of(job.speaker, "updated" if job.continued else "trained", **reached)


def result_of(speaker: Speaker, status: str, **reached: Any) -> SpeakerResult:
    """A line of the report."""
    return SpeakerResult(speaker.user_id, status, len(speaker.utterances), round(speaker.seconds, 3), **reached)


def template_config(model: ASRModel) -> dict[str, Any]:
    """What builds the speakers' adapters."""
    return OmegaConf.to_container(adapters_cfg(model)[TEMPLATE], resolve=True)  # type: ignore[return-value]


def _template(model: ASRModel) -> list[torch.nn.Parameter]:
    return [p for _, part in adapter_parts(model, TEMPLATE) for p in part.parameters()]


@torch.no_grad()
def _load(model: ASRModel, weights: Sequence[Tensor]) -> None:
    for parameter, weight in zip(_template(model), weights):
        parameter.copy_(weight)


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return {**one, "enabled": True} == {**other, "enabled": True}
