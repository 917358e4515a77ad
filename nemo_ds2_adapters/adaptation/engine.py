"""Many adapters trained at once on one frozen base, each as if it were alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import zip_longest
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from nemo.collections.asr.models import ASRModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_ds2_adapters.activations.dataset import Item, PrefixData
from nemo_ds2_adapters.adaptation.member import Member, can_share_batch, installed, modules_of, side_by_side
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.evaluation.errors import Score, score, unit_errors

EMPTY_ROW_FRAMES = 1  # of rows that fill a member's share of a batch
BASE_ROWS = 32  # utterances, where the base runs
# Rows of members that share a batch. A recurrent layer's time is that of its steps, nearly whatever the rows; where
# none comes after the adapters, more rows only leave the processor's cache.
ROWS, ROWS_WITHOUT_RECURRENCE = 64, 8


class TokenScore(NamedTuple):
    """How far the likeliest path of a model's output is from the transcript; of two scores the lower one is better."""

    errors: int  # output units to insert, delete or replace
    loss: float  # CTC, which tells apart what has the same errors


T = TypeVar("T")
OnEpoch = Callable[[float], object]
Share = tuple[Member, list[int]]  # utterances that a member is trained or scored on


class Output(NamedTuple):
    """Of one member's rows."""

    log_probs: Tensor  # [B, T, V]
    lengths: Tensor  # [B], real frames
    targets: Tensor  # [B, U]
    target_lengths: Tensor  # [B]


