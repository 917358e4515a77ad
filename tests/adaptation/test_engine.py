"""Adapters trained together are those trained alone, whoever the others are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.activations.dataset import PrefixData
from nemo_ds2_adapters.activations.point import resume_point
from nemo_ds2_adapters.adaptation.adapt import adapt
from nemo_ds2_adapters.adaptation.engine import Engine
from nemo_ds2_adapters.adaptation.member import Member
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.attach import attach
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.enabling import enable_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.data.dataset import UtteranceDataset
from nemo_ds2_adapters.data.manifest import read_manifest

MLP = "nemo_ds2_adapters.modules.MLPAdapter"
ADAPTERS = {
    "first": {"_target_": MLP, "hidden_dims": [4], "layers": "first"},
    "all": {"_target_": MLP, "hidden_dims": [4], "layers": "all"},
    "dropout": {"_target_": MLP, "hidden_dims": [4], "layers": "all", "dropout": 0.3},
    "decoder": {"_target_": MLP, "hidden_dims": [4]},
    "head": {"_target_": "nemo_ds2_adapters.modules.MLPHeadAdapter", "hidden_dims": [4]},
}
OPTIM = {
    "name": "adamw",
    "lr": 0.01,
    "betas": [0.9, 0.98],
    "weight_decay": 0.0,
    "sched": {"name": "CosineAnnealing", "warmup_steps": None, "warmup_ratio": 0.1, "min_lr": 1e-5},
}
SETTINGS = Settings(OPTIM, batch_size=2, max_epochs=4)


@pytest.fixture
def make_engine(make_model, manifest: Path) -> Callable[..., Engine]:
    """A model in double precision with the adapter `anna`, and the activations of the four recordings."""

    def make(adapter: str, device: str = "cpu") -> Engine:
        model = make_model().double().to(device)
        name = "decoder:anna" if adapter in ("decoder", "head") else "anna"
        attach(model, new_adapter(model, name, ADAPTERS[adapter], seed=0))
        model.freeze()
        enable_adapters(model, "anna")
        dataset = UtteranceDataset(read_manifest(manifest, "manifest"), model)
        data = PrefixData(model, dataset, resume_point(model), PrefixCache())
        data.compute()
        return Engine(model, data, "anna")

    return make


def member(engine: Engine, train: list[int], held_out: list[int], **more) -> Member:
    start = attached_adapter(engine.model, "anna")
    return engine.member(start, train, held_out, Settings(**{**vars(SETTINGS), **more}))


def train(engine: Engine, members: list[Member], epochs: int = 4) -> None:
    for _ in range(epochs):
        engine.train_epoch(members)


@torch.no_grad()
def output_of(engine: Engine, indices: list[int]) -> tuple[torch.Tensor, ...]:
    data, model = engine.data, engine.model
    activations, lengths, targets, target_lengths = data.collate_fn([data.item(i) for i in indices])
    encoded = model.encoder.forward_from(activations.transpose(1, 2), lengths, data.point)
    return model.decoder(encoder_output=encoded.transpose(1, 2)), lengths, targets, target_lengths


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.flatten() for t in tensors])


def weights(adapter: Adapter) -> torch.Tensor:
    return flat([value for state in adapter.weights.values() for value in state.values()])


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("more", [{}, {"kl_weight": 0.5, "l2_weight": 0.1, "average_epochs": True}], ids=str)
def test_together_as_alone(make_engine, adapter: str, more: dict) -> None:
    engine = make_engine(adapter)
    before, start = fingerprint(engine.model), attached_adapter(engine.model, "anna")
    shares = [([0, 1, 2], [3]), ([1, 2, 3], [0]), ([0, 3], [1, 2]), ([2], [])]
    members = [member(engine, *share, **more) for share in shares]
    train(engine, members)
    assert fingerprint(engine.model) == before and attached_adapter(engine.model, "anna") == start
    scores, tokens = engine.scores(members), engine.token_scores(members)
    for one, share, its_scores, its_tokens in zip(members, shares, scores, tokens):
        alone = member(engine, *share, **more)
        train(engine, [alone])
        torch.testing.assert_close(weights(one.adapter()), weights(alone.adapter()), rtol=1e-6, atol=1e-10)
        assert its_scores == engine.scores([alone])[0]
        for mine, wanted in zip(its_tokens, engine.token_scores([alone])[0], strict=True):
            assert mine.errors == wanted.errors and mine.loss == pytest.approx(wanted.loss, rel=1e-6)
        assert one.adapter() != start


def test_an_adapter_goes_in_and_another_comes_out(make_engine) -> None:
    engine = make_engine("all")
    start = attached_adapter(engine.model, "anna", {"user_id": "anna"})
    one = engine.member(start, [0, 1], [], SETTINGS)
    assert one.adapter() == start
    train(engine, [one], epochs=1)
    trained = one.adapter()
    assert (trained.name, trained.config, trained.metadata) == (start.name, start.config, start.metadata)
    before = weights(trained)
    train(engine, [one], epochs=1)
    assert torch.equal(weights(trained), before)  # a copy
    again = engine.member(trained, [0, 1], [], SETTINGS)
    assert again.adapter() == trained


def test_members_join_and_leave(make_engine) -> None:
    """Who is trained for fewer epochs, or later, gets what it gets alone."""
    engine = make_engine("all")
    early, late = member(engine, [0, 1, 2], [3]), member(engine, [1, 2, 3], [0])
    for running in ([early], [early, late], [late], [late]):
        engine.train_epoch(running)
    for one, share, epochs in ((early, ([0, 1, 2], [3]), 2), (late, ([1, 2, 3], [0]), 3)):
        assert one.epochs == epochs
        alone = member(engine, *share)
        train(engine, [alone], epochs)
        torch.testing.assert_close(flat(one.saved()), flat(alone.saved()), rtol=1e-6, atol=1e-10)


def test_averages_are_scored_and_training_goes_on_from_where_it_was(make_engine) -> None:
    engine = make_engine("all")
    one = member(engine, [0, 1], [2, 3], average_epochs=True)
    train(engine, [one], epochs=2)
    trained = [p.detach().clone() for p in one.parameters]
    assert not torch.equal(flat(one.saved()), flat(trained))
    (mean_scores,) = engine.token_scores([one])
    assert torch.equal(flat([p.detach() for p in one.parameters]), flat(trained))
    one.restore(one.saved())
    assert engine.token_scores([one]) == [mean_scores]
    one.restore(trained)
    assert engine.token_scores([one]) != [mean_scores]


@pytest.mark.parametrize("adapter", ["first", "all", "decoder", "head"])
@pytest.mark.parametrize("more", [{}, {"kl_weight": 0.5, "l2_weight": 0.1, "average_epochs": True}], ids=str)
def test_as_the_script_does_it(
    make_engine, make_model, manifest: Path, tmp_path: Path, adapter: str, more: dict
) -> None:
    """Lightning's loop and this one give the same adapter."""
    engine = make_engine(adapter)
    one, other = member(engine, [0, 1, 2, 3], [], **more), member(engine, [0, 2], [], **more)
    train(engine, [other, one])

    kind = {"adapter_module_name": "decoder"} if adapter in ("decoder", "head") else {"layers": adapter}
    if adapter == "head":
        kind["adapter_type"] = "mlp_head"
    alone = make_model()
    adapt(
        alone,
        "anna",
        manifest,
        hidden_dims=[4],
        batch_size=2,
        max_epochs=4,
        lr=0.01,
        folds=0,
        precision="64-true",
        accelerator="cpu",
        enable_progress_bar=False,
        exp_dir=str(tmp_path),
        **kind,
        **more,
    )
    wanted = weights(attached_adapter(alone, "anna"))
    torch.testing.assert_close(weights(one.adapter()), wanted, rtol=1e-4, atol=1e-8)


