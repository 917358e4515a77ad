"""NeMo's own cache-aware streaming runs on forward-only models."""

from pathlib import Path

import pytest
import soundfile
import torch

from nemo_ds2_adapters import enabled_adapters, transcribe
from tests.conftest import SAMPLE_RATE


@pytest.fixture
def paths(speech, tmp_path: Path) -> list[str]:
    """Recordings of 0.7 to 1.9 s."""
    paths = [str(tmp_path / f"{number}.wav") for number in range(4)]
    for number, path in enumerate(paths):
        soundfile.write(path, speech(0.7 + 0.4 * number, number).clamp(-1, 1).numpy(), SAMPLE_RATE)
    return paths


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
@pytest.mark.parametrize("adapter", [None, "all_0"])
def test_streaming_as_nemo_simulates_it(model, people, paths, chunk_size: int | None, adapter: str | None) -> None:
    assert model.encoder.streaming_cfg is None
    if chunk_size is not None:
        model.encoder.setup_streaming_params(chunk_size=chunk_size, shift_size=chunk_size, left_chunks=2)
    expected = transcribe(model, paths, [adapter] * len(paths), progress=False)
    assert len({*expected}) > 1
    with enabled_adapters(model, adapter):
        found = model.transcribe_simulate_cache_aware_streaming(paths, batch_size=3)
    assert [hypothesis.text for hypothesis in found] == expected


def test_whole_utterances_by_the_same_call(model, batch) -> None:
    features, lengths = model.preprocessor(input_signal=batch["input_signal"], length=batch["input_signal_length"])
    with torch.no_grad():
        encoded, counts, *caches = model.encoder.cache_aware_stream_step(features, lengths)
        expected, frames = model.encoder(audio_signal=features, length=lengths)
        no_padding = model.encoder.cache_aware_stream_step(features[:1, :, : int(lengths[0])])[0]
    assert torch.equal(encoded, expected) and torch.equal(counts, frames) and caches == [None] * 3
    torch.testing.assert_close(no_padding, expected[:1, :, : int(frames[0])])


def test_what_nemo_may_ask_for_and_cannot_have(model, make_streaming) -> None:
    features = torch.zeros(1, 16, 8)
    with pytest.raises(ValueError, match="shift_size=4: expected"):
        model.encoder.setup_streaming_params(chunk_size=8, shift_size=4)
    with pytest.raises(ValueError, match="max_dim=3"):
        model.encoder.get_initial_cache_state(max_dim=3)
    with pytest.raises(ValueError, match="drop_extra_pre_encoded=2"):
        model.encoder.cache_aware_stream_step(features, drop_extra_pre_encoded=2)
    bidirectional = make_streaming(bidirectional=True, lookahead_context=0).encoder
    for call in (bidirectional.setup_streaming_params, bidirectional.get_initial_cache_state):
        with pytest.raises(ValueError, match="only forward-only models can stream"):
            call()
