"""A base model in a file of its own: a `.nemo`, or a `.pt` with its state dict and config."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf, open_dict

from nemo_ds2_adapters.adapters.blocks import adapter_blocks, adapter_layer, share_config
from nemo_ds2_adapters.adapters.fingerprint import base_tensors, describe_base, difference
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.atomic import write_atomically
from nemo_ds2_adapters.formats.nemo_archive import restore_model, save_nemo
from nemo_ds2_adapters.formats.plain import written_values
from nemo_ds2_adapters.formats.reading import read_values
from nemo_ds2_adapters.formats.safe_pickle.saving import saved

STATE_KEY, CONFIG_KEY = "model_state_dict", "config"  # the first is the original's
OF_TRAINING = ("train_ds", "validation_ds", "test_ds", "optim")  # nothing of the model
MAX_REASONS = 10  # lines of an error message


def check_base_path(path: str | PathLike[str]) -> Path:
    """The path of a base model's file, which must end with .nemo or .pt (InputError)."""
    if Path(path).suffix not in (".nemo", ".pt"):
        raise InputError(f"model_path={path}: expected a name that ends with .nemo or .pt")
    return Path(path)


def make_folder(folder: Path) -> None:
    """Make a directory if it is not there. Raises AdapterFileError: the operating system refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdapterFileError(f"{folder}: cannot be made ({error.strerror})") from error


def write_base(model: ASRModel, path: str | PathLike[str]) -> None:
    """Write the model without its adapters, so that a reader finds the old file or the new one.

    Raises InputError: the path ends otherwise, or the model has files, such as a tokenizer's, which only a .nemo
    holds.
    """
    path = check_base_path(path)
    make_folder(path.parent)
    with without_adapters(model):
        if path.suffix == ".nemo":
            save_nemo(model, path)
            return
        if model.has_native_or_submodules_artifacts():
            raise InputError(f"{path}: the model has files of its own, such as a tokenizer's: give a name with .nemo")
        config: Any = OmegaConf.to_container(model.cfg, resolve=True)
        config = {key: value for key, value in config.items() if key not in OF_TRAINING}
        state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
        content = {STATE_KEY: state, CONFIG_KEY: written_values(config, "the config of the model")}
        write_atomically(path, saved(content))


def read_base(path: Path) -> ASRModel:
    """Build the model of a file that `write_base` wrote, or of any other .nemo. Raises InputError: it is no such file.

    No code in a .pt is executed; which classes its config may name, NeMo limits.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".nemo":
        return restore_model(str(path), None)
    content = read_values(path)
    try:
        model = ASRModel.from_config_dict(OmegaConf.create(content[CONFIG_KEY]))
        model.load_state_dict({key: value.tensor() for key, value in content[STATE_KEY].items()})
    except Exception as error:  # whatever NeMo may raise on a config that nobody checked
        raise InputError(f"{path}: is not a base model that save_model_with_adapter wrote ({error})") from error
    return model


@contextmanager
def replaced_base(model: ASRModel, base: ASRModel, label: str | PathLike[str]) -> Iterator[None]:
    """Give the model another base's weights, and take them back if the block fails.

    Raises InputError: the two differ in more than their weights; names `label` and what differs.
    """
    own, other = dict(base_tensors(model)), dict(base_tensors(base))
    theirs, ours = describe_base(base), describe_base(model)
    if {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in other.items()}:
        theirs, ours = ({key: d[key] for key in ("preprocessor", "vocabulary")} for d in (theirs, ours))
    lines = difference(theirs, ours)
    if lines:
        raise InputError(f"{label}: is another kind of model\n  " + "\n  ".join(lines[:MAX_REASONS]))
    before = {key: value.clone() for key, value in own.items()}
    try:
        _copy(other, own)
        yield
    except BaseException:
        _copy(before, own)
        raise


@contextmanager
def without_adapters(model: ASRModel) -> Iterator[None]:
    """Run a block with the model as if it never had adapters."""
    layers = [(block, adapter_layer(block)) for _, block in adapter_blocks(model) if adapter_layer(block)]
    with open_dict(model.cfg):
        adapters = model.cfg.pop("adapters", None)
    for block, _ in layers:
        del block.adapter_layer
    try:
        yield
    finally:
        for block, layer in layers:
            block.adapter_layer = layer
        if adapters is not None:
            with open_dict(model.cfg):
                model.cfg.adapters = adapters
            share_config(model)


def _copy(source: dict[str, Any], target: dict[str, Any]) -> None:
    for key, value in target.items():
        value.copy_(source[key])
