"""Exported graphs in onnxruntime, and the runner that needs neither torch nor NeMo, against PyTorch."""

import importlib.metadata
import inspect
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.utils.model_utils import import_class_by_path
from omegaconf import OmegaConf

from nemo_ds2_adapters import AdapterStore, add_adapter, transcribe
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.errors import AdapterFileError, BaseMismatchError, InputError, NemoDs2Error, UnknownUserError
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.export import export_onnx, features_of
from nemo_ds2_adapters.recognition.graph import DEFAULTS
from nemo_ds2_adapters.recognition.onnx import OnnxRecogniser
from nemo_ds2_adapters.recognition.small_weights import LEAST
from tests.test_import_rules import declared_distributions, normalised

PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"
TOLERANCE = 1e-4
BATCHES = 20  # of each base
BASES = {
    "gru_summed": {"rnn_type": "gru", "bidirectional_merge": "sum"},
    "gru_concatenated": {"rnn_type": "gru", "bidirectional_merge": "concat"},
    "gru_forward_only": {"rnn_type": "gru", "bidirectional": False, "lookahead_context": 4},
    "lstm_summed": {"rnn_type": "lstm", "bidirectional_merge": "sum"},
    "lstm_concatenated": {"rnn_type": "lstm", "bidirectional_merge": "concat"},
    "rnn_summed": {"rnn_type": "rnn", "bidirectional_merge": "sum"},
    "rnn_forward_only": {"rnn_type": "rnn", "bidirectional": False, "lookahead_context": 4},
}
KINDS = ("first", "last", "all", "listed", "decoder", "both", "head")
MAX_FRAMES = 60


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., AdapterStore]:
    """A store of attached adapters, each put under its own name."""

    def make(model: EncDecCTCModel, names: list[str]) -> AdapterStore:
        store = AdapterStore(tmp_path / "store")
        for name in names:
            store.put(name, attached_adapter(model, name))
        return store

    return make


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    def write(model: EncDecCTCModel, adapters: str = "rows", **options: object) -> Path:
        path = tmp_path / f"{adapters}.onnx"
        export_onnx(model, path, adapters, **options)
        return path

    return write


