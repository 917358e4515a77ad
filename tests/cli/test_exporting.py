"""`ds2-adapters export-onnx`, as a person calls it, and the code of the page about it."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nemo_ds2_adapters import AdapterStore, transcribe
from nemo_ds2_adapters.recognition.onnx import OnnxRecogniser

PAGE = Path(__file__).parents[2] / "docs" / "onnx.md"


@pytest.fixture
def run(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    return partial(run, "export-onnx")


def test_command_and_page(run, model, attach, manifest: Path, tmp_path: Path) -> None:
    torch.nn.init.normal_(model.decoder.output.weight)  # else it writes nothing
    store = AdapterStore("adapters")
    store.put("john.doe@example.com", model, *attach(model, "all"))
    model.save_to("ds2.nemo")
    code, said, _ = run("ds2.nemo", "ds2.onnx", "--adapters", "rows", "--store", "adapters")
    assert code == 0 and re.match(r"ds2.onnx: 0.\d MB, adapters=rows\n", said)

    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for name, line in zip("ab", lines):
        shutil.copy(line["audio_filepath"], f"{name}.wav")
    calls = [{"audio_filepath": "a.wav", "speaker": "john.doe@example.com"}, {"audio_filepath": "b.wav"}]
    Path("calls.json").write_text("\n".join(map(json.dumps, calls)))
    names = {"samples": 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert names["texts"] == transcribe(model, "calls.json", store=store, progress=False) and all(names["texts"])
    assert names["log_probs"].shape[:2] == (2, names["frames"].max())

    assert run("ds2.nemo", "ds2.onnx")[::2] == (1, "error: ds2.onnx: exists already, pass --force to replace it\n")
    code, said, _ = run(
        "ds2.nemo", "ds2.onnx", "--adapters", "bank", "--greedy", "--weights", "int8", "--force", "--json"
    )
    assert code == 0 and json.loads(said)["adapters"] == "bank"
    assert OnnxRecogniser("ds2.onnx").graph.adapters == "bank" and "int8" in tensor_types(Path("ds2.onnx"))


def tensor_types(graph: Path) -> set[str]:
    """Types of the numbers that are stored in it."""
    return {onnx.numpy_helper.to_array(tensor).dtype.name for tensor in onnx.load(graph).graph.initializer}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.nemo", "out.onnx"], 1, "nowhere.nemo"),
        (["ds2.nemo", "ds2.nemo", "--force"], 1, "would overwrite MODEL"),
        (["ds2.nemo", "out.onnx", "--user", "ann"], 1, "--user ann: give the store as well"),
        (["ds2.nemo", "out.onnx", "--store", "nowhere"], 1, "there is no adapter store"),
        (["ds2.nemo", "out.onnx", "--store", "empty"], 1, "holds no adapter that could say the architecture"),
        (["ds2.nemo", "out.onnx", "--store", "empty", "--user", "ann"], 1, "no adapter of user 'ann'"),
        (["ds2.nemo", "out.onnx", "--adapters", "all"], 2, "'all' is not one of"),
        (["ds2.nemo", "out.onnx", "--weights", "int4"], 2, "'int4' is not one of"),
    ],
)
def test_wrong_input(run, arguments: list[str], code: int, message: str) -> None:
    AdapterStore("empty")
    Path("ds2.nemo").write_bytes(b"whatever it is")
    found, _, errors = run(*arguments)
    assert found == code and message in errors and not Path("out.onnx").exists()
    assert Path("ds2.nemo").read_bytes() == b"whatever it is"