class Engine:
    """The training of adapters of one architecture.

    The frozen part that comes after the adapters runs on the rows of several members at once. A member's losses,
    gradients, clipping, optimiser and batches are its own, so its result is that of training it alone, up to rounding.
    Adapters that cannot share a batch (in the decoder, with dropout) take turns, each with random numbers of its own.

    Args:
        model: frozen, in eval mode.
        data: activations of the point of the members' first adapters, computed.
        name: of an attached adapter with the members' architecture, which is left as it is.
        on_epoch: is told, after each, the share of their epochs that the members have done at least, 0 to 1.
    """

    def __init__(self, model: ASRModel, data: PrefixData, name: str, on_epoch: OnEpoch | None = None) -> None:
        self.model, self.data, self._name, self._on_epoch = model, data, name, on_epoch
        self._rows = ROWS if data.point < model.encoder.n_layers else ROWS_WITHOUT_RECURRENCE
        self._base_log_probs: dict[int, Tensor] = {}  # [T', V], of utterances of members that are held to them

    def member(self, start: Adapter, train: Sequence[int], held_out: Sequence[int], settings: Settings) -> Member:
        """An adapter to be trained.

        Args:
            start: of the attached adapter's architecture; a copy is trained.
            train: positions of its training utterances in the data.
            held_out: positions of those it is scored on.
            settings: of the training.
        """
        modules = modules_of(start, self.model, self._name)
        return Member(start, modules, train, self.data.durations(train), held_out, settings)

    def score(self, utterances: Sequence[int], adapter: Adapter | None = None) -> list[Score]:
        """Single utterances, by the base or with an adapter of the attached one's architecture."""
        with ExitStack() as stack:
            stack.enter_context(enabled_adapters(self.model, None))
            if adapter is not None:
                modules = modules_of(adapter, self.model, self._name)
                stack.enter_context(installed(self.model, self._name, modules))
            return _score(self.model, self.data, utterances)

    def train_epoch(self, members: Sequence[Member]) -> None:
        """Train every member for its next epoch."""
        self._compute_base(members)
        with enabled_adapters(self.model, None):
            for batches in zip_longest(*(member.batches() for member in members)):
                running = [(member, batch) for member, batch in zip(members, batches) if batch]
                for group in self._groups(running):
                    self._step(group)
        for member in members:
            member.end_epoch()
        if self._on_epoch is not None and members:
            self._on_epoch(min(member.epochs / member.settings.max_epochs for member in members))

    def token_scores(self, members: Sequence[Member]) -> list[list[TokenScore]]:
        """Of each member's held-out utterances, with the weights that would be saved now."""
        return self._held_out(members, lambda indices, output: _token_scores(self.model, output))

    def scores(self, members: Sequence[Member]) -> list[list[Score]]:
        """Of each member's held-out utterances, with the weights that would be saved now."""
        return self._held_out(members, lambda indices, output: _scores(self.model, self.data, indices, output))

    @torch.no_grad()
    def _held_out(self, members: Sequence[Member], measure: Callable[[list[int], Output], list[T]]) -> list[list[T]]:
        found: dict[int, list[T]] = {id(member): [] for member in members}
        with enabled_adapters(self.model, None):
            for group in self._groups([(member, list(member.held_out)) for member in members if member.held_out]):
                with ExitStack() as stack:
                    for member, _ in group:
                        stack.enter_context(member.as_saved())
                    for (member, indices), output in zip(group, self._forward(group, training=False)):
                        found[id(member)] = measure(indices, output)
        return [found[id(member)] for member in members]

    def _groups(self, shares: list[Share]) -> Iterator[list[Share]]:
        """Members that run in one batch, those with long utterances together."""
        if not all(can_share_batch(member.modules) for member, _ in shares):
            yield from ([share] for share in shares)
            return
        shares = sorted(shares, key=lambda share: max(self.data.durations(share[1])))
        at_once = max(1, self._rows // max((len(indices) for _, indices in shares), default=1))
        yield from (shares[start : start + at_once] for start in range(0, len(shares), at_once))

    def _step(self, group: list[Share]) -> None:
        losses = []
        for (member, batch), output in zip(group, self._forward(group, training=True)):
            log_probs, lengths, targets, target_lengths = output
            loss = self.model.loss(
                log_probs=log_probs, targets=targets, input_lengths=lengths, target_lengths=target_lengths
            )
            loss = member.regulariser.added_to(loss, log_probs, lengths, partial(self._base, batch))
            losses.append(loss)
        torch.stack(losses).sum().backward()  # of each member alone, as no parameter is shared
        for member, _ in group:
            member.step()

    def _forward(self, group: list[Share], training: bool) -> list[Output]:
        """What the model makes of each member's utterances, with its adapter."""
        most = max(len(share) for _, share in group)
        items: list[Item] = []
        for _, share in group:
            items += [self.data.item(i) for i in share]
            activations, tokens = items[-1]
            items += [(activations[:EMPTY_ROW_FRAMES], tokens)] * (most - len(share))
        with self._running([member for member, _ in group], training):
            log_probs, *rest = _run(self.model, self.data, items)
        starts = range(0, len(items), most)
        return [
            Output(log_probs[rows], *(tensor[rows] for tensor in rest))
            for rows in (slice(start, start + len(share)) for start, (_, share) in zip(starts, group))
        ]

    @contextmanager
    def _running(self, members: list[Member], training: bool) -> Iterator[None]:
        """The members' adapters in the model."""
        if can_share_batch(members[0].modules):
            with side_by_side(self.model, [member.modules for member in members]):
                yield
            return
        (member,) = members
        for module in member.modules.values():
            module.train(training)
        with installed(self.model, self._name, member.modules), member.random_numbers():
            yield

    def _base(self, utterances: Sequence[int]) -> Tensor:
        """Log probabilities `[B, T', V]` of the base, padded with zeros."""
        return pad_sequence([self._base_log_probs[i] for i in utterances], batch_first=True)

    @torch.no_grad()
    def _compute_base(self, members: Sequence[Member]) -> None:
        wanted = {i for member in members if member.settings.kl_weight for i in member.train}
        missing = sorted(wanted - self._base_log_probs.keys())
        with enabled_adapters(self.model, None):
            for some in _chunks(missing):
                log_probs, lengths, *_ = _run(self.model, self.data, [self.data.item(i) for i in some])
                rows = zip(some, log_probs, lengths.tolist())
                self._base_log_probs.update({i: row[:length].clone() for i, row, length in rows})


@torch.no_grad()
def _score(model: ASRModel, data: PrefixData, indices: Sequence[int]) -> list[Score]:
    """The model as it is, with the adapters that are enabled."""
    scores = []
    for some in _chunks(indices):
        scores += _scores(model, data, some, Output(*_run(model, data, [data.item(i) for i in some])))
    return scores


def _chunks(indices: Sequence[int]) -> Iterator[list[int]]:
    return (list(indices[start : start + BASE_ROWS]) for start in range(0, len(indices), BASE_ROWS))


def _run(model: ASRModel, data: PrefixData, items: list[Item]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log probabilities, lengths, targets and their lengths."""
    device = next(model.parameters()).device
    activations, lengths, targets, target_lengths = data.collate_fn(items).to(device)
    encoded = model.encoder.forward_from(activations.transpose(1, 2), lengths, data.point)
    return model.decoder(encoder_output=encoded.transpose(1, 2)), lengths, targets, target_lengths


def _token_scores(model: ASRModel, output: Output) -> list[TokenScore]:
    blank = model.decoder.num_classes_with_blank - 1
    log_probs, lengths, targets, target_lengths = output
    losses = F.ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, target_lengths, blank, reduction="none", zero_infinity=True
    )
    scores = []
    for path, length, target, target_length, loss in zip(
        log_probs.argmax(dim=-1), lengths.tolist(), targets, target_lengths.tolist(), losses.tolist()
    ):
        tokens = path[:length].unique_consecutive()
        errors = unit_errors(tokens[tokens != blank].tolist(), target[:target_length].tolist())
        scores.append(TokenScore(errors, loss))
    return scores


def _scores(model: ASRModel, data: PrefixData, indices: Sequence[int], output: Output) -> list[Score]:
    decode = model.decoding.ctc_decoder_predictions_tensor
    hypotheses = [
        h if isinstance(h, str) else h.text for h in decode(output.log_probs, output.lengths, return_hypotheses=False)
    ]
    pairs = zip(hypotheses, (data.utterances[i].text for i in indices))
    return [score(*pair) for pair in pairs]