def random_batch(chance: random.Random, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of one to six utterances, noise beyond their real frames."""
    lengths = [chance.randint(1, MAX_FRAMES) for _ in range(chance.randint(1, 6))]
    features = torch.randn(len(lengths), width, max(lengths) + chance.randint(0, 3))
    return features.numpy(), np.array(lengths)


def in_torch(
    model: EncDecCTCModel, features: np.ndarray, lengths: np.ndarray, users: list[str | None], bank: AdapterBank
) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad(), bank.route(users):
        log_probs, frames, _ = model(
            processed_signal=torch.from_numpy(features), processed_signal_length=torch.from_numpy(lengths)
        )
    return log_probs.numpy(), frames.numpy()


def assert_same(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    assert found[1].tolist() == expected[1].tolist()
    for one, other, length in zip(found[0], expected[0], expected[1]):
        np.testing.assert_allclose(one[:length], other[:length], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("adapters", ["rows", "bank"])
@pytest.mark.parametrize("options", BASES.values(), ids=BASES)
def test_random_batches(make_model, attach, make_store, export, options: dict[str, object], adapters: str) -> None:
    model = make_model(encoder=options)
    names = attach(model, "all", each=4)
    like = attached_adapter(model, names[0])
    recogniser = OnnxRecogniser(export(model, adapters, like=like), make_store(model, names), threads=1)
    without = OnnxRecogniser(export(model, "none"), threads=1)
    bank, chance = AdapterBank(model), random.Random(0)
    for _ in range(BATCHES):
        features, lengths = random_batch(chance, recogniser.graph.features.width)
        present = [None, *chance.sample(names, chance.randint(0, 4))]
        users = [chance.choice(present) for _ in lengths]
        found = recogniser(features, lengths, users)
        assert_same(found, in_torch(model, features, lengths, users, bank))
        base = without(features, lengths, [None] * len(users))
        for row, user in enumerate(users):
            assert np.array_equal(found[0][row], base[0][row]) == (user is None)


@pytest.mark.parametrize("weights", ["fp16", "int8"])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm", "rnn"])
def test_smaller_weights(make_model, attach, make_store, tmp_path: Path, rnn_type: str, weights: str) -> None:
    """The same as PyTorch with the base's weights rounded; the adapters' are not."""
    model = make_model(encoder={"rnn_type": rnn_type, "d_model": 64})
    names = attach(model, "all", each=2)
    store, like = make_store(model, names), attached_adapter(model, names[0])
    features, lengths, users = torch.randn(3, 16, 40).numpy(), np.array([40, 7, 33]), [names[1], None, names[0]]
    sizes, outputs = [], []
    for kind in ("fp32", weights):
        path = tmp_path / f"{kind}.onnx"
        export_onnx(model, path, "rows", like=like, weights=kind)
        sizes.append(path.stat().st_size)
        outputs.append(OnnxRecogniser(path, store)(features, lengths, users)[0])
    assert 0 < np.abs(outputs[0] - outputs[1]).max() < {"fp16": 0.01, "int8": 0.1}[weights]
    numbers = 0
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.dim() > 1 and values.numel() >= LEAST and ".adapter_layer." not in name:
                numbers += values.numel()
                rows = 0 if name == "decoder.output.weight" else -1  # the graph has it transposed
                step = values.abs().amax(rows, keepdim=True) / 127
                values.copy_(values.half().float() if weights == "fp16" else (values / step).round() * step)
    expected = in_torch(model, features, lengths, users, AdapterBank(model))
    assert_same((outputs[1], expected[1]), expected)
    assert sizes[0] - sizes[1] > {"fp16": 1.8, "int8": 2.5}[weights] * numbers  # of 2 and 3 bytes each


def test_weights_beyond_fp16(model, tmp_path: Path) -> None:
    with torch.no_grad():
        model.encoder.layers[0].rnn.weight_hh_l0[0, 0] = 1e5
    with pytest.raises(InputError, match="a weight of 100000, too large for it: take fp32"):
        export_onnx(model, tmp_path / "graph.onnx", weights="fp16")
    assert not (tmp_path / "graph.onnx").exists()
    export_onnx(model, tmp_path / "graph.onnx", weights="int8")


@pytest.mark.parametrize("adapters", ["rows", "bank"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_adds(model, attach, make_store, export, kind: str, adapters: str) -> None:
    names = attach(model, kind, each=2)
    path = export(model, adapters, like=attached_adapter(model, names[0]))
    recogniser = OnnxRecogniser(path, make_store(model, names), threads=1)
    features, lengths = torch.randn(4, 16, 40).numpy(), np.array([40, 7, 33, 20])
    outputs = []
    for users in ([names[0]] * 4, [names[1], None, names[0], names[1]], [None] * 4):
        found = recogniser(features, lengths, users)
        assert_same(found, in_torch(model, features, lengths, users, AdapterBank(model)))
        outputs.append(found[0][0, :3])
    assert min(abs(a - b).max() for i, a in enumerate(outputs) for b in outputs[:i]) > 100 * TOLERANCE


def test_hidden_sizes_and_places_may_differ(model, attach, make_store, export) -> None:
    """The graph with the default architecture takes larger and smaller adapters, and some that sit at fewer points."""
    configs = {"small": {"hidden_dims": [2]}, "large": {"hidden_dims": [9]}, "sparse": {"layers": [1]}}
    for name, config in configs.items():
        target = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [4], "enabled": False}
        add_adapter(model, name, {**target, **config})
    for parameter in model.encoder.adapter_points.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    features, lengths = torch.randn(4, 16, 40).numpy(), np.array([40, 7, 33, 20])
    users = ["large", None, "small", "sparse"]
    expected = in_torch(model, features, lengths, users, AdapterBank(model))
    store = make_store(model, list(configs))
    for adapters in ("rows", "bank"):
        assert_same(OnnxRecogniser(export(model, adapters), store)(features, lengths, users), expected)


def test_what_makes_adapters_alike_is_what_their_classes_say() -> None:
    for path, defaults in DEFAULTS.items():
        parameters = inspect.signature(import_class_by_path(path)).parameters
        assert {key: parameters[key].default for key in defaults} == defaults
        others = parameters.keys() - defaults.keys()
        assert others <= {"in_features", "num_classes_with_blank", "hidden_dims", "dim", "dropout", "adapter_strategy"}


def test_outputs_of_the_graph(model, export) -> None:
    session = onnxruntime.InferenceSession(export(model, "rows", greedy=True))
    features, lengths = torch.randn(3, 16, 40).numpy(), np.array([40, 7, 33])
    log_probs, frames, greedy = session.run(None, {"audio_signal": features, "length": lengths})
    assert [output.name for output in session.get_outputs()] == ["logprobs", "encoded_lengths", "greedy"]
    assert np.array_equal(greedy, log_probs.argmax(axis=2)) and log_probs.shape[1] == frames.max()


def test_exporting_leaves_the_model_as_it_was(model, attach, export, snapshot) -> None:
    attach(model, "all")
    model.train()
    before = repr(snapshot(model))
    export(model, "rows", like=attached_adapter(model, "all_0"))
    export(model, "bank")
    assert repr(snapshot(model)) == before


@pytest.mark.parametrize("section", ["mel", "own", "exact", "all_features", "streaming"])
def test_features(model_config, section: str) -> None:
    cfg = model_config()
    preprocessor = {
        "mel": {},
        "streaming": {
            "_target_": "nemo_ds2_adapters.modules.StreamingMelPreprocessor",
            "feature_mean": [-8.0] * 16,
            "feature_std": [1.0, 2.0] * 8,
        },
        "own": {"_target_": "nemo_ds2_adapters.modules.LogSpectrogramPreprocessor"},
        "exact": {"exact_pad": True, "normalize": "per_feature", "preemph": None, "mag_power": 1.0, "pad_to": 16},
        "all_features": {"normalize": "all_features", "window": "hamming", "log_zero_guard_type": "clamp"},
    }[section]
    if section != "own":
        preprocessor = {**cfg.preprocessor, **preprocessor}
    module = EncDecCTCModel.from_config_dict(OmegaConf.create(preprocessor)).eval()
    signals = [np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in (1600, 16000, 7777, 3201)]
    signals[1][:8000] = 0.0
    lengths = torch.tensor([len(signal) for signal in signals])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(signal) for signal in signals], batch_first=True)
    with torch.no_grad():
        expected, frames = module(input_signal=padded, length=lengths)
    found, own_frames = features_of(module)(signals)
    assert own_frames.tolist() == frames.tolist()
    for one, other, length in zip(found, expected.numpy(), own_frames):
        np.testing.assert_allclose(one[:, :length], other[:, :length], rtol=0, atol=TOLERANCE)


@pytest.fixture
def talkative(model) -> EncDecCTCModel:
    """A base that writes something."""
    torch.nn.init.normal_(model.decoder.output.weight)
    return model


def manifest_of(folder: Path, manifest: Path, users: list[str | None]) -> Path:
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    path = folder / "calls.json"
    rows = [{**lines[i % len(lines)], **({"speaker": user} if user else {})} for i, user in enumerate(users)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


PROGRAM = """
import sys
from nemo_ds2_adapters.recognition.graph import DEFAULTS
from nemo_ds2_adapters.recognition.onnx import OnnxRecogniser
recogniser = OnnxRecogniser(sys.argv[1], sys.argv[2])
texts = recogniser.transcribe(sys.argv[3], batch_size=3, max_seconds=1.5, overlap_seconds=0.3, progress=False)
print(*texts, sep="\\n")
print(*{name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))
"""


@pytest.mark.parametrize("adapters", ["rows", "bank"])
def test_a_process_without_torch_and_nemo(
    talkative, attach, make_store, export, manifest: Path, tmp_path: Path, adapters: str
) -> None:
    names = attach(talkative, "all", each=5)
    store, path = make_store(talkative, names), export(talkative, adapters, like=attached_adapter(talkative, "all_0"))
    calls = manifest_of(tmp_path, manifest, [*names, None, names[0], names[2]])
    expected = transcribe(
        talkative, str(calls), store=store, batch_size=3, max_seconds=1.5, overlap_seconds=0.3, progress=False
    )
    command = [sys.executable, "-c", PROGRAM, path, tmp_path / "store", calls]
    *texts, modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert texts == expected and len(set(texts)) > 5
    imported = set(modules.split())
    assert {"onnxruntime", "nemo_ds2_adapters"} <= imported
    assert not {"torch", "nemo", "lightning", "librosa", "hydra"} & imported
    providers = importlib.metadata.packages_distributions()
    used = {normalised(name) for module in imported for name in providers.get(module, ())}
    (listed,) = re.findall(r"pip install (?!--)(.+onnxruntime.+)", PAGE.read_text(encoding="utf-8"))
    assert used & declared_distributions("onnx") <= set(map(normalised, listed.split()))


def test_what_users_may_not_be(model, make_model, attach, make_store, export, tmp_path: Path) -> None:
    names = attach(model, "all", "first")
    adapter = attached_adapter(model, names[0])
    store = make_store(model, names)
    store.put("stranger", replace(adapter, info=replace(adapter.info, fingerprint="0" * 64)))
    path = export(model, like=adapter)
    recogniser = OnnxRecogniser(path, store)
    features, lengths = torch.randn(1, 16, 20).numpy(), np.array([20])
    wrong: list[tuple[str, type[NemoDs2Error], str]] = [
        ("nobody", UnknownUserError, "no adapter of user 'nobody'"),
        ("stranger", BaseMismatchError, "made for base 000000000000..., the graph is of"),
        ("first_0", AdapterFileError, "the adapter is .*'norm_position': 'pre'.* the graph takes"),
    ]
    for user, error, message in wrong:
        with pytest.raises(error, match=message):
            recogniser(features, lengths, [user])
    with pytest.raises(InputError, match="there is no store"):
        OnnxRecogniser(path)(features, lengths, ["all_0"])
    with pytest.raises(InputError, match="takes no adapters: leave out the store"):
        OnnxRecogniser(export(model, "none"), store)
    problems: dict[int, str] = {}
    audio = [np.zeros(3200, np.float32)] * 2
    texts = recogniser.transcribe(audio, ["nobody", "all_0"], on_error=problems.__setitem__, progress=False)
    assert texts[0] is None and texts[1] is not None and "nobody" in problems[0] and len(problems) == 1


@pytest.mark.parametrize(
    ("shape", "lengths", "users", "message"),
    [
        ((2, 15, 20), [20, 3], 2, r"float32 \[2, 15, 20\]: expected float32 \[B, 16, T\]"),
        ((2, 20), [20, 3], 2, "expected float32"),
        ((2, 16, 20), [20], 2, r"lengths int64 \[1\]"),
        ((2, 16, 20), [20, 3], 1, "and 1 users"),
        ((2, 16, 20), [21, 3], 2, r"lengths \[21\] do not lie within 1 and the features' 20"),
        ((2, 16, 20), [0, 3], 2, r"lengths \[0\]"),
    ],
)
def test_what_batches_may_not_be(model, export, shape, lengths: list[int], users: int, message: str) -> None:
    recogniser = OnnxRecogniser(export(model, "none"))
    with pytest.raises(InputError, match=message):
        recogniser(np.zeros(shape, np.float32), np.array(lengths), [None] * users)


def test_graphs_that_cannot_be(model, attach, export, tmp_path: Path) -> None:
    attach(model, "replacing", "own_head")
    for name in ("replacing_0", "own_head_0"):
        with pytest.raises(AdapterFileError, match="takes the place of what the base computes"):
            export(model, "rows", like=attached_adapter(model, name))
    with pytest.raises(InputError, match="weights='int4': expected one of fp32, fp16, int8"):
        export_onnx(model, tmp_path / "graph.onnx", weights="int4")
    with pytest.raises(InputError, match="adapters='all': expected one of rows, bank, none"):
        export(model, "all")
    (tmp_path / "text.onnx").write_text("no graph")
    for path in (tmp_path / "text.onnx", tmp_path / "nowhere.onnx"):
        with pytest.raises(InputError, match="onnxruntime cannot open it"):
            OnnxRecogniser(path)
    model.decoder.export(str(tmp_path / "decoder.onnx"))
    with pytest.raises(InputError, match="was not written by export_onnx"):
        OnnxRecogniser(tmp_path / "decoder.onnx")
    with pytest.raises(InputError, match="there is no adapter store"):
        OnnxRecogniser(export(model), tmp_path / "nowhere")


def test_a_new_version_is_used(model, attach, make_store, export) -> None:
    names = attach(model, "all", each=2)
    store = make_store(model, names)
    features, lengths = torch.randn(1, 16, 20).numpy(), np.array([20])
    for adapters in ("rows", "bank"):
        path = export(model, adapters, like=attached_adapter(model, names[0]))
        recogniser = OnnxRecogniser(path, store, capacity=1)
        first, other = (recogniser(features, lengths, [name])[0] for name in names)
        store.put(names[0], replace(store.get(names[1]), info=store.get(names[0]).info))
        assert np.array_equal(recogniser(features, lengths, [names[0]])[0], other) and not np.array_equal(first, other)
        store.rollback(names[0])


@pytest.mark.gpu
@pytest.mark.parametrize("adapters", ["rows", "bank"])
def test_on_a_gpu(model, attach, make_store, export, adapters: str) -> None:
    names = attach(model, "all", each=2)
    features, lengths, users = torch.randn(3, 16, 40).numpy(), np.array([40, 7, 33]), [names[1], None, names[0]]
    expected = in_torch(model, features, lengths, users, AdapterBank(model))
    store, like = make_store(model, names), attached_adapter(model, names[0])
    path = export(model.cuda(), adapters, like=like)
    for provider in {"CPUExecutionProvider", "CUDAExecutionProvider"} & set(onnxruntime.get_available_providers()):
        assert_same(OnnxRecogniser(path, store, providers=[provider])(features, lengths, users), expected)
