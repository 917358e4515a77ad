"""What the encoder costs beyond its convolutions and recurrent layers.

    python benchmarks/encoder_overhead.py

Prints, for a 5x512 bidirectional GRU on a batch of 16 utterances of unequal lengths (about 4 s, 80 mel bands), the
time of the encoder divided by the time of its convolutions and recurrent layers alone: the same weights, without
masks, norms, activations, and with the sequences packed once. Both run in turn; the medians are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from nemo_ds2_adapters.modules import DeepSpeech2Encoder

MEL_BANDS = 80
FRAMES = 400  # 4 s in steps of 10 ms
BATCH_SIZE = 16


def convolutions_and_recurrent_layers(encoder: DeepSpeech2Encoder, features: Tensor, lengths: Tensor) -> Tensor:
    """The bare arithmetic: nothing but `nn.Conv2d` and `nn.GRU` on packed sequences, directions summed."""
    x = features.unsqueeze(1)
    for block in encoder.conv.blocks:
        x = block.conv(x)
    x = x.permute(0, 3, 1, 2).flatten(2)
    packed = pack_padded_sequence(x, encoder.conv.output_lengths(lengths), batch_first=True, enforce_sorted=False)
    for layer in encoder.layers:
        packed, _ = layer.rnn(packed)
        forward, backward = packed.data.chunk(2, dim=-1)
        packed = PackedSequence(forward + backward, *packed[1:])
    return packed.data


def forward_only(run: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        run()


def forward_and_backward(run: Callable[[], Tensor]) -> None:
    run().sum().backward()


def medians(runs: list[Callable[[], None]], repetitions: int, clock: Callable[[], float]) -> list[float]:
    """Median seconds of each, run in turn so that a change of the machine's load meets all of them."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repetitions + 1):
        for run, seconds in zip(runs, times):
            start = clock()
            run()
            seconds.append(clock() - start)
    return [statistics.median(seconds[1:]) for seconds in times]  # the first run warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--n-layers", type=int, default=5)
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--eval-only", action="store_true", help="leave the training mode out")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time: for a machine that is busy")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    encoder = DeepSpeech2Encoder(MEL_BANDS, arguments.n_layers, arguments.d_model)
    lengths = torch.linspace(0.7 * FRAMES, 1.3 * FRAMES, BATCH_SIZE).round().long()[torch.randperm(BATCH_SIZE)]
    features = torch.randn(BATCH_SIZE, MEL_BANDS, int(lengths.max()))
    print(
        f"{arguments.n_layers}x{arguments.d_model} GRU, batch {BATCH_SIZE}, {lengths.min()} to {lengths.max()} frames"
    )
    modes: list[tuple[str, bool, Callable]] = [("eval mode, forward", False, forward_only)]
    if not arguments.eval_only:
        modes.append(("training mode, forward and backward", True, forward_and_backward))
    for mode, training, measure in modes:
        encoder.train(training)
        whole, bare = medians(
            [
                lambda: measure(lambda: encoder(audio_signal=features, length=lengths)[0]),  # noqa: B023
                lambda: measure(lambda: convolutions_and_recurrent_layers(encoder, features, lengths)),  # noqa: B023
            ],
            arguments.repetitions,
            time.process_time if arguments.cpu_time else time.perf_counter,
        )
        print(f"{mode}: encoder {whole:.3f} s, its layers alone {bare:.3f} s, ratio {whole / bare:.3f}")


if __name__ == "__main__":
    main()
