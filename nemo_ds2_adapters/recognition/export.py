"""One ONNX graph for everybody: the base, and adapters that come in as inputs, for each row its own."""

import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor
from nemo.collections.asr.parts.preprocessing.features import CONSTANT, FilterbankFeatures
from nemo.core.classes.common import typecheck
from torch import Tensor, nn

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.attach import add_adapter, attach
from nemo_ds2_adapters.adapters.attached import without_info
from nemo_ds2_adapters.adapters.detach import undone
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.atomic import replacement
from nemo_ds2_adapters.layers import Branch
from nemo_ds2_adapters.modules import LogSpectrogramPreprocessor, MLPAdapterConfig, StreamingMelPreprocessor
from nemo_ds2_adapters.modules.routing import RoutedRows, Routing, routed
from nemo_ds2_adapters.modules.spectrogram import MIN_STD
from nemo_ds2_adapters.recognition.features import Features
from nemo_ds2_adapters.recognition.graph import ADAPTERS, METADATA, Graph, kind_of
from nemo_ds2_adapters.recognition.loading import NETWORK, AttachedAdapters
from nemo_ds2_adapters.recognition.serving import serving
from nemo_ds2_adapters.recognition.small_weights import WEIGHTS, store_smaller

OPSET = 17
NAME = "exported"  # of an adapter of the graph's architecture, while that is looked at
EXAMPLE_ROWS, EXAMPLE_FRAMES, EXAMPLE_HIDDEN = 2, 64, 3
MEL_PREPROCESSORS = (AudioToMelSpectrogramPreprocessor, StreamingMelPreprocessor)
NORMALIZE = {"per_feature": "feature", "all_features": "all", None: "", "": "", False: ""}


def export_onnx(
    model: EncDecCTCModel,
    path: str | os.PathLike[str],
    adapters: str = "rows",
    like: Adapter | None = None,
    greedy: bool = False,
    weights: str = "fp32",
) -> None:
    """Write a graph for onnxruntime, and for `OnnxRecogniser`, which needs neither torch nor NeMo.

    Inputs are `audio_signal` `[B, D, T]`, features, and `length` `[B]`, their real frames; outputs `logprobs`
    `[B, T', V]`, blank last, and `encoded_lengths` `[B]`. With `rows`, every weight of an adapter is an input as well,
    `<point>:<weight>` as in adapter files, `[B, ...]`; with `bank` it is `[S, ...]`, and `slots` `[B]` says which of
    the S each row takes. These inputs may be left out: then all rows are the base's, to the last bit, as is each row
    whose weights are zero. Hidden sizes may be any; zeros fill up smaller ones. The features are not in the graph;
    what they are computed with is in its metadata.

    Args:
        model: a DeepSpeech2. No adapter that is attached to it is in the graph; afterwards it is as it was.
        path: the file to write.
        adapters: `rows`, `bank` or `none`.
        like: an adapter of the architecture that is to fit; None for `MLPAdapter` with one hidden layer after every
            recurrent layer.
        greedy: a third output `greedy`, `[B, T']`: the likeliest unit of each frame.
        weights: how those of the base are stored, `fp32`, `fp16` or `int8`; all are computed with in fp32, and
            adapters are fp32.

    Raises:
        InputError: `adapters` or `weights` is something else, the model is no DeepSpeech2, or its features or
            vocabulary are of a kind that the runner does not have, a weight is too large for fp16, or the package
            `onnx` is missing.
        AdapterFileError: `like` does not fit the model, or replaces what the base computes; `path` cannot be written.
    """
    if adapters not in ADAPTERS:
        raise InputError(f"adapters={adapters!r}: expected one of {', '.join(ADAPTERS)}")
    if weights not in WEIGHTS:
        raise InputError(f"weights={weights!r}: expected one of {', '.join(WEIGHTS)}")
    if like is not None and adapters == "none":
        raise InputError("adapters='none': leave out the adapter that the graph is to take")
    try:
        import onnx
    except ImportError:
        raise InputError("the package onnx is missing: pip install nemo_ds2_adapters[onnx]") from None
    branches, about = _described(model, adapters, like)
    module = _Exported(model, branches, about, greedy)
    names, examples, axes = module.inputs()
    outputs = ["logprobs", "encoded_lengths", *(["greedy"] if greedy else [])]
    for output in outputs:
        axes[output] = {0: "batch"} if output == "encoded_lengths" else {0: "batch", 1: "frames_out"}
    with replacement(path) as temporary:
        with warnings.catch_warnings(), serving(model, routed=True), typecheck.disable_checks():
            warnings.simplefilter("ignore")  # the tracer's, of sizes that are the same in every batch
            torch.onnx.export(
                module,
                examples,
                str(temporary),
                input_names=names,
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,  # the other one cannot export packed sequences
            )
        graph = onnx.load(str(temporary))
        store_smaller(graph.graph, weights)
        for name, values in module.defaults().items():
            graph.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        graph.metadata_props.add(key=METADATA, value=json.dumps(about.plain(), ensure_ascii=False))
        onnx.save(graph, str(temporary))


