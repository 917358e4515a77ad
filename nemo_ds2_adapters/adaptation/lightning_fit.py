"""The training of one adapter, from a restored model to the file to ship."""

import time

import lightning.pytorch as pl
from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig, open_dict
from tqdm import tqdm

from nemo_ds2_adapters.activations.dataset import PrefixDataset
from nemo_ds2_adapters.activations.use import prefix_cached
from nemo_ds2_adapters.adaptation.callbacks import History, StopAfter, TrainedWeightsOnly
from nemo_ds2_adapters.adaptation.cross_validation import Trial, Verdict, conclude, fold_members, run_epoch
from nemo_ds2_adapters.adaptation.experiment import experiment
from nemo_ds2_adapters.adaptation.guard import Guard
from nemo_ds2_adapters.adaptation.outcome import Adaptation, best_validation_wer, save, validation_wer
from nemo_ds2_adapters.adaptation.regularise import AverageEpochs, regularised
from nemo_ds2_adapters.adaptation.seeds import seeded
from nemo_ds2_adapters.adaptation.setup import attach_adapter, change_vocabulary, plain_name, train_only
from nemo_ds2_adapters.adaptation.together.loop import Together, score
from nemo_ds2_adapters.adaptation.together.member import Settings
from nemo_ds2_adapters.adaptation.together.parts import copied_parts
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.data.sampler import use_seeded_batches
from nemo_ds2_adapters.data.sections import DataSection, check_section, loader_config
from nemo_ds2_adapters.errors import InputError


def prepare(
    cfg: DictConfig, model: ASRModel, adapter: ChosenAdapter, train: DataSection, validation: DataSection | None
) -> None:
    """Give the model its data and the adapter, and freeze everything else.

    Args:
        cfg: the config of conf/asr_adapters/asr_adaptation.yaml.
        model: restored, with its trainer.
        adapter: which one.
        train: what to train on.
        validation: what to compare epochs by, None for nothing.

    Raises:
        InputError: data, adapter or a setting do not fit the model.
        AdapterFileError: so does the file that the adapter starts from.
    """
    new_output_layer = change_vocabulary(model, cfg.model.char_labels)
    check_section(train, model)
    model.setup_training_data(loader_config(train, model))
    use_seeded_batches(model, cfg.seed)
    if validation:
        check_section(validation, model)
        model.setup_validation_data(loader_config(validation, model))
    with open_dict(model.cfg):  # NeMo keeps the optimiser only where the base has one, and trains nothing otherwise
        model.cfg.optim = {key: value for key, value in cfg.model.optim.items() if value is not None}  # `sched: null`
    model.setup_optimization()
    spec_augment = cfg.model.spec_augment
    model.spec_augmentation = model.from_config_dict(spec_augment) if spec_augment else None
    with seeded(cfg.seed):
        attach_adapter(model, adapter, cfg.model.adapter)
    train_only(model, adapter, cfg.model.adapter, new_output_layer)
    if model.spec_augmentation is not None:
        model.training = True  # of the model alone, not of its parts: it augments in training mode only
        model.spec_augmentation.train()


def train_adapter(cfg: DictConfig, trainer: pl.Trainer, model: ASRModel, adapter: ChosenAdapter) -> Adaptation:
    """Train what `prepare` left trainable, keep the best epoch, save the model and the adapter.

    On a frozen base the adapter is never worse than what it is compared with: the base, or itself as it was if it is
    continued. That is decided on validation data, or without any by cross-validation on the training data.

    Raises:
        InputError: a setting is wrong.
    """
    started = time.monotonic()
    has_validation = model._validation_dl is not None
    settings = cfg.model.adapter
    cfg.exp_manager.create_checkpoint_callback &= has_validation  # nothing to compare epochs by otherwise
    history = History()
    callbacks: list[pl.Callback] = [history, *([AverageEpochs()] if settings.average_epochs else [])]
    is_base_frozen = not settings.unfreeze_base and not cfg.model.char_labels.update_labels
    if is_base_frozen:
        callbacks.append(TrainedWeightsOnly())
        model.strict_loading = False  # of checkpoints: the frozen weights are there already
    guard = Guard(model, plain_name(str(adapter.name)), settings.continue_existing)
    is_guarded = is_base_frozen and guard.can_restore()
    with experiment(trainer, cfg.exp_manager) as log_dir, prefix_cached(trainer, model, settings) as data:
        wer_before, wer_after, epochs = None, None, trainer.max_epochs
        if has_validation:
            with guard.compared_with():
                wer_before = validation_wer(trainer, model)
        elif is_guarded and settings.folds and data is not None:
            verdict = cross_validate(model, data, guard, settings.folds, Settings.from_config(cfg))
            wer_before, wer_after, epochs = verdict.wer_before, verdict.wer_after, verdict.epochs
        else:
            print("no validation data and no cross-validation: nothing tells whether the adapter helps")
        if epochs:
            trainer.callbacks[:0] = [*callbacks, StopAfter(epochs)]  # type: ignore[attr-defined]  # before checkpoints
            with regularised(model, settings.kl_weight, settings.l2_weight):
                trainer.fit(model)
    if has_validation:
        wer_after, epochs = best_validation_wer(trainer), best_epoch(history.epochs)
        if is_guarded and wer_before is not None and wer_after is not None and not wer_after < wer_before:
            wer_after, epochs = wer_before, 0
    if not epochs:
        guard.restore()
    seconds = time.monotonic() - started
    result = Adaptation(adapter, wer_before, wer_after, epochs or 0, history.epochs, seconds)
    return save(result, trainer, model, log_dir, cfg)


def cross_validate(model: ASRModel, data: PrefixDataset, guard: Guard, folds: int, settings: Settings) -> Verdict:
    """Train without each fold in turn, and say for how many epochs to train on everything.

    Raises:
        InputError: there is one utterance only.
    """
    utterances = range(len(data))
    if len(utterances) < 2:
        raise InputError(
            "model.train_ds: one utterance cannot tell whether an adapter helps; give more, or model.adapter.folds=0"
        )
    with guard.compared_with():
        base = dict(zip(utterances, score(model, data, utterances)))
    members = fold_members(copied_parts(model, guard.name), data, utterances, folds, settings)
    trial, together = Trial(members, base, data.words(utterances)), Together(model, data, guard.name)
    folds_said = f"{len(members)}-fold cross-validation"
    with tqdm(total=settings.max_epochs, desc=folds_said, unit="epoch", leave=False) as bar:
        while not trial.is_over:
            run_epoch(together, [trial])
            bar.update()
    return conclude(together, trial)


def best_epoch(epochs: list[dict[str, float]]) -> int:
    """Number of the epoch that is kept, 1 for the first: the one with the lowest validation WER."""
    return 1 + min(range(len(epochs)), key=lambda i: epochs[i]["val_wer"], default=-1)
