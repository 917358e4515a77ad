"""How an adapter is trained, in plain values, checked before anything is computed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from nemo.core.optim.lr_scheduler import AVAILABLE_SCHEDULERS
from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS

from nemo_ds2_adapters.activations.settings import CacheSettings
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError

LEAST_RECORDINGS = 2  # with fewer, nothing can tell whether an adapter helps
MONITORS = ("val_wer", "val_loss")  # by which epochs may be compared
ADAPTER_TYPES = ("mlp", "linear", "mlp_head")  # each a section of model.adapter

# Where a setting stands in conf/asr_adapters/asr_adaptation.yaml, for messages.
ADAPTER, TRAIN, TRAINER = "model.adapter", "model.train_ds", "trainer"
KEYS = {
    "batch_size": TRAIN,
    "randomization_factor": TRAIN,
    "max_epochs": TRAINER,
    "gradient_clip_val": TRAINER,
    "folds": ADAPTER,
    "patience": ADAPTER,
    "kl_weight": ADAPTER,
    "l2_weight": ADAPTER,
}
MAX_SEED = 2**32 - 1  # NumPy's
DEFAULT_OPTIM = {
    "name": "adamw",
    "lr": 0.002,
    "betas": [0.9, 0.98],
    "weight_decay": 0.0,
    "sched": {"name": "CosineAnnealing", "warmup_steps": None, "warmup_ratio": 0.1, "min_lr": 0.00001},
}


@dataclass(frozen=True)
class Settings:
    """How an adapter is trained, and how it is decided whether it is kept.

    Raises:
        InputError: a value is not what it must be; names it by its key in conf/asr_adapters/asr_adaptation.yaml.
    """

    optim: Mapping[str, Any] = field(default_factory=lambda: dict(DEFAULT_OPTIM))  # NeMo's section `model.optim`
    batch_size: int = 4  # utterances
    max_epochs: int = 20
    folds: int = 3  # parts of the utterances that take turns in cross-validation
    patience: int | None = 4  # epochs without fewer errors out of fold; None: all are run
    gradient_clip_val: float = 1.0  # norm, 0 for none
    randomization_factor: float = 0.2  # of batches of similar length, see NeMo's SemiSortBatchSampler
    seed: int = 0
    kl_weight: float = 0.0  # towards the base's output, see `losses`
    l2_weight: float = 0.0  # towards the start
    average_epochs: bool = False  # keep the mean of the weights over all epochs so far

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Of a config as plain values.

        Args:
            values: with the sections `model` (`train_ds`, `optim`, `adapter`) and `trainer`, and `seed`.

        Raises:
            InputError: something is asked for that only a training with validation data does, or a value is wrong.
        """
        data, adapter, trainer = values["model"]["train_ds"], values["model"]["adapter"], values["trainer"]
        needed = {
            "model.train_ds.use_semi_sorted_batching": (data.get("use_semi_sorted_batching"), True),
            "model.train_ds.drop_last": (data.get("drop_last") or False, False),
            "trainer.accumulate_grad_batches": (trainer.get("accumulate_grad_batches") or 1, 1),
            "trainer.max_steps": (trainer.get("max_steps", -1), -1),
            "trainer.max_time": (trainer.get("max_time"), None),
            "trainer.gradient_clip_algorithm": (trainer.get("gradient_clip_algorithm") or "norm", "norm"),
            "trainer.limit_train_batches": (trainer.get("limit_train_batches") or 1.0, 1.0),
        }
        for key, (value, wanted) in needed.items():
            if value != wanted:
                raise InputError(
                    f"{key}={value} does not go with cross-validation, which needs {wanted}: give "
                    "model.validation_ds.manifest_filepath, or set model.adapter.folds=0"
                )
        return cls(
            optim=values["model"]["optim"],
            batch_size=data["batch_size"],
            max_epochs=trainer["max_epochs"],
            gradient_clip_val=trainer.get("gradient_clip_val") or 0.0,
            randomization_factor=data["randomization_factor"],
            seed=values["seed"],
            **{key: adapter[key] for key in ("folds", "patience", "kl_weight", "l2_weight", "average_epochs")},
        )

    def __post_init__(self) -> None:
        check_optim(self.optim)
        check_seed(self.seed)
        for name in ("batch_size", "max_epochs"):
            check_whole(f"{KEYS[name]}.{name}", getattr(self, name), 1)
        for name in ("gradient_clip_val", "randomization_factor", "kl_weight", "l2_weight"):
            check_number(f"{KEYS[name]}.{name}", getattr(self, name))
        if not _is_whole(self.folds) or self.folds < 2:
            raise InputError(f"{ADAPTER}.folds={self.folds}: at least 2 parts must take turns")
        if self.patience is not None and (not _is_whole(self.patience) or self.patience < 1):
            raise InputError(f"{ADAPTER}.patience={self.patience}: expected at least 1 epoch, or null")