class _Exported(nn.Module):
    """The model, with adapters' weights as inputs."""

    def __init__(self, model: EncDecCTCModel, branches: Sequence[Branch], about: Graph, greedy: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        self._branches = {branch.point: branch for branch in branches}
        self._about = about
        self._greedy = greedy

    def forward(self, audio_signal: Tensor, length: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the graph; `inputs` are the slots, if there are any, and the weights."""
        values = iter(inputs)
        slots = next(values) if self._about.adapters == "bank" else slice(None)
        weights = {p: {key: next(values)[slots] for key in branch.shapes} for p, branch in self._branches.items()}
        rows = RoutedRows(slice(0, len(audio_signal)), self._branches, weights)
        with routed(Routing((self.encoder, self.decoder), len(audio_signal), [rows])):
            encoded, lengths = self.encoder(audio_signal=audio_signal, length=length)
            log_probs = self.decoder(encoder_output=encoded)
        return (log_probs, lengths, log_probs.argmax(dim=-1)) if self._greedy else (log_probs, lengths)

    def inputs(self) -> tuple[list[str], tuple[Tensor, ...], dict[str, dict[int, str]]]:
        """Names, examples, and which of their dimensions may be of any size."""
        device = next(self.encoder.parameters()).device
        audio_signal, length = self.encoder.input_example(EXAMPLE_ROWS, EXAMPLE_FRAMES)
        names, examples = ["audio_signal", "length"], [audio_signal, length]
        axes = {"audio_signal": {0: "batch", 2: "frames"}, "length": {0: "batch"}}
        if self._about.adapters == "bank":
            names.append("slots")
            examples.append(torch.zeros(EXAMPLE_ROWS, dtype=torch.long, device=device))
            axes["slots"] = {0: "batch"}
        for name, shape in self._about.inputs.items():
            names.append(name)
            examples.append(audio_signal.new_zeros(EXAMPLE_ROWS, *(size or EXAMPLE_HIDDEN for size in shape)))
            axes[name] = {0: self._about.adapters, **{i: f"{name}.{i}" for i, size in enumerate(shape, 1) if not size}}
        return names, tuple(examples), axes

    def defaults(self) -> dict[str, np.ndarray]:
        """What the inputs are where nobody gives them: the base for all rows."""
        found = {name: np.zeros((1, *shape), np.float32) for name, shape in self._about.inputs.items()}
        return {**found, "slots": np.zeros(1, np.int64)} if self._about.adapters == "bank" else found


def _described(model: EncDecCTCModel, adapters: str, like: Adapter | None) -> tuple[tuple[Branch, ...], Graph]:
    branches: tuple[Branch, ...] = ()
    parts, config = {}, {}
    if adapters != "none":
        with undone(model):
            if like is None:
                add_adapter(model, NAME, MLPAdapterConfig(hidden_dims=[EXAMPLE_HIDDEN]))
            else:
                attach(model, like, NAME)
            _, branches, weights = AttachedAdapters(model).load(NAME)
            config = dict(without_info(model, NAME).config)
        if not all(branch.adds for branch in branches):
            raise AdapterFileError("its output takes the place of what the base computes: only what adds to it fits")
        parts = {point: _shapes(branch) for point, branch in zip(weights, branches)}
    about = Graph(
        adapters,
        fingerprint(model),
        int(model.cfg.sample_rate),
        Decoder(model).frame_seconds,
        features_of(model.preprocessor),
        list(model.decoder.vocabulary),
        hasattr(model, "tokenizer"),
        parts,
        kind_of(config),
    )
    return branches, about


def _shapes(branch: Branch) -> dict[str, list[int]]:
    """Of the weights at a point; 0 where a hidden size stands, which may be any."""
    linears = [name for name, layer in branch.network.named_children() if isinstance(layer, nn.Linear)]
    shapes = {}
    for key, shape in branch.shapes.items():
        name = key.partition(".")[0]
        sizes = list(shape)
        if name in linears[:-1]:
            sizes[0] = 0
        if name in linears[1:] and len(sizes) == 2:
            sizes[1] = 0
        shapes[f"{NETWORK}{key}"] = sizes
    return shapes


def features_of(preprocessor: nn.Module) -> Features:
    """What computes the features of a preprocessor in eval mode.

    Raises InputError: it is of a kind that only NeMo has.
    """
    if isinstance(preprocessor, LogSpectrogramPreprocessor):
        return Features(
            window=_array(preprocessor.window),
            hop=preprocessor.hop_length,
            padding=preprocessor.padding,
            reflect=preprocessor.reflect,
            normalize="all" if preprocessor.normalize else "",
            correction=preprocessor.std_correction,
            least_variance=MIN_STD**2,
        )
    mel: Any = getattr(preprocessor, "featurizer", None)
    if type(preprocessor) not in MEL_PREPROCESSORS or type(mel) is not FilterbankFeatures:
        raise InputError(f"features of {type(preprocessor).__name__} cannot be computed without NeMo")
    if mel.normalize not in NORMALIZE or mel.frame_splicing != 1:
        raise InputError(
            f"preprocessor.normalize={mel.normalize}, frame_splicing={mel.frame_splicing} cannot be computed without "
            f"NeMo: only {', '.join(map(str, NORMALIZE))}, and 1"
        )
    guard = mel.log_zero_guard_value_fn(torch.zeros(1)) if mel.log else None
    window = torch.ones(mel.win_length) if mel.window is None else mel.window
    before = (mel.n_fft - mel.win_length) // 2
    return Features(
        window=np.pad(_array(window), (before, mel.n_fft - mel.win_length - before)),
        hop=mel.hop_length,
        padding=mel.n_fft // 2 if mel.stft_pad_amount is None else mel.stft_pad_amount,
        bands=_array(mel.fb[0]),
        frames_less=1,
        preemphasis=mel.preemph or 0.0,
        power=mel.mag_power,
        guard=guard,
        clamps=mel.log_zero_guard_type == "clamp",
        normalize=NORMALIZE[mel.normalize],
        mean=_array(preprocessor.mean) if isinstance(preprocessor, StreamingMelPreprocessor) else None,
        deviation=_array(preprocessor.std) if isinstance(preprocessor, StreamingMelPreprocessor) else None,
        added_deviation=CONSTANT,
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
