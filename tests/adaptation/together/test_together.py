"""Adapters trained together are those trained alone, whoever the others are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from omegaconf import DictConfig

from nemo_ds2_adapters.activations.cache import PrefixCache
from nemo_ds2_adapters.activations.dataset import PrefixDataset
from nemo_ds2_adapters.activations.point import resume_point
from nemo_ds2_adapters.adaptation.adapt import adapt
from nemo_ds2_adapters.adaptation.seeds import seeded
from nemo_ds2_adapters.adaptation.together.loop import Together, score
from nemo_ds2_adapters.adaptation.together.member import Member, Settings
from nemo_ds2_adapters.adaptation.together.parts import copied_parts
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import adapter_parts
from nemo_ds2_adapters.adapters.enabling import enable_adapters
from nemo_ds2_adapters.adapters.fingerprint import fingerprint

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
def make_data(make_model, manifest: Path) -> Callable[..., tuple[EncDecCTCModel, PrefixDataset]]:
    """A model in double precision with the adapter `anna`, and the activations of the four recordings."""

    def make(adapter: str) -> tuple[EncDecCTCModel, PrefixDataset]:
        model = make_model().double()
        name = "decoder:anna" if adapter in ("decoder", "head") else "anna"
        with seeded(0):
            add_adapter(model, name, ADAPTERS[adapter])
        model.freeze()
        enable_adapters(model, "anna")
        cfg = {"manifest_filepath": str(manifest), "sample_rate": 16000, "batch_size": 2, "shuffle": False}
        labels = {"labels": list(model.decoder.vocabulary), "parser": "en", "normalize_transcripts": False}
        dataset = model._setup_dataloader_from_config(DictConfig({**cfg, **labels})).dataset
        data = PrefixDataset(dataset, model, resume_point(model), PrefixCache())
        data.compute(progress=False)
        return model, data

    return make


def member(model: EncDecCTCModel, data: PrefixDataset, train: list[int], held_out: list[int], **more) -> Member:
    settings = Settings(**{**vars(SETTINGS), **more})
    return Member(copied_parts(model, "anna"), train, data.durations(train), held_out, settings)


def train(model: EncDecCTCModel, data: PrefixDataset, members: list[Member], epochs: int = 4) -> Together:
    together = Together(model, data, "anna")
    for _ in range(epochs):
        together.train_epoch(members)
    return together


@torch.no_grad()
def output_of(model: EncDecCTCModel, data: PrefixDataset, indices: list[int]) -> tuple[torch.Tensor, ...]:
    activations, lengths, targets, target_lengths = data.collate_fn([data.item(i) for i in indices])
    encoded = model.encoder.forward_from(activations.transpose(1, 2), lengths, data.point)
    return model.decoder(encoder_output=encoded.transpose(1, 2)), lengths, targets, target_lengths


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.flatten() for t in tensors])


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("more", [{}, {"kl_weight": 0.5, "l2_weight": 0.1, "average_epochs": True}], ids=str)
def test_together_as_alone(make_data, adapter: str, more: dict) -> None:
    model, data = make_data(adapter)
    before = fingerprint(model)
    shares = [([0, 1, 2], [3]), ([1, 2, 3], [0]), ([0, 3], [1, 2]), ([2], [])]
    members = [member(model, data, *share, **more) for share in shares]
    together = train(model, data, members)
    assert fingerprint(model) == before
    scores, tokens = together.scores(members), together.token_scores(members)
    for one, share, its_scores, its_tokens in zip(members, shares, scores, tokens):
        alone = member(model, data, *share, **more)
        training = train(model, data, [alone])
        torch.testing.assert_close(flat(one.saved()), flat(alone.saved()), rtol=1e-6, atol=1e-10)
        assert its_scores == training.scores([alone])[0]
        for mine, wanted in zip(its_tokens, training.token_scores([alone])[0], strict=True):
            assert mine.errors == wanted.errors and mine.loss == pytest.approx(wanted.loss, rel=1e-6)
    start = flat([p.detach() for _, part in adapter_parts(model, "anna") for p in part.parameters()])
    assert all(not torch.equal(flat(one.saved()), start) for one in members)


def test_members_join_and_leave(make_data) -> None:
    """Who is trained for fewer epochs, or later, gets what it gets alone."""
    model, data = make_data("all")
    early, late = member(model, data, [0, 1, 2], [3]), member(model, data, [1, 2, 3], [0])
    together = Together(model, data, "anna")
    for running in ([early], [early, late], [late], [late]):
        together.train_epoch(running)
    for one, share, epochs in ((early, ([0, 1, 2], [3]), 2), (late, ([1, 2, 3], [0]), 3)):
        assert one.epochs == epochs
        alone = member(model, data, *share)
        train(model, data, [alone], epochs)
        torch.testing.assert_close(flat(one.saved()), flat(alone.saved()), rtol=1e-6, atol=1e-10)


def test_averages_are_scored_and_training_goes_on_from_where_it_was(make_data) -> None:
    model, data = make_data("all")
    one = member(model, data, [0, 1], [2, 3], average_epochs=True)
    together = train(model, data, [one], epochs=2)
    trained = [p.detach().clone() for p in one.parameters]
    assert not torch.equal(flat(one.saved()), flat(trained))
    (mean_scores,) = together.token_scores([one])
    assert torch.equal(flat([p.detach() for p in one.parameters]), flat(trained))
    one.restore(one.saved())
    assert together.token_scores([one]) == [mean_scores]
    one.restore(trained)
    assert together.token_scores([one]) != [mean_scores]


@pytest.mark.parametrize("adapter", ["first", "all", "decoder", "head"])
@pytest.mark.parametrize("more", [{}, {"kl_weight": 0.5, "l2_weight": 0.1, "average_epochs": True}], ids=str)
def test_as_the_script_does_it(
    make_data, make_model, manifest: Path, tmp_path: Path, adapter: str, more: dict
) -> None:
    """Lightning's loop and this one give the same adapter."""
    model, data = make_data(adapter)
    one, other = member(model, data, [0, 1, 2, 3], [], **more), member(model, data, [0, 2], [], **more)
    train(model, data, [other, one])

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
    wanted = flat([p.detach() for _, part in adapter_parts(alone, "anna") for p in part.parameters()])
    torch.testing.assert_close(flat(one.saved()), wanted, rtol=1e-4, atol=1e-8)


def test_scores_are_those_of_the_model(make_data) -> None:
    model, data = make_data("all")
    one = member(model, data, [0, 1], [2, 3])
    together = train(model, data, [one])
    parts = [part for _, part in adapter_parts(model, "anna")]
    for parameter, values in zip([p for part in parts for p in part.parameters()], one.saved()):
        parameter.data.copy_(values)
    enable_adapters(model, "anna")
    (scores,), (tokens,) = together.scores([one]), together.token_scores([one])
    assert scores == score(model, data, [2, 3])
    assert [t.errors for t in tokens] == [s.character_errors for s in scores]  # this model's tokens are characters
    log_probs, lengths, targets, target_lengths = output_of(model, data, [2, 3])
    for i, token in enumerate(tokens):
        loss = model.loss(
            log_probs=log_probs[i : i + 1],
            targets=targets[i : i + 1],
            input_lengths=lengths[i : i + 1],
            target_lengths=target_lengths[i : i + 1],
        )
        assert token.loss == pytest.approx(float(loss), rel=1e-9)
