"""How an adapter is trained, in plain values, checked before anything is computed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from nemo.core.optim.lr_scheduler import AVAILABLE_SCHEDULERS
from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS

from nemo_ds2_adapters.checks import check_number, check_whole, is_whole
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError

LEAST_RECORDINGS = 2  # with fewer, nothing can tell whether an adapter helps

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


@dataclass(frozen=True)
class Settings:
    """How an adapter is trained, and how it is decided whether it is kept.

    Raises:
        InputError: a value is not what it must be; names it by its key in conf/asr_adapters/asr_adaptation.yaml.
    """

    optim: Mapping[str, Any]  # NeMo's section `model.optim`
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
        if not is_whole(self.folds) or self.folds < 2:
            raise InputError(f"{ADAPTER}.folds={self.folds}: at least 2 parts must take turns")
        if self.patience is not None and (not is_whole(self.patience) or self.patience < 1):
            raise InputError(f"{ADAPTER}.patience={self.patience}: expected at least 1 epoch, or null")


@dataclass(frozen=True)
class PriorSettings:
    """How a population's adapter is trained, and how those left out are adapted from it (docs/defaults.md).

    Raises:
        InputError: a value is not what it must be.
    """

    epochs: int = 10  # over everybody's speech
    lr: float = 0.002  # of the same, falling as a cosine
    batch_size: int = 8  # utterances, of the same
    folds: int = 3  # parts of the speakers that take turns in being left out
    person_lr: float = 0.0005  # of a person's training, constant
    person_batch_size: int = 4  # utterances
    amounts: tuple[int, ...] = (1, 3, 10)  # utterances of a person that are tried, beside all
    person_epochs: tuple[int, ...] = (1, 2, 4, 8)  # that are compared
    shares: tuple[float, ...] = (0.5, 1.0)  # of the way to a person's own adapter, that are compared
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "person_batch_size"):
            check_whole(f"prior.{name}", getattr(self, name), 1)
        check_whole("prior.folds", self.folds, 2)
        for name in ("lr", "person_lr"):
            check_number(f"prior.{name}", getattr(self, name))
        check_seed(self.seed)

    @classmethod
    def in_passing(cls, seed: int) -> Self:
        """For priors that are made to adapt the same people: what few of them need is left out."""
        return cls(amounts=(3,), person_epochs=(2, 4, 8), seed=seed)

    @property
    def population(self) -> Settings:
        """Of the training on everybody's speech."""
        schedule = {"name": "CosineAnnealing", "warmup_ratio": 0.1, "min_lr": 1e-5}
        optim = {"name": "adamw", "lr": self.lr, "betas": [0.9, 0.98], "weight_decay": 0.0, "sched": schedule}
        return Settings(optim, self.batch_size, self.epochs, seed=self.seed)

    @property
    def person(self) -> Settings:
        """Of one person's training."""
        return person_settings(self.person_lr, self.person_batch_size, max(self.person_epochs), self.seed)


def person_settings(lr: float, batch_size: int, epochs: int, seed: int = 0) -> Settings:
    """Of the training of a person's adapter from the population's, with steps of one size."""
    return Settings(
        {"name": "adamw", "lr": lr, "betas": [0.9, 0.98], "weight_decay": 0.0}, batch_size, epochs, seed=seed
    )


def check_seed(seed: Any) -> None:
    """Refuse what NumPy does not take.

    Raises:
        InputError: says what it takes.
    """
    if not is_whole(seed) or not 0 <= seed <= MAX_SEED:
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
