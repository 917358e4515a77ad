"""The committed base for streams, as `make demo-stream` uses it."""

import json

import pytest

from demo.run import FSDD, STREAM_BASE_MODEL
from nemo_ds2_adapters import transcribe
from nemo_ds2_adapters.cli import main
from nemo_ds2_adapters.formats.nemo_archive import restore_model


def test_a_stream_hears_what_the_whole_recording_says(capsys: pytest.CaptureFixture[str]) -> None:
    recording = FSDD / "lucas" / "test_00.flac"
    (whole,) = transcribe(restore_model(str(STREAM_BASE_MODEL), None), [recording], progress=False)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["stream", str(STREAM_BASE_MODEL), str(recording), "--json", "--pause", "inf"])
    assert not end.value.code and json.loads(capsys.readouterr().out)["text"] == whole and whole.strip()
