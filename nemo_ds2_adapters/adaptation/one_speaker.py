"""One adapter, trained in NeMo's flow: trainer, data, optimiser, older adapters, new adapter, freeze, fit."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.activations.dataset import PrefixData
from nemo_ds2_adapters.adaptation import lightning_fit as lightning
from nemo_ds2_adapters.adaptation.decision import cross_validate
from nemo_ds2_adapters.adaptation.engine import Engine
from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adaptation.group import adapt_one
from nemo_ds2_adapters.adaptation.losses import regularised
from nemo_ds2_adapters.adaptation.prepare import (
    change_vocabulary,
    check_data,
    compute,
    freeze_all_but_adapter,
    left_as_it_was,
    set_optimizer,
    set_up_data,
)
from nemo_ds2_adapters.adaptation.report import Adaptation, Reached
from nemo_ds2_adapters.adaptation.settings import ADAPTER
from nemo_ds2_adapters.adaptation.start import start_from_prior, starting_adapter
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior, weights_hash
from nemo_ds2_adapters.adapters.adapter import Adapter, is_additive, zero
from nemo_ds2_adapters.adapters.attach import attach
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.blocks import adapter_parts, list_adapters, merge_global_cfg
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.adapters.detach import detach
from nemo_ds2_adapters.adapters.enabling import enable_adapters, enabled_adapters, enabled_names
from nemo_ds2_adapters.adapters.names import split_name
from nemo_ds2_adapters.base_training.experiment import experiment, make_trainer, nemo_path, seeded
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.file import save_adapter
from nemo_ds2_adapters.formats.nemo_archive import save_nemo
from nemo_ds2_adapters.formats.reading import FilePath

logger = logging.getLogger(__name__)


def adapt_speaker(
    model: ASRModel,
    adapter: ChosenAdapter,
    train: Sequence[Utterance],
    validation: Sequence[Utterance] | None,
    settings: FitSettings,
    inputs: Mapping[str, FilePath | None] | None = None,
    say: Callable[[str], object] = logger.info,
    prior: VoicePrior | None = None,
) -> Adaptation:
    """Train one adapter on a frozen base, keep the best epoch, and save the model and the adapter.

    On a frozen base the adapter is never worse than what it is compared with: the base, or itself as it was if it is
    continued. That is decided on validation data, or without any by cross-validation on the training data, or by the
    record of a prior.

    Args:
        model: the base, with or without other adapters. Afterwards it has the adapter, enabled, and else is as it was.
        adapter: which one.
        train: what to train on.
        validation: what to compare epochs by, None for nothing.
        settings: of the training.
        inputs: files that are read, by what a person calls them: none of them is written.
        say: is told in lines what the data are like and how they are computed.
        prior: of this base: training starts from it, and goes by its recipe.

    Raises:
        InputError: a setting, the name or the data are wrong, or training did not converge; the model has the
            adapters it had, and the same ones are enabled.
        AdapterFileError: so it is if the file that training starts from cannot be read, or a file not be written.
    """
    started = time.monotonic()
    name = split_name(str(adapter.name))[1]
    train, validation = settings.data(train, validation)
    trainer = make_trainer(settings.trainer)
    attached, enabled = list_adapters(model), enabled_names(model) if list_adapters(model) else []
    has_new_output_layer = change_vocabulary(model, settings.labels)
    start = starting_adapter(model, str(adapter.name), settings.start, settings.seed, adapter.option)
    if prior is not None:
        start = start_from_prior(model, start, prior, settings)
    if settings.unfreeze_base and (others := [other for other in attached if other != name]):
        raise InputError(f"{ADAPTER}.unfreeze_base would spoil {', '.join(others)}, trained on the base as it is")
    try:
        if not settings.start.continue_existing:
            attach(model, start, as_name=name)
            merge_global_cfg(model, settings.global_cfg)
        enable_adapters(model, name)
        start = attached_adapter(model, name)
        with left_as_it_was(model), seeded(settings.seed), ExitStack() as stack:
            for line in check_data(model, train, validation):
                say(line)
            if not (settings.frozen_in_eval_mode or settings.unfreeze_base):
                say(f"the frozen part keeps dropout and dither in training ({ADAPTER}.frozen_in_eval_mode=false)")
            freeze_all_but_adapter(model, settings, has_new_output_layer)
            model.set_trainer(trainer)
            data, why_not = set_up_data(model, train, validation, settings)
            set_optimizer(model, settings.optim)
            folder = stack.enter_context(experiment(trainer, settings.experiment(validation is not None)))
            model_path = nemo_path(trainer, folder, settings.name)
            recordings = {u.label: u.audio for u in [*train, *(validation or [])] if isinstance(u.audio, Path)}
            path = adapter_path(model_path, settings)
            for output in filter(None, (model_path, path)):
                check_not_input(output, {**recordings, **(inputs or {})})
            lightning.place(model, trainer)
            if data:
                say(compute(data, lightning.autocast_type(trainer), trainer.progress_bar_callback is not None))
                stack.enter_context(model.encoder.resuming(data[0].point))
            else:
                say(f"frozen part: computed in every epoch ({why_not})")
            reached = fit_from_prior(model, start, data, prior, settings.seed) if prior else None
            if validation is None and not (reached or (data and settings.cross_validation)):
                say("no validation data and no cross-validation: nothing tells whether the adapter helps")
            reached = reached or fit(model, trainer, start, data, validation is not None, settings)
        is_kept = bool(reached.epochs or reached.reason) or keep_base(model, start, settings.start.continue_existing)
        enable_adapters(model, name if is_kept else None)
        kept = path if is_kept else None
        path = save(model, adapter, reached, prior, model_path, kept) if trainer.is_global_zero else None
    except BaseException:
        for new in set(list_adapters(model)) - set(attached):
            detach(model, new)
        if attached:
            enable_adapters(model, enabled)
        raise
    seconds = time.monotonic() - started
    return Adaptation(adapter, seconds=seconds, model_path=model_path, path=path, is_kept=is_kept, **vars(reached))


def fit(
    model: ASRModel,
    trainer: Any,
    start: Adapter,
    data: Sequence[PrefixData],
    has_validation: bool,
    settings: FitSettings,
) -> Reached:
    """Train, and leave the best weights in the model, unless what the adapter is compared with is better.

    The adapter `start` is attached and enabled; there are no `data` if the model runs on recordings. InputError:
    training did not converge, and there is nothing that could be kept instead.
    """
    continued, is_base_frozen = settings.start.continue_existing, settings.is_base_frozen
    progress = lightning.Progress(settings.monitor)
    reached, wer_before, limit = Reached(), 0.0, None
    if has_validation:
        with enabled_adapters(model, start.name if continued else None):
            wer_before = reached.wer_before = lightning.validate(trainer, model)["val_wer"]
    elif settings.cross_validation and data:
        shows_bar = trainer.progress_bar_callback is not None
        engine, compared_with = Engine(model, data[0], start.name), start if continued else None
        verdict = cross_validate(engine, start, settings.cross_validation, compared_with, shows_bar)
        reached = Reached(verdict.wer_before, verdict.wer_after, verdict.epochs, is_cross_validated=True)
        if not verdict.epochs:
            return reached
        limit = verdict.epochs
    with regularised(model, settings.kl_weight, settings.l2_weight):
        lightning.train(trainer, model, progress, settings.average_epochs, is_base_frozen, limit)
    if not progress.rows:
        raise InputError("trainer: its limits leave no step to be trained")
    if has_validation and progress.validated_step != trainer.global_step:
        progress.note(model, lightning.validate(trainer, model), max(progress.rows), trainer.global_step)
    reached.history = [progress.rows[epoch] for epoch in sorted(progress.rows)]
    reached.was_finished = progress.steps == 0
    best = progress.best if has_validation else progress.last(model)
    if has_validation and is_base_frozen and (best is None or best.wer >= wer_before):
        reached.wer_after = wer_before
    elif best is None:
        raise InputError("training did not converge, weights are not finite: lower model.optim.lr")
    else:
        model.load_state_dict(best.weights, strict=False)
        reached.epochs = best.epochs
        if has_validation:
            reached.wer_after = best.wer
    return reached


def fit_from_prior(
    model: ASRModel, start: Adapter, data: Sequence[PrefixData], prior: VoicePrior, seed: int
) -> Reached | None:
    """Leave in the model what is best for the person, as `adapt_one` has it; None if training is to start from that.

    Raises InputError: the base must run on recordings, or training did not converge.
    """
    if not data:
        raise InputError(f"{ADAPTER}.prior needs the frozen part computed once: leave out {ADAPTER}.cache=off")
    outcome, best = adapt_one([Engine(model, one, start.name) for one in data], start, prior, seed)
    if outcome is not None and outcome.adapter is None:
        raise InputError(f"{outcome.problem}: lower the prior's learning rate")
    put_weights(model, best)
    return (
        None
        if outcome is None
        else Reached(outcome.wer_before, outcome.wer_after, outcome.epochs, reason=outcome.reason)
    )


def put_weights(model: ASRModel, adapter: Adapter) -> None:
    """Give an attached adapter of this name these weights."""
    for point, part in adapter_parts(model, adapter.name):
        part.load_state_dict(adapter.weights[point])


def keep_base(model: ASRModel, start: Adapter, continued: bool) -> bool:
    """Make an attached adapter what it is compared with: as it was if it is continued, otherwise the base.

    Whether it could be made that; if not, since it takes the place of what the base computes, it is detached.
    """
    if not continued and not is_additive(start):
        detach(model, start.name)
        return False
    put_weights(model, start if continued else zero(start))
    return True


def adapter_path(model_path: Path, settings: FitSettings) -> Path | None:
    """Where the adapter's file goes, beside the model unless its name says another folder; None if none is asked for.

    Raises InputError: no file can be written there.
    """
    if settings.file_name is None:
        return None
    key = f"{ADAPTER}.adapter_state_dict_name={settings.file_name}"
    path = Path(os.path.normpath(model_path.parent / settings.file_name))  # the folder is not there yet
    is_beside = path.parent == Path(os.path.normpath(model_path.parent))
    if (path.name == model_path.name and is_beside) or path.is_dir() or not (is_beside or path.parent.is_dir()):
        raise InputError(f"{key}: the model, a folder, or in a folder that does not exist: give another name")
    return path


def save(
    model: ASRModel,
    adapter: ChosenAdapter,
    reached: Reached,
    prior: VoicePrior | None,
    model_path: Path,
    path: Path | None,
) -> Path | None:
    """Save the model, and the adapter in a file of its own at `path`, if there is one, which is returned."""
    model_path.parent.mkdir(parents=True, exist_ok=True)
    save_nemo(model, model_path)
    if path is None:
        return None
    metadata: dict[str, Any] = {name: getattr(reached, name) for name in ("wer_before", "wer_after", "epochs")}
    if prior is not None:
        metadata["prior"] = weights_hash(prior.adapter)
    if adapter.user_id is not None:
        metadata["user_id"] = adapter.user_id
    save_adapter(model, str(adapter.name), path, metadata)
    return path