def test_scores_are_those_of_the_model(make_engine) -> None:
    engine = make_engine("all")
    one = member(engine, [0, 1], [2, 3])
    train(engine, [one])
    trained = one.adapter()
    (scores,), (tokens,) = engine.scores([one]), engine.token_scores([one])
    assert scores == engine.score([2, 3], trained)
    assert [t.errors for t in tokens] == [s.character_errors for s in scores]  # this model's tokens are characters
    attach(engine.model, trained, as_name="trained")
    enable_adapters(engine.model, "trained")
    log_probs, lengths, targets, target_lengths = output_of(engine, [2, 3])
    for i, token in enumerate(tokens):
        loss = engine.model.loss(
            log_probs=log_probs[i : i + 1],
            targets=targets[i : i + 1],
            input_lengths=lengths[i : i + 1],
            target_lengths=target_lengths[i : i + 1],
        )
        assert token.loss == pytest.approx(float(loss), rel=1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name != "dropout"])  # whose random numbers differ
def test_on_a_gpu(make_engine, adapter: str) -> None:
    """What the processor makes of it: activations, weights, scores, and together as alone."""
    shares = [([0, 1, 2], [3]), ([2], [0, 1])]
    here, there = make_engine(adapter), make_engine(adapter, "cuda")
    for position in range(4):
        activations, expected = (engine.data.item(position)[0] for engine in (there, here))
        assert activations.device.type == "cpu"
        torch.testing.assert_close(activations, expected, rtol=1e-6, atol=1e-8)
    ours, theirs = ([member(engine, *share, kl_weight=0.5) for share in shares] for engine in (here, there))
    train(here, ours)
    train(there, theirs)
    assert all(p.is_cuda for one in theirs for p in one.parameters)
    for one, other in zip(theirs, ours):
        torch.testing.assert_close(weights(one.adapter()), weights(other.adapter()), rtol=1e-5, atol=1e-8)
    assert there.scores(theirs) == here.scores(ours)
    alone = member(there, *shares[0], kl_weight=0.5)
    train(there, [alone])
    torch.testing.assert_close(weights(theirs[0].adapter()), weights(alone.adapter()), rtol=1e-6, atol=1e-10)
