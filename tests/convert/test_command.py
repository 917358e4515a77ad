"""`ds2-adapters convert`, as a person calls it."""

import json
from pathlib import Path

import pytest

from nemo_ds2_adapters.cli import main

LABELS = ["_", "'", "A", "B", " "]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["convert", *map(str, arguments)])
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def test_package(run, deepspeech_pytorch, save, tmp_path: Path) -> None:
    path, out = save({"state_dict": deepspeech_pytorch().state_dict()}), tmp_path / "out.nemo"
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(LABELS))
    arguments = (path, out, "--labels", labels, "--feature", "sample_rate=8000", "--feature", "window=hann")
    code, said, errors = run(*arguments, "--bidirectional", "--rnn-type", "gru")
    assert (code, errors) == (0, "") and out.is_file()
    assert said.startswith(f"{out}: parameters ") and "units 4, preprocessor LogSpectrogramPreprocessor" in said

    code, _, errors = run(*arguments)
    assert code == 1 and errors == f"error: {out}: exists already, pass --force to replace it\n"
    code, said, _ = run(*arguments, "--force", "--json")
    assert code == 0 and json.loads(said)["layers"] == 2 and json.loads(said)["notes"] == []

    code, _, errors = run(*arguments, "--force", "--forward-only")
    assert code == 1 and "bidirectional=False, but the weights are of bidirectional=True" in errors
    code, _, errors = run(*arguments, "--force", "--feature", "window")
    assert code == 1 and "--feature window: expected KEY=VALUE" in errors


def test_note_on_features(run, kospeech, save, tmp_path: Path) -> None:
    table = tmp_path / "vocabulary.csv"
    table.write_text("id,char,freq\n0,<pad>,0\n1, ,9\n2,그,7\n3,이,2\n")
    path = save(kospeech().state_dict())
    code, said, errors = run(path, tmp_path / "out.nemo", "--labels", table, "--input-dim", 80)
    assert code == 0 and "units 4" in said
    assert errors.startswith(f"note: {path}: the features that the model was trained on are not known")
