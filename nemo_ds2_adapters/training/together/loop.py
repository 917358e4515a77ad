"""Many adapters trained at once on one frozen base, each as if it were alone."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import zip_longest

import torch
import torch.nn.functional as F
from nemo.collections.asr.models import ASRModel
from torch import Tensor

from nemo_ds2_adapters.adapters import enabled_adapters
from nemo_ds2_adapters.training.prefix import Item, PrefixDataset
from nemo_ds2_adapters.training.regularise import distance_to, divergence
from nemo_ds2_adapters.training.together.member import EpochScore, Member
from nemo_ds2_adapters.training.together.stack import can_stack, installed, stacked
from nemo_ds2_adapters.training.together.words import character_errors, texts, word_errors

EMPTY_ROW_FRAMES = 1  # of rows that fill a member's share of a batch
AT_ONCE = 32  # utterances, where the base runs

Share = tuple[Member, list[int]]  # utterances that a member is trained or scored on


def train_together(
    model: ASRModel,
    data: PrefixDataset,
    name: str,
    members: Sequence[Member],
    on_epoch: Callable[[], object] = lambda: None,
) -> None:
    """Train every member to the end, score it on its held-out utterances and keep its weights after every epoch.

    The frozen part that comes after the adapters runs on the rows of all members at once, which costs little more than
    running it on those of one: a recurrent layer's time is that of its steps. A member's losses, gradients, clipping,
    optimiser and batches are its own, so its result is that of training it alone, up to rounding. Adapters that cannot
    be stacked (in the decoder, with dropout) take turns, each with random numbers of its own.

    Args:
        model: frozen, in eval mode.
        data: activations of the point of the members' first adapters, in the cache.
        name: of an attached adapter with the members' architecture, which is left as it is.
        members: of one architecture, trained for the same number of epochs.
        on_epoch: called after every epoch.
    """
    base = _base_log_probs(model, data, members)
    with enabled_adapters(model, None):
        for epoch in range(members[0].settings.max_epochs):
            for batches in zip_longest(*(member.batches(epoch) for member in members)):
                running = [(member, batch) for member, batch in zip(members, batches) if batch]
                for group in _groups(running):
                    _step(model, data, name, group, base)
            for member in members:
                member.keep_weights()
            for group in _groups([(member, list(member.held_out)) for member in members if member.held_out]):
                _score(model, data, name, group)
            on_epoch()


def score(model: ASRModel, data: PrefixDataset, indices: Sequence[int]) -> list[EpochScore]:
    """The model as it is, with the adapters that are enabled, on single utterances."""
    scores = []
    for start in range(0, len(indices), AT_ONCE):
        some = list(indices[start : start + AT_ONCE])
        scores += [EpochScore(*values) for values in zip(*_measure(model, data, nullcontext(), [some]))]
    return scores


def _groups(shares: list[Share]) -> Iterator[list[Share]]:
    """Members that run in one batch."""
    if shares and can_stack(shares[0][0].parts):
        yield shares
    else:
        yield from ([share] for share in shares)


@contextmanager
def _running(model: ASRModel, name: str, members: list[Member], training: bool) -> Iterator[None]:
    """The members' adapters in the model."""
    if can_stack(members[0].parts):
        with stacked(model, [member.parts for member in members]):
            yield
        return
    (member,) = members
    for part in member.parts.values():
        part.train(training)
    with installed(model, name, member.parts), member.random_numbers():
        yield


def _step(model: ASRModel, data: PrefixDataset, name: str, running: list[Share], base: dict[int, Tensor]) -> None:
    adapters = _running(model, name, [member for member, _ in running], training=True)
    log_probs, lengths, targets, target_lengths, rows = _forward(model, data, adapters, [b for _, b in running])
    loss = log_probs.new_zeros(())
    for (member, batch), mine in zip(running, rows):
        loss = loss + model.loss(
            log_probs=log_probs[mine],
            targets=targets[mine],
            input_lengths=lengths[mine],
            target_lengths=target_lengths[mine],
        )
        settings = member.settings
        if settings.kl_weight:
            wanted = torch.nn.utils.rnn.pad_sequence([base[i] for i in batch], batch_first=True)
            own = log_probs[mine][:, : wanted.shape[1]]
            loss = loss + settings.kl_weight * divergence(wanted, own, lengths[mine])
        if settings.l2_weight:
            loss = loss + settings.l2_weight * distance_to(member.start, member.parameters)
    loss.backward()
    for member, _ in running:
        member.step()


def _score(model: ASRModel, data: PrefixDataset, name: str, group: list[Share]) -> None:
    members, shares = [member for member, _ in group], [share for _, share in group]
    trained = [[p.detach().clone() for p in member.parameters] for member in members]
    for member in members:
        member.load(member.weights[-1])  # of which a mean over epochs may be kept
    adapters = _running(model, name, members, training=False)
    losses, words, characters = _measure(model, data, adapters, shares)
    start = 0
    for member, share, weights in zip(members, shares, trained):
        mine = slice(start, start := start + len(share))
        member.scores.append(EpochScore(sum(losses[mine]), sum(words[mine]), sum(characters[mine])))
        member.load(weights)


@torch.no_grad()
def _measure(
    model: ASRModel, data: PrefixDataset, adapters: AbstractContextManager, shares: Sequence[Sequence[int]]
) -> tuple[list[float], list[int], list[int]]:
    """CTC loss, word errors and character errors of each utterance, share after share."""
    log_probs, lengths, targets, target_lengths, rows = _forward(model, data, adapters, shares)
    real = torch.cat([torch.arange(mine.start, mine.stop) for mine in rows])
    losses = F.ctc_loss(
        log_probs[real].transpose(0, 1),
        targets[real],
        lengths[real],
        target_lengths[real],
        blank=model.decoder.num_classes_with_blank - 1,
        reduction="none",
        zero_infinity=True,
    )
    hypotheses = texts(model, log_probs[real], lengths[real])
    references = [data.dataset.manifest_processor.collection[i].text_raw for share in shares for i in share]
    return (
        losses.tolist(),
        [word_errors(*pair) for pair in zip(hypotheses, references)],
        [character_errors(*pair) for pair in zip(hypotheses, references)],
    )


def _forward(
    model: ASRModel, data: PrefixDataset, adapters: AbstractContextManager, shares: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[slice]]:
    """Log probabilities, lengths, targets and their lengths of all rows, and which rows are whose."""
    most = max(len(share) for share in shares)
    items: list[Item] = []
    rows = []
    for share in shares:
        rows.append(slice(len(items), len(items) + len(share)))
        items += [data.item(i) for i in share]
        activations, tokens = items[-1]
        items += [(activations[:EMPTY_ROW_FRAMES], tokens)] * (most - len(share))
    device = next(model.parameters()).device
    activations, lengths, targets, target_lengths = data.collate_fn(items).to(device)
    with adapters:
        encoded = model.encoder.forward_from(activations.transpose(1, 2), lengths, data.point)
        log_probs = model.decoder(encoder_output=encoded.transpose(1, 2))
    return log_probs, lengths, targets, target_lengths, rows


def _base_log_probs(model: ASRModel, data: PrefixDataset, members: Sequence[Member]) -> dict[int, Tensor]:
    """`[T', V]` of every training utterance, where a member is held to them."""
    wanted = sorted({i for member in members if member.settings.kl_weight for i in member.train})
    found = {}
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        with torch.no_grad(), enabled_adapters(model, None):
            log_probs, lengths, *_ = _forward(model, data, nullcontext(), [some])
        found.update({i: row[:n].clone() for i, row, n in zip(some, log_probs, lengths.tolist())})
    return found
