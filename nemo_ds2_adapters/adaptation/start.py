"""What a training starts from: a new adapter, another one, or the one that is to be trained on."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemo.collections.asr.models import ASRModel

from nemo_ds2_adapters.adaptation.fit_settings import FitSettings, StartSettings
from nemo_ds2_adapters.adaptation.settings import ADAPTER
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior, check_fits
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.attach import add_adapter, undone
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.blocks import existing_name, list_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.names import split_name
from nemo_ds2_adapters.base_training.experiment import seeded
from nemo_ds2_adapters.errors import AdapterNameError, InputError
from nemo_ds2_adapters.formats.reading import read_adapter
from nemo_ds2_adapters.modules import DeepSpeech2EncoderAdapter
from nemo_ds2_adapters.store.store import AdapterStore

KEY = f"{ADAPTER}.init_from"


def new_adapter(model: ASRModel, name: str, config: Mapping[str, Any], seed: int) -> Adapter:
    """An adapter for this base that nobody has trained; the model is as it was.

    Args:
        model: the base.
        name: as NeMo takes it, `ann` or `decoder:ann`.
        config: what builds its modules, `_target_` among it.
        seed: of its weights.

    Raises:
        AdapterNameError: the name is not legal or exists.
        InputError: the adapter does not fit the model.
    """
    module, plain = split_name(name)
    if config.get("layers") is not None and (
        "decoder" in module or not isinstance(model.encoder, DeepSpeech2EncoderAdapter)
    ):
        raise InputError(f"{ADAPTER}: layers={config['layers']} is for adapters in a DeepSpeech2 encoder only")
    with undone(model), seeded(seed):
        try:
            add_adapter(model, name, dict(config))
        except AdapterNameError:
            raise
        except (ValueError, TypeError) as error:
            raise InputError(f"{ADAPTER}: {error}") from error
        return attached_adapter(model, plain)


def starting_adapter(model: ASRModel, name: str, settings: StartSettings, seed: int, option: str = "") -> Adapter:
    """What the training of one adapter starts from, under the adapter's name.

    Args:
        model: the base, with or without other adapters.
        name: of the adapter, with or without module prefix.
        settings: say what it is.
        seed: of a new adapter's weights.
        option: what was said on the command line, for messages.

    Raises:
        InputError: the name exists (or, when it is to be continued, does not), is not legal, or the adapter does not
            fit the model; there is no such other adapter, or not in that module.
        AdapterFileError: the file that it starts from cannot be read.
    """
    option = option or f"the name {name!r}"
    names = list_adapters(model)
    _, plain = split_name(name)
    is_copy = settings.init_from is not None or settings.init_from_store is not None
    if settings.continue_existing and is_copy:
        raise InputError(f"set one of {ADAPTER}.continue_existing and {KEY}, both are set")
    if settings.continue_existing:
        if plain not in names:
            have = ", ".join(names) or "none"
            raise InputError(f"{ADAPTER}.continue_existing: the model has no adapter for {option}, it has {have}")
        return attached_adapter(model, existing_name(model, name))
    if plain in names:
        raise InputError(
            f"{option}: such an adapter exists already; choose another one, or train it further with "
            f"{ADAPTER}.continue_existing=true"
        )
    if not is_copy:
        return new_adapter(model, f"{settings.module}:{name}" if settings.module else name, settings.config, seed)
    other = _other(model, settings.init_from, settings.init_from_store)
    place = other.module or model.default_adapter_module_name
    if settings.module and place != settings.module:
        raise InputError(
            f"{ADAPTER}.adapter_module_name={settings.module}, but {KEY}={settings.init_from} sits in {place}: "
            "leave it out"
        )
    return replace(other, name=plain)


def start_from_prior(model: ASRModel, start: Adapter, prior: VoicePrior, settings: FitSettings) -> Adapter:
    """The population's adapter under the name of the one that would be trained without a prior.

    Raises:
        InputError: the prior is of another base, or something is asked for that does not go with one.
    """
    check_fits(prior, fingerprint(model))
    if settings.start.continue_existing or settings.start.init_from is not None or not settings.is_base_frozen:
        raise InputError(
            f"{ADAPTER}.prior says what training starts from: leave out init_from, continue_existing, "
            "unfreeze_base and char_labels"
        )
    return replace(prior.adapter, name=start.name)


def _other(model: ASRModel, source: Any, store: str | None) -> Adapter:
    if not isinstance(source, str):
        raise InputError(f"{KEY}={source} is not text: name an adapter of the model, a file, or a user of the store")
    if store is not None:
        return AdapterStore(store, create=False).get(source)
    if split_name(source)[1] in list_adapters(model):
        return attached_adapter(model, existing_name(model, source))
    if Path(source).is_file():
        return read_adapter(source)
    have = ", ".join(list_adapters(model)) or "none"
    raise InputError(f"{KEY}={source}: neither an adapter of the model, which has {have}, nor a file")
