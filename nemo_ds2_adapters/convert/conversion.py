"""From a checkpoint of another toolkit to a complete `.nemo`."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from nemo_ds2_adapters.convert.checkpoint import read_checkpoint
from nemo_ds2_adapters.convert.deepspeech_pytorch import is_deepspeech_pytorch, read_deepspeech_pytorch
from nemo_ds2_adapters.convert.kospeech import is_kospeech, read_kospeech
from nemo_ds2_adapters.convert.labels import output_units, read_labels, unicode_parser
from nemo_ds2_adapters.convert.original import Options, Original
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.nemo_archive import save_nemo
from nemo_ds2_adapters.layers import ACTIVATIONS

FilePath = str | os.PathLike[str]

COUNTER = "num_batches_tracked"  # of batch norms, which torch before 0.4.1 did not have; of no use here


def convert_checkpoint(
    path: FilePath,
    out: FilePath,
    *,
    rnn_type: str | None = None,
    bidirectional: bool | None = None,
    activation: str | None = None,
    labels: Sequence[str] | FilePath | None = None,
    blank_index: int | None = None,
    input_dim: int | None = None,
    features: Mapping[str, Any] | None = None,
    keep_case: bool = False,
) -> EncDecCTCModel:
    """Make a NeMo model of a DeepSpeech2 of deepspeech.pytorch or KoSpeech. Nothing in the file is executed.

    Layers and sizes are read off the weights, labels and features off the file's settings where it has any; options
    give what it does not have, and are checked against what it does have. A model whose features are not known gets
    a warning.

    Args:
        path: `.ckpt` or `.pth` of deepspeech.pytorch, or a state dict or whole pickled model of KoSpeech.
        out: the `.nemo` to write, replaced if it exists.
        rnn_type: `gru`, `lstm` or `rnn`.
        bidirectional: whether the recurrent layers run in both directions.
        activation: of convolutions and look-ahead: `hardtanh` or a name of `nemo_ds2_adapters.layers.ACTIVATIONS`.
        labels: output units in the original's order, as a list, a `.json` list or KoSpeech's vocabulary `.csv`; with
            or without the blank.
        blank_index: row of the blank in the original; by default that of the label `<blank>` or `_`, else the first
            (deepspeech.pytorch) or the last (KoSpeech).
        input_dim: values per input frame.
        features: settings of the input features in the original's names, see `docs/convert.md`.
        keep_case: keep labels that are upper case throughout; otherwise they become lower case, as NeMo's data are.

    Returns:
        the model, in eval mode, as it was written.

    Raises:
        InputError: the file cannot be read or is hostile, something is missing or contradicts something else, or the
            weights do not fit; names it. Nothing was written.
        AdapterFileError: `out` cannot be written.
    """
    out = Path(out)
    if out.suffix != ".nemo":
        raise InputError(f"{out}: expected a name that ends with .nemo")
    if activation is not None and activation not in (*ACTIVATIONS, "hardtanh"):
        raise InputError(f"activation={activation}: expected hardtanh or one of {', '.join(ACTIVATIONS)}")
    options = Options(
        rnn_type=rnn_type,
        bidirectional=bidirectional,
        activation="clipped_relu" if activation == "hardtanh" else activation,
        labels=None if labels is None else read_labels(labels),
        input_dim=input_dim,
        features=None if features is None else dict(features),
    )
    checkpoint = read_checkpoint(Path(path))
    try:
        if is_deepspeech_pytorch(checkpoint.weights):
            original = read_deepspeech_pytorch(checkpoint, options)
        elif is_kospeech(checkpoint.weights):
            original = read_kospeech(checkpoint, options)
        else:
            some = ", ".join(sorted(checkpoint.weights)[:3])
            raise InputError(f"the weights ({some}, ...) are neither of deepspeech.pytorch nor of KoSpeech")
        units = output_units(
            original.labels, original.sizes.num_classes, blank_index, original.default_blank, keep_case
        )
        model = EncDecCTCModel(cfg=_model_config(original, units.vocabulary))
        _load_weights(model, checkpoint.weights, original.modules, units.order)
    except ValueError as error:  # of an option that the encoder refuses, or an InputError
        raise InputError(f"{path}: {error}") from error
    model.eval()
    save_nemo(model, out)
    for note in original.notes:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    return model


def _model_config(original: Original, vocabulary: list[str]) -> DictConfig:
    sample_rate = original.preprocessor["sample_rate"]
    data = {"manifest_filepath": None, "sample_rate": sample_rate, "labels": vocabulary, "batch_size": 16}
    if parser := unicode_parser(vocabulary):
        data["parser"] = parser
    return OmegaConf.create(
        {
            "sample_rate": sample_rate,
            "labels": vocabulary,
            "train_ds": {**data, "shuffle": True},
            "validation_ds": {**data, "shuffle": False},
            "test_ds": {**data, "shuffle": False},
            "preprocessor": original.preprocessor,
            "encoder": {"_target_": "nemo_ds2_adapters.modules.DeepSpeech2EncoderAdapter", **original.encoder},
            "decoder": {
                "_target_": "nemo_ds2_adapters.modules.DeepSpeech2Decoder",
                "feat_in": None,
                "num_classes": len(vocabulary),
                "vocabulary": vocabulary,
                **original.decoder,
            },
            "decoding": {"strategy": "greedy_batch"},
        }
    )


def _load_weights(
    model: EncDecCTCModel, weights: Mapping[str, Tensor], modules: Mapping[str, str], class_order: Sequence[int]
) -> None:
    """Load encoder and decoder, none of the weights left out and none left over (InputError, which lists all such).

    `modules` has ours by the original's names, `class_order` the original's row of the output layer by our class.
    """
    original = {ours: theirs for theirs, ours in modules.items()}
    targets = {
        _renamed(key, original): value
        for key, value in model.state_dict(keep_vars=True).items()
        if key.startswith(("encoder.", "decoder."))
    }
    optional = {key for key in targets if key.endswith(COUNTER)}
    problems = {
        "missing": sorted(targets.keys() - weights.keys() - optional),
        "unexpected": sorted(weights.keys() - targets.keys()),
        "of another shape": [
            f"{key} {list(weights[key].shape)} (expected {list(targets[key].shape)})"
            for key in sorted(targets.keys() & weights.keys())
            if weights[key].shape != targets[key].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in problems.items() if keys)
        raise InputError(f"the state dict does not fit the model. {listed}")
    output = original["decoder.output"]
    with torch.no_grad():
        for key in targets.keys() & weights.keys():
            value = weights[key]
            targets[key].copy_(value[list(class_order)] if key.startswith(f"{output}.") else value)


def _renamed(key: str, modules: Mapping[str, str]) -> str:
    module, _, parameter = key.rpartition(".")
    return f"{modules[module]}.{parameter}"
