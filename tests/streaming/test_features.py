"""Features of a stream are those of the whole utterance, whatever the chunks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters.modules import StreamingMelPreprocessor
from nemo_ds2_adapters.streaming.features import PendingSamples, step_features
from tests.conftest import MEL_BANDS, SAMPLE_RATE


def make(**options: object) -> StreamingMelPreprocessor:
    mean, std = torch.randn(MEL_BANDS).tolist(), torch.rand(MEL_BANDS).add(0.5).tolist()
    settings = {"sample_rate": SAMPLE_RATE, "features": MEL_BANDS, "window_size": 0.025, "window_stride": 0.01}
    return StreamingMelPreprocessor(mean, std, **{**settings, **options}).eval()


@given(
    sizes=st.lists(st.integers(1, 8000), min_size=1, max_size=4),
    chunks=st.lists(st.integers(0, 1500), min_size=1, max_size=6),
    seed=st.integers(0, 100),
)
def test_any_chunks(sizes: list[int], chunks: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    preprocessor, utterances = make(), [0.1 * torch.randn(size) for size in sizes]
    chunks = [*chunks, 700]
    position, parts, tick = [0] * len(sizes), [[] for _ in sizes], 0
    pending, running = [PendingSamples()] * len(sizes), list(range(len(sizes)))
    while running:
        takes = [min(chunks[(tick + i) % len(chunks)], sizes[i] - position[i]) for i in running]
        new = [utterances[i][position[i] : position[i] + n] for i, n in zip(running, takes)]
        ends = [position[i] + n == sizes[i] for i, n in zip(running, takes)]
        features, counts, after = step_features(preprocessor, [pending[i] for i in running], new, ends)
        for row, (i, n) in enumerate(zip(running, takes)):
            parts[i].append(features[row, :, : int(counts[row])])
            assert not features[row, :, int(counts[row]) :].any()
            pending[i], position[i] = after[row], position[i] + n
        assert all(len(one.samples) < 4 * 512 + max(takes) for one in after)  # nothing piles up
        running = [i for i, end in zip(running, ends) if not end]
        tick += 1
    for utterance, found in zip(utterances, parts):
        whole, frames = preprocessor(input_signal=utterance.unsqueeze(0), length=torch.tensor([len(utterance)]))
        torch.testing.assert_close(torch.cat(found, dim=1), whole[0, :, : int(frames)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options", [{"normalize": "per_feature"}, {"frame_splicing": 2}, {"exact_pad": True}, {"features": MEL_BANDS + 1}]
)
def test_what_a_stream_cannot_have_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make(**options)


def test_nemo_says_none_in_words() -> None:
    signal, length = torch.randn(1, 3200), torch.tensor([3200])
    torch.manual_seed(0)
    expected = make()(input_signal=signal, length=length)
    torch.manual_seed(0)
    assert torch.equal(make(normalize="None")(input_signal=signal, length=length)[0], expected[0])
