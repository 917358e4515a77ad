"""The code of the page on mixed batches works."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters import AdapterStore, add_adapter

PAGE = Path(__file__).parents[2] / "docs" / "mixed_batches.md"


def test_code_of_the_page(model, manifest: Path, batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.nn.init.normal_(model.decoder.output.weight)  # else it writes nothing
    store = AdapterStore("adapters")
    for name, user in (("user_john", "john.doe@example.com"), ("user_ann", "홍길동")):
        add_adapter(model, name, {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [3]})
        store.put(user, model, name)
    lines = []
    for name, line in zip("abc", manifest.read_text().splitlines()):
        shutil.copy(json.loads(line)["audio_filepath"], f"{name}.wav")
        lines.append(json.dumps({"audio_filepath": f"{name}.wav", "speaker": "홍길동"}))
    Path("calls.json").write_text("\n".join(lines))
    names = {
        "model": model,
        "torch": torch,
        "signals": batch["input_signal"],
        "signal_lengths": batch["input_signal_length"],
    }
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert len(names["hypothesis"].timestamp["word"]) == len(names["hypothesis"].word_confidence)
    assert names["bank"].statistics.resident == 2 and len(names["log_probs"]) == 3


def test_keys_on_the_page_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    conf = Path(__file__).parents[2] / "conf" / "asr_adapters"
    known = "".join(path.read_text(encoding="utf-8") for path in conf.rglob("*.yaml"))
    keys = re.findall(r"(?<=[ .])(\w+)=\S+", "".join(re.findall(r"```\n(ds2-adapters.*?)```", text, re.DOTALL)))
    assert len(keys) >= 9 and [key for key in keys if f"{key}:" not in known] == []
