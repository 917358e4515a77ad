"""The steps between a restored base and the training of one adapter."""

from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.adaptation.warm_start import start_from
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter, read_text
from nemo_ds2_adapters.adapters.lifecycle import list_adapters
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.layers import RecurrentLayer
from nemo_ds2_adapters.modules import DeepSpeech2EncoderAdapter

ADAPTER_TYPES = ("mlp", "linear", "mlp_head")  # each a section of model.adapter


def change_vocabulary(model: ASRModel, char_labels: DictConfig) -> bool:
    """Give the model the output characters of `char_labels.labels` if `char_labels.update_labels` says so.

    Returns:
        whether the output layer is a new one.

    Raises:
        InputError: labels are missing, the model writes sub-words, or it has adapters made for the old ones.
    """
    if not char_labels.update_labels:
        return False
    if not char_labels.labels:
        raise InputError("model.char_labels.labels is not set, but model.char_labels.update_labels=true")
    if hasattr(model, "tokenizer"):
        raise InputError("model.char_labels: this model writes sub-words, not characters")
    if list_adapters(model):
        raise InputError("model.char_labels: the model has adapters that depend on its vocabulary; use the base")
    old = model.decoder
    model.change_vocabulary(list(char_labels.labels))
    return model.decoder is not old


def attach_adapter(model: ASRModel, adapter: ChosenAdapter, cfg: DictConfig) -> None:
    """Add the adapter that `model.adapter` describes, or find it when it is to be continued.

    Args:
        model: the base, with or without other adapters.
        adapter: which one.
        cfg: the config's section `model.adapter`.

    Raises:
        InputError: the name exists (or, when it is to be continued, does not), is not legal, or the adapter
            does not fit the model.
        AdapterFileError: the file that it starts from cannot be read, or does not fit the model.
    """
    name = str(adapter.name)
    from_another = read_text(cfg, "init_from") is not None or cfg.init_from_store is not None
    if cfg.continue_existing and from_another:
        raise InputError("set one of model.adapter.continue_existing and model.adapter.init_from, both are set")
    if cfg.continue_existing:
        if name not in list_adapters(model):
            raise InputError(
                f"model.adapter.continue_existing: the model has no adapter for {adapter.option}, it has "
                f"{', '.join(list_adapters(model)) or 'none'}"
            )
        return
    if name in list_adapters(model):
        raise InputError(
            f"{adapter.option}: such an adapter exists already; choose another one, or train it further with "
            "model.adapter.continue_existing=true"
        )
    if from_another:
        start_from(model, name, cfg)
        return
    full_name = f"{cfg.adapter_module_name}:{name}" if cfg.adapter_module_name else name
    if cfg.adapter_type == "mlp_head" and full_name.partition(":")[0] != "decoder":
        raise InputError(
            "model.adapter.adapter_type=mlp_head makes logits: set model.adapter.adapter_module_name=decoder"
        )
    try:
        add_adapter(model, full_name, _adapter_config(model, cfg), global_cfg=cfg.global_cfg)
    except (ValueError, TypeError) as error:
        raise InputError(f"model.adapter: {error}") from error


def train_only(model: ASRModel, adapter: ChosenAdapter, cfg: DictConfig, new_output_layer: bool = False) -> None:
    """Enable one adapter, freeze everything and unfreeze that adapter.

    The frozen part stays in eval mode, so it computes what it will compute in use: no dropout, no dither, no
    batch statistics. `frozen_in_eval_mode: false` gives NeMo's behaviour.

    Args:
        model: with the adapter attached.
        adapter: which one.
        cfg: the config's section `model.adapter`.
        new_output_layer: train the output layer along, since it knows nothing yet.

    Raises:
        InputError: the base is to be trained although other adapters depend on it.
    """
    others = [other for other in list_adapters(model) if other != plain_name(str(adapter.name))]
    if cfg.unfreeze_base and others:
        raise InputError(f"model.adapter.unfreeze_base would spoil {', '.join(others)}, trained on the base as it is")
    enable_only(model, adapter)
    model.freeze()
    if cfg.unfreeze_base:
        model.unfreeze()
    elif not cfg.frozen_in_eval_mode:
        print("the frozen part keeps dropout and dither in training (model.adapter.frozen_in_eval_mode=false)")
        model.train()
        for module in model.modules():
            if isinstance(module, RecurrentLayer):
                module.dropout_when_frozen = True
    model.unfreeze_enabled_adapters(freeze_batchnorm=not cfg.unfreeze_base)
    if new_output_layer:
        model.decoder.unfreeze()


def enable_only(model: ASRModel, adapter: ChosenAdapter) -> None:
    """Enable one adapter and disable all others, or all if it is the base.

    Raises:
        InputError: the model has no such adapter.
    """
    names = list_adapters(model)
    if adapter.name is not None and plain_name(adapter.name) not in names:
        have = f"its adapters are {', '.join(names)}" if names else "it has none"
        raise InputError(f"{adapter.option}: the model has no such adapter, {have}")
    if names:
        model.set_enabled_adapters(enabled=False)
    if adapter.name is not None:
        model.set_enabled_adapters(adapter.name, enabled=True)


def plain_name(name: str) -> str:
    """An adapter's name without the module in front."""
    return name.rpartition(":")[2]


def _adapter_config(model: ASRModel, cfg: DictConfig) -> DictConfig:
    kind = cfg.adapter_type
    if kind not in ADAPTER_TYPES:
        raise InputError(f"model.adapter.adapter_type={kind}: expected one of {', '.join(ADAPTER_TYPES)}")
    adapter = DictConfig(OmegaConf.to_container(cfg[kind], resolve=True))
    placeable = isinstance(model.encoder, DeepSpeech2EncoderAdapter) and "decoder" not in str(cfg.adapter_module_name)
    if adapter.get("layers") is None:  # a head adapter has no such key
        adapter.pop("layers", None)
    elif not placeable:
        raise InputError(f"model.adapter.{kind}.layers={adapter.layers} is for adapters in a DeepSpeech2 encoder only")
    return adapter
