"""Streams in chunks give what the whole utterances give, whoever joins and leaves meanwhile."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nemo_ds2_adapters.modules import DeepSpeech2Encoder
from tests.conftest import MEL_BANDS, EncoderMaker

OPTIONS = [
    {"rnn_type": "gru", "lookahead_context": 3},
    {"rnn_type": "lstm", "conv_channels": [2], "first_layer_norm": True, "norm_relu": True},
    {"rnn_type": "rnn", "rnn_nonlinearity": "relu", "conv_channels": [2, 2, 2], "lookahead_context": 1},
    {"rnn_type": "gru", "conv_time_stride": 3, "lookahead_context": 20, "batch_norm": False},
    {"rnn_type": "rnn", "conv_time_stride": 1, "activation": "relu"},
]


def whole(encoder: DeepSpeech2Encoder, utterance: Tensor) -> Tensor:
    """`[D', T']` of one utterance `[D, T]`."""
    outputs, lengths = encoder(audio_signal=utterance.unsqueeze(0), length=torch.tensor([utterance.shape[1]]))
    return outputs[0, :, : int(lengths)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_chunks_of_any_mix_of_streams(make_encoder: EncoderMaker, options: dict[str, object]) -> None:
    encoder = make_encoder(bidirectional=False, **options).eval()

    @given(
        lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6),
        chunks=st.lists(st.integers(0, 25), min_size=1, max_size=8),
        joins=st.lists(st.integers(0, 3), min_size=6, max_size=6),
        seed=st.integers(0, 1000),
    )
    def streams_equal_utterances(lengths: list[int], chunks: list[int], joins: list[int], seed: int) -> None:
        torch.manual_seed(seed)
        utterances = [torch.randn(MEL_BANDS, length) for length in lengths]
        chunks = [*chunks, 1]  # so that every stream ends
        found: list[list[Tensor]] = [[] for _ in utterances]
        position = [0] * len(utterances)
        running: list[int] = []
        state = encoder.start(0)
        waiting = list(range(len(utterances)))
        tick = 0
        while running or waiting:
            new = [i for i in waiting if joins[i] <= tick]
            waiting = [i for i in waiting if i not in new]
            running, state = running + new, torch.cat([state, encoder.start(len(new))])
            sizes = [min(chunks[(tick + i) % len(chunks)], lengths[i] - position[i]) for i in running]
            ends = [position[i] + n == lengths[i] for i, n in zip(running, sizes)]
            batch = torch.full((len(running), MEL_BANDS, max([0, *sizes])), float("nan"))
            for row, (i, n) in enumerate(zip(running, sizes)):
                batch[row, :, :n] = utterances[i][:, position[i] : position[i] + n]
                position[i] += n
            with torch.no_grad():
                outputs, counts, state = encoder.step(
                    batch, torch.tensor(sizes, dtype=torch.long), state, torch.tensor(ends, dtype=torch.bool)
                )
            for row, i in enumerate(running):
                found[i].append(outputs[row, :, : int(counts[row])])
                assert not outputs[row, :, int(counts[row]) :].any()
            stays = [row for row, end in enumerate(ends) if not end]
            running, state = [running[row] for row in stays], state[torch.tensor(stays, dtype=torch.long)]
            tick += 1
        for utterance, parts in zip(utterances, found):
            with torch.no_grad():
                torch.testing.assert_close(torch.cat(parts, dim=1), whole(encoder, utterance), atol=1e-5, rtol=1e-5)

    streams_equal_utterances()


def test_bidirectional_encoder_is_refused(make_encoder: EncoderMaker) -> None:
    with pytest.raises(ValueError, match="only forward-only models can stream"):
        make_encoder().eval().start(1)


def test_training_mode_is_refused(make_encoder: EncoderMaker) -> None:
    encoder = make_encoder(bidirectional=False)
    with pytest.raises(ValueError, match="eval mode"):
        encoder.step(torch.zeros(1, MEL_BANDS, 4), torch.tensor([4]), encoder.start(1))


def test_state_stays_as_it_is(make_encoder: EncoderMaker) -> None:
    encoder = make_encoder(bidirectional=False).eval()
    state, x, lengths = encoder.start(1), torch.randn(1, MEL_BANDS, 30), torch.tensor([30])
    first, second = (encoder.step(x, lengths, state)[0] for _ in range(2))
    assert torch.equal(first, second)
