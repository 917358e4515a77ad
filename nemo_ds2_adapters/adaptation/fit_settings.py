"""What the training script and `adapt` are told about one adapter's training, in plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from nemo_ds2_adapters.activations.cache import CacheSettings
from nemo_ds2_adapters.adaptation.settings import (
    ADAPTER,
    Settings,
    check_optim,
    check_seed,
    within,
)
from nemo_ds2_adapters.checks import check_number, check_whole
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.errors import InputError

MONITORS = ("val_wer", "val_loss")  # by which epochs may be compared
ADAPTER_TYPES = ("mlp", "linear", "mlp_head")  # each a section of model.adapter
OWN_KEYS = ("unfreeze_base", "frozen_in_eval_mode", "kl_weight", "l2_weight", "average_epochs")


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
        file_name = adapter["adapter_state_dict_name"]
        if file_name is not None and not (isinstance(file_name, str) and file_name):
            raise InputError(f"{ADAPTER}.adapter_state_dict_name={file_name} is not text: give a file's name, or null")
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
            file_name=file_name,
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
        train = some_within("model.train_ds", self.train_ds, train)
        size = self.train_ds["batch_size"]
        if self.train_ds.get("drop_last") and len(train) < size:
            raise InputError(f"model.train_ds.drop_last=true leaves none: {len(train)} utterances, batches of {size}")
        if validation is None:
            return train, None
        return train, some_within("model.validation_ds", self.validation_ds, validation)


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


def some_within(key: str, section: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Those that are neither too short nor too long. Raises InputError if there are none."""
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