def check_whole(key: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number of at least `least`.

    Raises:
        InputError: names the key.
    """
    if not _is_whole(value) or value < least:
        raise InputError(f"{key}={value}: expected a whole number of at least {least}")


def check_number(key: str, value: Any) -> None:
    """Refuse what is not a finite number of at least 0.

    Raises:
        InputError: names the key.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{key}={value}: expected a number of at least 0")


def check_seed(seed: Any) -> None:
    """Refuse what NumPy does not take.

    Raises:
        InputError: says what it takes.
    """
    if not _is_whole(seed) or not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed={seed}: expected a whole number from 0 to {MAX_SEED}")


def check_optim(optim: Mapping[str, Any]) -> None:
    """Refuse a learning rate that is no number, and names that NeMo does not know.

    Raises:
        InputError: names the key.
    """
    if optim.get("lr") is not None:
        check_number("model.optim.lr", optim["lr"])
    name = optim.get("name")
    if name is not None and name not in AVAILABLE_OPTIMIZERS:
        raise InputError(f"model.optim.name={name}: expected one of {', '.join(sorted(AVAILABLE_OPTIMIZERS))}")
    schedule = (optim.get("sched") or {}).get("name")
    if schedule is not None and schedule not in AVAILABLE_SCHEDULERS:
        raise InputError(f"model.optim.sched.name={schedule}: expected one of {', '.join(AVAILABLE_SCHEDULERS)}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class StartSettings:
    """What the training of one adapter starts from."""

    config: Mapping[str, Any]  # of a new adapter, `_target_` among it
    module: str | None = None  # `encoder`, `decoder`, `encoder+decoder`; None: where the model has adapters by default
    init_from: str | None = None  # another adapter: one of the model, a file, or a user of `init_from_store`
    init_from_store: str | None = None
    continue_existing: bool = False  # the adapter of that name which the model has

    @classmethod
    def of(cls, adapter: Mapping[str, Any]) -> Self:
        """Of the config's section `model.adapter`, as plain values.

        Raises:
            InputError: there is no such type of adapter, or it does not go to this module.
        """
        return cls(
            adapter_config(adapter),
            adapter["adapter_module_name"],
            adapter["init_from"],
            adapter["init_from_store"],
            adapter.get("continue_existing", False),
        )


@dataclass(frozen=True)
class FitSettings:
    """What the training script and `adapt` are told: the keys of conf/asr_adapters/asr_adaptation.yaml."""

    name: str  # of the experiment, and of the `.nemo`
    seed: int
    start: StartSettings
    cache: CacheSettings
    train_ds: Mapping[str, Any]
    validation_ds: Mapping[str, Any]
    optim: Mapping[str, Any]
    trainer: Mapping[str, Any]  # arguments of Lightning's trainer
    exp_manager: Mapping[str, Any]
    global_cfg: Mapping[str, Any]
    spec_augment: Mapping[str, Any] | None
    labels: Sequence[str] | None  # another vocabulary
    file_name: str | None  # of the adapter alone, beside the `.nemo`
    unfreeze_base: bool
    frozen_in_eval_mode: bool
    kl_weight: float
    l2_weight: float
    average_epochs: bool
    cross_validation: Settings | None  # None: there are validation data, or the last epoch is kept

    @classmethod
    def of(cls, values: Mapping[str, Any], has_validation: bool) -> Self:
        """Of the config as plain values.

        Args:
            values: all of it.
            has_validation: whether there are validation data.

        Raises:
            InputError: a value is wrong, whatever the data are.
        """
        model, adapter, trainer = values["model"], values["model"]["adapter"], values["trainer"]
        vocabulary = model["char_labels"]
        if vocabulary["update_labels"] and not vocabulary["labels"]:
            raise InputError("model.char_labels.labels is not set, but model.char_labels.update_labels=true")
        check_seed(values["seed"])
        check_optim(model["optim"])
        check_whole("model.train_ds.batch_size", model["train_ds"]["batch_size"], 1)
        for key in ("kl_weight", "l2_weight"):
            check_number(f"{ADAPTER}.{key}", adapter[key])
        _check_trainer(trainer, has_validation)
        if has_validation:
            check_whole("model.validation_ds.batch_size", model["validation_ds"]["batch_size"], 1)
            _check_checkpoints(values["exp_manager"])
        is_base_frozen = not (adapter["unfreeze_base"] or vocabulary["update_labels"])
        is_decided = is_base_frozen and not has_validation and adapter["folds"] != 0
        return cls(
            name=values["exp_manager"].get("name") or values["name"],
            seed=values["seed"],
            start=StartSettings.of(adapter),
            cache=CacheSettings.of(adapter),
            train_ds=model["train_ds"],
            validation_ds=model["validation_ds"],
            optim=model["optim"],
            trainer=trainer,
            exp_manager=values["exp_manager"],
            global_cfg=adapter["global_cfg"] or {},
            spec_augment=model["spec_augment"],
            labels=vocabulary["labels"] if vocabulary["update_labels"] else None,
            file_name=adapter["adapter_state_dict_name"],
            cross_validation=Settings.of(values) if is_decided else None,
            **{key: adapter[key] for key in OWN_KEYS},
        )

    @property
    def is_base_frozen(self) -> bool:
        """Whether the adapter is all that is trained."""
        return not self.unfreeze_base and self.labels is None

    @property
    def monitor(self) -> str:
        """Name of the metric by which epochs are compared."""
        return (self.exp_manager.get("checkpoint_callback_params") or {}).get("monitor", MONITORS[0])

    def experiment(self, has_validation: bool) -> Mapping[str, Any]:
        """The section `exp_manager`; without validation data no checkpoints are kept, and none is resumed."""
        if not has_validation:
            return {**self.exp_manager, "create_checkpoint_callback": False, "resume_if_exists": False}
        # Lightning's default, during the last validation of an epoch, repeats a batch when it is resumed.
        params = {"save_on_train_epoch_end": True, **(self.exp_manager.get("checkpoint_callback_params") or {})}
        return {**self.exp_manager, "checkpoint_callback_params": params}

    def data(
        self, train: Sequence[Utterance], validation: Sequence[Utterance] | None
    ) -> tuple[list[Utterance], list[Utterance] | None]:
        """Training and validation data within the limits of their sections.

        Raises:
            InputError: nothing is left.
        """
        train = _some_within("model.train_ds", self.train_ds, train)
        size = self.train_ds["batch_size"]
        if self.train_ds.get("drop_last") and len(train) < size:
            raise InputError(f"model.train_ds.drop_last=true leaves none: {len(train)} utterances, batches of {size}")
        if validation is None:
            return train, None
        return train, _some_within("model.validation_ds", self.validation_ds, validation)


OWN_KEYS = (
    "unfreeze_base",
    "frozen_in_eval_mode",
    "kl_weight",
    "l2_weight",
    "average_epochs",
)


def _check_trainer(trainer: Mapping[str, Any], has_validation: bool) -> None:
    if trainer.get("fast_dev_run"):
        raise InputError("trainer.fast_dev_run keeps nothing: set trainer.max_steps=1")
    if trainer.get("limit_train_batches") == 0:
        raise InputError("trainer.limit_train_batches=0: there would be nothing to train on")
    if has_validation and trainer.get("limit_val_batches") == 0:
        raise InputError("trainer.limit_val_batches=0: leave out model.validation_ds.manifest_filepath instead")
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if steps != -1:
        check_whole("trainer.max_steps", steps, 1)
    if epochs not in (None, -1):
        check_whole("trainer.max_epochs", epochs, 1)
    if epochs == -1 and steps == -1 and trainer.get("max_time") is None:
        raise InputError("trainer.max_epochs=-1 never ends: set trainer.max_steps or trainer.max_time")


def _check_checkpoints(exp_manager: Mapping[str, Any]) -> None:
    key, params = "exp_manager.checkpoint_callback_params", exp_manager.get("checkpoint_callback_params") or {}
    if params.get("monitor", MONITORS[0]) not in MONITORS or params.get("mode", "min") != "min":
        raise InputError(
            f"{key}.monitor={params.get('monitor')}, mode={params.get('mode')}: epochs are compared by "
            f"{' or '.join(MONITORS)}, mode=min"
        )
    if params.get("always_save_nemo") or not params.get("save_best_model", True):
        raise InputError(
            f"{key}: the .nemo is written once, at the end, with the best epoch: leave out always_save_nemo and "
            "save_best_model"
        )


def within(key: str, section: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Utterances that are neither too short nor too long.

    Args:
        key: of the section, for messages.
        section: may have `min_duration` and `max_duration`, seconds.
        utterances: all there are.

    Raises:
        InputError: a limit is no number.
    """
    limits = [section.get("min_duration"), section.get("max_duration")]
    for name, limit in zip(("min_duration", "max_duration"), limits):
        if limit is not None:
            check_number(f"{key}.{name}", limit)
    shortest, longest = limits[0] or 0.0, math.inf if limits[1] is None else limits[1]
    return [utterance for utterance in utterances if shortest <= utterance.duration <= longest]


def _some_within(key: str, section: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    left = within(key, section, utterances)
    if not left:
        raise InputError(f"{key}: min_duration and max_duration leave none of {len(utterances)} utterances")
    return left


def adapter_config(adapter: Mapping[str, Any]) -> dict[str, Any]:
    """Of a new adapter, by `adapter_type`.

    Args:
        adapter: the config's section `model.adapter`.

    Raises:
        InputError: there is no such type, or it does not go to this module.
    """
    kind = adapter["adapter_type"]
    if kind not in ADAPTER_TYPES:
        raise InputError(f"{ADAPTER}.adapter_type={kind}: expected one of {', '.join(ADAPTER_TYPES)}")
    if kind == "mlp_head" and adapter["adapter_module_name"] != "decoder":
        raise InputError(f"{ADAPTER}.adapter_type=mlp_head makes logits: set {ADAPTER}.adapter_module_name=decoder")
    # No `layers` stands for the default, and a head adapter has no such key.
    return {key: value for key, value in adapter[kind].items() if (key, value) != ("layers", None)}
