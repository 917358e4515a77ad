"""A GRU layer whose training step is cheap on the CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

DIRECTIONS = ("", "_reverse")  # as torch's parameter names have them


def run_gru(rnn: nn.GRU, x: Tensor, cpu_lengths: Tensor) -> Tensor:
    """Run one layer of `nn.GRU`, ready for a backward pass.

    Torch builds a graph of some twenty operations for every frame of every direction. Here both directions take their
    steps together, a step has a known derivative, padding is never computed, and frozen weights get no gradient.
    Mixed precision (`torch.autocast`) is for products, not for states and gates, as in torch.

    Args:
        rnn: one layer, with biases.
        x: `[B, T, input_size]`.
        cpu_lengths: `[B]`, real frames, int64 on the CPU.

    Returns:
        `[B, T, directions * hidden_size]`, zero beyond the real frames.
    """
    suffixes = DIRECTIONS[: 1 + rnn.bidirectional]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [torch.stack([getattr(rnn, f"{name}_l0{suffix}") for suffix in suffixes]) for name in names]
    sizes, frames = _packed(cpu_lengths, x.shape[1])
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weights[:2] = x.to(dtype), [weight.to(dtype) for weight in weights[:2]]
    with torch.autocast("cpu", enabled=False):
        return _GRU.apply(x, *weights, sizes, frames[: len(suffixes)])


def _packed(lengths: Tensor, total_length: int) -> tuple[list[int], Tensor]:
    """How many rows each step has, and which frame of the flattened batch each row of each step is, `[2, N]`.

    Rows are sorted by length, the longest first, as in a `PackedSequence`. The second direction starts at the last
    real frame of each row.
    """
    lengths, order = lengths.sort(descending=True)
    steps = torch.arange(int(lengths[0])).unsqueeze(1)
    is_real = steps < lengths
    forward, backward = order * total_length + steps, order * total_length + lengths - 1 - steps
    return is_real.sum(dim=1).tolist(), torch.stack([forward[is_real], backward[is_real]])


class _GRU(torch.autograd.Function):
    """Equations of `torch.nn.GRU`; gates in its order: reset, update, new. `K` directions, `N` real frames.

    Products are in the precision of `x` and the weights, everything else in that of the biases.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, sizes: list[int], frames: Tensor
    ) -> Tensor:
        hidden, directions = w_hh.shape[2], len(frames)
        gates = [2 * hidden, hidden]  # reset and update are alike, new is not
        packed = x.flatten(0, 1)[frames]  # [K, N, D]
        (w_gates, w_new), (b_gates, b_new) = w_ih.transpose(1, 2).split(gates, 2), b_ih.unsqueeze(1).split(gates, 2)
        b_hh_gates, b_hh_new = b_hh.unsqueeze(1).split(gates, 2)
        reset_update = torch.baddbmm((b_gates + b_hh_gates).to(x.dtype), packed, w_gates).to(b_ih.dtype)
        new = torch.baddbmm(b_new.to(x.dtype), packed, w_new).to(b_ih.dtype)
        recurrent_new = torch.empty_like(new)  # what the reset gate scales
        outputs = torch.empty_like(new)
        w_hh_t = w_hh.transpose(1, 2).contiguous()
        scratch = x.new_empty(directions * sizes[0] * 3 * hidden)  # fresh memory at every step would cost more
        state, stop = new.new_zeros(directions, sizes[0], hidden), 0
        for size in sizes:
            rows = slice(stop, stop := stop + size)
            state = state[:, :size]
            products = scratch[: directions * size * 3 * hidden].view(directions, size, 3 * hidden)
            product, product_new = torch.bmm(state.to(x.dtype), w_hh_t, out=products).split(gates, 2)
            reset, update = reset_update[:, rows].add_(product).sigmoid_().chunk(2, dim=2)
            torch.add(product_new, b_hh_new, out=recurrent_new[:, rows])
            new[:, rows].addcmul_(reset, recurrent_new[:, rows]).tanh_()
            state = torch.lerp(new[:, rows], state, update, out=outputs[:, rows])
        needs_packed = ctx.needs_input_grad[1]
        ctx.save_for_backward(w_ih, w_hh, reset_update, new, recurrent_new, outputs, packed if needs_packed else None)
        ctx.layout = sizes, frames, x.shape
        return _padded(outputs, frames, x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        w_ih, w_hh, reset_update, new, recurrent_new, outputs, packed = ctx.saved_tensors
        sizes, frames, shape = ctx.layout
        reset, update = reset_update.chunk(2, dim=2)
        before = _states_before(outputs, sizes)
        grad = torch.stack([g[f] for g, f in zip(_by_direction(grad_output, frames), frames)])  # of outputs, [K, N, H]
        grad_new = torch.empty_like(new)  # of gates before their nonlinearities, on the input's side
        grad_gates = new.new_empty(*new.shape[:2], 3 * new.shape[2])  # on the state's side
        grad_reset, grad_update, grad_recurrent_new = grad_gates.chunk(3, dim=2)
        by_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
        by_tanh = torch.ops.aten.tanh_backward.grad_input
        start = grad.shape[1]
        for step in reversed(range(len(sizes))):
            rows = slice(start - sizes[step], start)
            its_grad, its_reset, its_update, its_new = (t[:, rows] for t in (grad, reset, update, new))
            kept = its_grad * its_update
            its_grad_new = by_tanh(its_grad - kept, its_new, grad_input=grad_new[:, rows])
            torch.mul(its_grad_new, its_reset, out=grad_recurrent_new[:, rows])
            by_sigmoid(its_grad_new * recurrent_new[:, rows], its_reset, grad_input=grad_reset[:, rows])
            by_sigmoid((before[:, rows] - its_new).mul_(its_grad), its_update, grad_input=grad_update[:, rows])
            start = rows.start
            if step:
                previous = start - sizes[step - 1]
                grad[:, previous : previous + sizes[step]].add_(_add_product(kept, grad_gates[:, rows], w_hh))

        needs_x, needs_w_ih, needs_w_hh, needs_b_ih, needs_b_hh, _, _ = ctx.needs_input_grad
        dtype = w_hh.dtype
        grad_w_hh = torch.bmm(grad_gates.to(dtype).transpose(1, 2), before.to(dtype)) if needs_w_hh else None
        grad_b_hh = grad_gates.sum(dim=1) if needs_b_hh else None
        grad_recurrent_new.copy_(grad_new)  # from here on the input's side
        grad_b_ih = grad_gates.sum(dim=1) if needs_b_ih else None
        grad_gates = grad_gates.to(dtype)
        grad_w_ih = torch.bmm(grad_gates.transpose(1, 2), packed) if needs_w_ih else None
        grad_x = None
        if needs_x:
            grad_x = grad_gates.new_zeros(shape)
            for its_grad, its_frames in zip(torch.bmm(grad_gates, w_ih), frames):
                grad_x.flatten(0, 1).index_add_(0, its_frames, its_grad)
        return grad_x, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh, None, None


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add a product, computed in the precision of `right`, to `total` in place."""
    if left.dtype == right.dtype:
        return total.baddbmm_(left, right)
    return total.add_(torch.bmm(left.to(right.dtype), right))


def _states_before(outputs: Tensor, sizes: list[int]) -> Tensor:
    """The state that each row of each step starts from."""
    first = torch.zeros_like(outputs[:, : sizes[0]])
    later = [step[:, :size] for step, size in zip(outputs.split(sizes, dim=1), sizes[1:])]
    return torch.cat([first, *later], dim=1)


def _by_direction(padded: Tensor, frames: Tensor) -> tuple[Tensor, ...]:
    """`[B, T, K * H]` to `K` views `[B * T, H]`."""
    return padded.flatten(0, 1).chunk(len(frames), dim=1)


def _padded(packed: Tensor, frames: Tensor, shape: torch.Size) -> Tensor:
    """`[K, N, H]` to `[B, T, K * H]`."""
    padded = packed.new_zeros(*shape[:2], len(frames) * packed.shape[2])
    for view, its_packed, its_frames in zip(_by_direction(padded, frames), packed, frames):
        view.index_copy_(0, its_frames, its_packed)
    return padded
