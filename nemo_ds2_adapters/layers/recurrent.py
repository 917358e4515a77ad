"""One recurrent layer of DeepSpeech2."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nemo_ds2_adapters.layers.gru import run_gru
from nemo_ds2_adapters.layers.masking import reverse_frames
from nemo_ds2_adapters.layers.norm import MaskedBatchNorm
from nemo_ds2_adapters.layers.state import HiddenState

RNN_TYPES: dict[str, Callable[..., nn.RNNBase]] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
BIDIRECTIONAL_MERGES = ("sum", "concat")
RNN_NONLINEARITIES = ("tanh", "relu")


class RecurrentLayer(nn.Module):
    """[batch norm -> [ReLU]] -> RNN -> directions summed or concatenated -> dropout.

    Args:
        input_size: values per input frame.
        d_model: hidden size per direction.
        rnn_type: `gru`, `lstm` or `rnn`.
        nonlinearity: `tanh` or `relu`, of `rnn_type="rnn"`; other types have none to choose.
        bidirectional: run backwards too.
        merge: `sum` or `concat`, how two directions become one output.
        batch_norm: normalise the input over all real frames (sequence-wise).
        norm_relu: ReLU after that norm, as KoSpeech has it.
        dropout: probability, on the output.
    """

    def __init__(
        self,
        input_size: int,
        d_model: int,
        rnn_type: str = "gru",
        nonlinearity: str = "tanh",
        bidirectional: bool = True,
        merge: str = "sum",
        batch_norm: bool = True,
        norm_relu: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = MaskedBatchNorm(input_size, channel_dim=-1) if batch_norm else None
        self.norm_relu = norm_relu
        options = {"nonlinearity": nonlinearity} if rnn_type == "rnn" else {}
        self.rnn = RNN_TYPES[rnn_type](input_size, d_model, bidirectional=bidirectional, batch_first=True, **options)
        self.sums_directions = bidirectional and merge == "sum"
        self.output_size = 2 * d_model if bidirectional and merge == "concat" else d_model
        self.dropout = dropout
        self.dropout_when_frozen = False

    def forward(self, x: Tensor, lengths: Tensor, mask: Tensor, cpu_lengths: Tensor) -> Tensor:
        """Run the layer.

        Args:
            x: `[B, T, input_size]`.
            lengths: `[B]`, real frames per utterance.
            mask: `[B, T, 1]`, True where a frame is real.
            cpu_lengths: `lengths` as int64 on the CPU, where packing wants them.

        Returns:
            `[B, T, output_size]`, zero beyond the real frames.
        """
        x = self._normed(x, mask)
        # Not only where a gradient is needed: the two ways differ in the last bit, and a base must compute the
        # same whatever part of it is frozen.
        if torch.is_grad_enabled() and x.device.type == "cpu":
            if isinstance(self.rnn, nn.GRU) and not _is_graph():
                x = run_gru(self.rnn, x, cpu_lengths)
            else:
                x = self._run_padded(x, lengths, mask)
        else:
            x = self._run_packed(x, cpu_lengths)
        if self.sums_directions:
            forward, backward = x.chunk(2, dim=-1)
            x = forward + backward
        return F.dropout(x, self.dropout, training=self.training and not self._is_frozen())

    def start(self, rows: int) -> HiddenState:
        """The state of so many streams before their first frame."""
        zeros = torch.zeros(rows, self.rnn.hidden_size).to(self.rnn.weight_hh_l0)  # type: ignore[arg-type]
        return (zeros, zeros) if self.rnn.mode == "LSTM" else (zeros,)

    def step(self, x: Tensor, lengths: Tensor, mask: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """`forward` of streams, of a forward-only layer.

        Args:
            x: `[B, T, input_size]`, new frames.
            lengths: `[B]`, real ones of each row, 0 for none.
            mask: `[B, T, 1]`, True where a frame is real.
            state: what `start` or the last step gave.

        Returns:
            `[B, T, output_size]`, zero beyond the real frames, and the new state.
        """
        cpu_lengths = lengths.cpu()
        if x.shape[1] and bool((cpu_lengths == x.shape[1]).all()):
            before = tuple(part.unsqueeze(0) for part in state)
            outputs, after = self.rnn(self._normed(x, mask), before if len(before) > 1 else before[0])
            return outputs, tuple(part[0] for part in (after if isinstance(after, tuple) else (after,)))
        outputs = x.new_zeros(*x.shape[:2], self.output_size)
        rows = cpu_lengths.nonzero().flatten()  # packing takes no row without frames
        if not len(rows):
            return outputs, state
        new = self._normed(x, mask)[rows.to(x.device)]
        packed = pack_padded_sequence(new, cpu_lengths[rows], batch_first=True, enforce_sorted=False)
        rows = rows.to(x.device)
        before = tuple(part[rows].unsqueeze(0) for part in state)
        packed, after = self.rnn(packed, before if len(before) > 1 else before[0])
        outputs[rows] = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0]
        parts = after if isinstance(after, tuple) else (after,)
        return outputs, tuple(old.index_copy(0, rows, new[0]) for old, new in zip(state, parts))

    def _normed(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.norm is None:
            return x
        x = self.norm(x, mask)
        return F.relu(x) if self.norm_relu else x

    def _run_packed(self, x: Tensor, cpu_lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, cpu_lengths, batch_first=True, enforce_sorted=False)
        # cuDNN computes gradients in training mode only, and a frozen layer may have to pass them on in eval mode.
        training, self.rnn.training = self.rnn.training, torch.is_grad_enabled()
        packed, _ = self.rnn(packed)
        self.rnn.training = training
        return pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0]

    def _run_padded(self, x: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        # On the CPU, the backward pass of a packed sequence allocates and adds a gradient of the whole sequence
        # at every step. Padded sequences, one direction at a time, give the same result 2 to 4 times faster.
        x = x.masked_fill(~mask, 0.0)
        outputs = [self._run_direction(x, "")]
        if self.rnn.bidirectional:
            backward = self._run_direction(reverse_frames(x, lengths), "_reverse")
            outputs.append(reverse_frames(backward, lengths))
        return torch.cat(outputs, dim=-1).masked_fill(~mask, 0.0)

    def _run_direction(self, x: Tensor, suffix: str) -> Tensor:
        # Frames first and contiguous: otherwise torch multiplies in a way that depends on what is frozen.
        x = x.transpose(0, 1).contiguous()
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(self.rnn, f"{name}_l0{suffix}") for name in names]
        state = x.new_zeros(1, x.shape[1], self.rnn.hidden_size)
        # has_biases, num_layers, dropout, train, bidirectional, batch_first
        settings = (True, 1, 0.0, self.training, False, False)
        if self.rnn.mode == "LSTM":
            return torch.lstm(x, (state, state), weights, *settings)[0].transpose(0, 1)
        run = {"GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}[self.rnn.mode]
        return run(x, state, weights, *settings)[0].transpose(0, 1)

    def _is_frozen(self) -> bool:
        # A frozen layer computes as in eval mode whatever mode it is in, so that adapter training sees the
        # base it will be used with; `dropout_when_frozen` gives NeMo's own behaviour back.
        return not self.rnn.weight_hh_l0.requires_grad and not self.dropout_when_frozen


def _is_graph() -> bool:
    """Whether torch records what is computed, to compute it again with other inputs."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()
