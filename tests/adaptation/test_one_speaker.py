"""An adapter is kept only where a person's own recordings show that it helps."""

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.adaptation import decision
from nemo_ds2_adapters.adaptation.adapt import adapt, config_with
from nemo_ds2_adapters.adaptation.fit_settings import FitSettings
from nemo_ds2_adapters.adaptation.one_speaker import adapt_speaker, keep_base
from nemo_ds2_adapters.adaptation.report import Adaptation
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.errors import AdapterFileError, InputError

QUICK = {
    "batch_size": 2,
    "max_epochs": 3,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "hidden_dims": [4],
    "create_tensorboard_logger": False,
}


HEAD = {"adapter_type": "mlp_head", "adapter_module_name": "decoder"}
REPLACING = {"_target_": "nemo.core.classes.mixins.adapter_mixin_strategies.ReturnResultAdapterStrategy"}


@pytest.mark.parametrize("kind", ["MLPAdapter", "MLPHeadAdapter", "LinearAdapter"])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_made_into_the_base(model: EncDecCTCModel, disturb, batch, kind: str, norm_position: str) -> None:
    path = "nemo.collections.common.parts.adapter_modules" if kind == "LinearAdapter" else "nemo_ds2_adapters.modules"
    sizes = {"MLPAdapter": {}, "MLPHeadAdapter": {}, "LinearAdapter": {"dim": 4}}[kind]
    norm = {} if kind == "MLPHeadAdapter" else {"norm_position": norm_position}
    name = "decoder:anna" if kind == "MLPHeadAdapter" else "anna"
    add_adapter(model, name, {"_target_": f"{path}.{kind}", **norm, **sizes})
    disturb(model, "anna")
    with torch.no_grad(), enabled_adapters(model, None):
        base = model(**batch)[0]
    with torch.no_grad(), enabled_adapters(model, "anna"):
        assert not torch.equal(model(**batch)[0], base)
        assert keep_base(model, attached_adapter(model, "anna"), continued=False)
        assert torch.equal(model(**batch)[0], base)


@pytest.mark.parametrize(
    "settings",
    [
        {**HEAD, "mode": "replace"},
        {"adapter_strategy": REPLACING},
    ],
    ids=["head", "strategy"],
)
@pytest.mark.parametrize("validated", [True, False])
def test_what_replaces_the_base_is_no_adapter_where_the_base_is_better(
    make_model, manifest: Path, tmp_path: Path, batch, settings: dict, validated: bool
) -> None:
    """It cannot be made into the base; a head of zeros would be called one."""
    model = make_model()
    settings = {**QUICK, **settings, "lr": 1e-9, "sched": None, "exp_dir": str(tmp_path)}
    result = adapt(model, "anna", manifest, manifest if validated else None, **settings)
    assert not result.is_kept and result.path is None and (result.epochs, result.wer_after) == (0, result.wer_before)
    assert "no epoch was better than the base: there is no adapter" in result.lines()[0]
    assert list_adapters(model) == []
    restored = EncDecCTCModel.restore_from(str(result.model_path), map_location="cpu").eval()
    with torch.no_grad():
        assert torch.equal(restored(**batch)[0], make_model()(**batch)[0])


def test_noise_is_not_learnt(make_model, manifest: Path, tmp_path: Path, batch) -> None:
    """The recordings are noise: cross-validation keeps the base, bit for bit, and says so."""
    model = make_model()
    result = adapt(model, "anna", manifest, exp_dir=str(tmp_path), layers="all", **QUICK)
    assert (result.epochs, result.wer_after) == (0, result.wer_before)
    line = result.lines()[0]
    assert line.startswith("adapter anna: no epoch was better than the start, which was kept, cross-validated WER ")
    restored = EncDecCTCModel.restore_from(str(result.model_path), map_location="cpu").eval()
    with torch.no_grad():
        assert torch.equal(restored(**batch)[0], make_model()(**batch)[0])


def test_a_continued_adapter_is_compared_with_itself(make_model, disturb, manifest: Path, tmp_path: Path) -> None:
    model = make_model()
    add_adapter(model, "anna", {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [4]})
    disturb(model, "anna")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    quick = {key: value for key, value in QUICK.items() if key != "hidden_dims"}
    result = adapt(model, "anna", manifest, exp_dir=str(tmp_path), continue_existing=True, **quick)
    assert result.epochs == 0
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_one_utterance_is_too_little(make_model, manifest: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.json"
    one.write_text(manifest.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match="one utterance cannot tell whether an adapter helps"):
        adapt(make_model(), "anna", one, exp_dir=str(tmp_path), **QUICK)
    assert adapt(make_model(), "anna", one, exp_dir=str(tmp_path), folds=0, **QUICK).epochs == 3


@pytest.mark.parametrize("folds", [1, -3])
def test_one_fold_cannot_take_turns(make_model, manifest: Path, tmp_path: Path, folds: int) -> None:
    with pytest.raises(InputError, match=f"model.adapter.folds={folds}: at least 2 parts must take turns"):
        adapt(make_model(), "anna", manifest, exp_dir=str(tmp_path), folds=folds, **QUICK)


def test_settings_that_do_not_go_with_cross_validation(make_model, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use_semi_sorted_batching=False does not go with cross-validation"):
        adapt(make_model(), "anna", manifest, exp_dir=str(tmp_path), use_semi_sorted_batching=False, **QUICK)


@pytest.mark.parametrize("patience", [0, 1.5, "never"])
def test_patience_is_a_number_of_epochs(make_model, manifest: Path, tmp_path: Path, patience: object) -> None:
    with pytest.raises(InputError, match=f"model.adapter.patience={patience}: expected at least 1 epoch, or null"):
        adapt(make_model(), "anna", manifest, exp_dir=str(tmp_path), patience=patience, **QUICK)


Run = Callable[..., tuple[EncDecCTCModel, Adaptation]]


@pytest.fixture
def talkative(make_model, manifest: Path) -> Callable[[], EncDecCTCModel]:
    """Builder of a base that writes words all the time, of which a person's adapter soon writes fewer."""

    def make() -> EncDecCTCModel:
        model = make_model()
        inputs: list[torch.Tensor] = []
        handle = model.decoder.output.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
        with torch.no_grad():
            for utterance in read_manifest(manifest, "manifest"):
                samples = torch.tensor(soundfile.read(utterance.audio, dtype="float32")[0])[None]
                model(input_signal=samples, input_signal_length=torch.tensor([samples.shape[1]]))
            handle.remove()
            frames = torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs])
            direction = torch.linalg.eigh(torch.cov(frames.T))[1][:, -1]
            direction = 3 * direction / (frames @ direction).std()
            for row, sign in ((0, 1), (1, -1)):  # a blank here, a letter there
                model.decoder.output.weight[row] = sign * direction
                model.decoder.output.bias[row] = -sign * direction @ frames.mean(0)
        return model

    return make


@pytest.fixture
def run(talkative, manifest: Path, tmp_path: Path) -> Run:
    """Train with any keys of the config: `{"trainer.max_steps": 1}`."""

    def train(keys: Mapping[str, Any] = {}, validation: bool = True, train: Path = manifest) -> Any:
        values = config_with({**QUICK, **HEAD, "exp_dir": str(tmp_path / "experiments"), "lr": 0.1, "sched": None})
        for key, value in keys.items():
            *sections, name = key.split(".")
            section = values
            for one in sections:
                section = section.setdefault(one, {})
            section[name] = value
        model = talkative()
        settings = FitSettings.of(values, validation)
        heard = read_manifest(manifest, "validation") if validation else None
        inputs = {"model.train_ds.manifest_filepath": train}
        return model, adapt_speaker(
            model, ChosenAdapter("anna"), read_manifest(train, "train"), heard, settings, inputs
        )

    return train


def flat(model: EncDecCTCModel) -> torch.Tensor:
    adapter = attached_adapter(model, "anna")
    return torch.cat([value.flatten() for state in adapter.weights.values() for value in state.values()])


def restored_weights(result: Adaptation) -> torch.Tensor:
    return flat(EncDecCTCModel.restore_from(str(result.model_path), map_location="cpu"))


RESUMED = {
    "exp_manager.resume_if_exists": True,
    "exp_manager.use_datetime_version": False,
    "exp_manager.version": None,
}
CHECKPOINTS = "exp_manager.checkpoint_callback_params"


def test_a_finished_run_run_again_keeps_its_result(run: Run) -> None:
    model, first = run(RESUMED)
    assert first.epochs > 0 and not first.was_finished  # the validation data are the training data: it helps
    again, second = run(RESUMED)
    assert second.was_finished and "trained by an earlier run" in second.lines()[0]
    assert (second.epochs, second.wer_before, second.wer_after) == (first.epochs, first.wer_before, first.wer_after)
    assert second.history == first.history and second.model_path == first.model_path
    assert torch.equal(flat(again), flat(model)) and torch.equal(restored_weights(second), flat(model))


def test_a_nemo_that_cannot_be_finished_leaves_the_old_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = run(RESUMED)
    before = first.model_path.read_bytes()

    def fill_the_disk(self: EncDecCTCModel, path: str) -> None:
        Path(path).write_bytes(before[: len(before) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(EncDecCTCModel, "save_to", fill_the_disk)
    with pytest.raises(AdapterFileError, match="cannot be written .No space left on device"):
        run(RESUMED)
    assert first.model_path.read_bytes() == before
    assert {path.suffix for path in first.model_path.parent.iterdir()} == {".nemo", ".pt", ".ckpt"}


def test_no_input_is_written_over(run: Run, tmp_path: Path, manifest: Path) -> None:
    folder = tmp_path / "experiments" / "ASR-Adapter" / "mine" / "checkpoints"
    folder.mkdir(parents=True)
    data = folder / "ASR-Adapter.nemo"  # a strange name for a manifest
    data.write_text(manifest.read_text())
    with pytest.raises(InputError, match="would overwrite model.train_ds.manifest_filepath"):
        run({"exp_manager.version": "mine"}, train=data)
    assert data.read_text() == manifest.read_text()


class Killed(BaseException):
    """As good as a signal."""


@pytest.mark.parametrize("average", [True, False])
def test_a_run_that_was_killed_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch, average: bool) -> None:
    keys = {**RESUMED, "model.adapter.average_epochs": average}
    wanted_model, wanted = run({"model.adapter.average_epochs": average, "exp_manager.version": "whole"})
    progress = "nemo_ds2_adapters.adaptation.lightning_fit.Progress"

    def die(self: Any, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == 1:
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(f"{progress}.on_train_epoch_start", die, raising=False)
        run(keys)
    model, resumed = run(keys)
    assert not resumed.was_finished and resumed.epochs == wanted.epochs
    assert [row["val_wer"] for row in resumed.history] == [row["val_wer"] for row in wanted.history]
    assert all(a["train_loss"] == pytest.approx(b["train_loss"]) for a, b in zip(resumed.history, wanted.history))
    torch.testing.assert_close(flat(model), flat(wanted_model))


def test_a_finished_run_with_more_epochs_counts_them_all(run: Run) -> None:
    run({**RESUMED, "trainer.max_epochs": 2})
    _, more = run({**RESUMED, "trainer.max_epochs": 5})
    assert len(more.history) == 5


@pytest.mark.parametrize(
    ("keys", "epochs"),
    [
        ({"trainer.check_val_every_n_epoch": 2}, 3),
        ({"trainer.max_epochs": -1, "trainer.max_steps": 20}, 10),
        ({"trainer.max_epochs": -1, "trainer.max_time": "00:00:00:01"}, None),
        ({f"{CHECKPOINTS}.monitor": "val_loss"}, 3),
        ({f"{CHECKPOINTS}.save_top_k": 0}, 3),
        ({"exp_manager.create_checkpoint_callback": False}, 3),
        ({"trainer.val_check_interval": 0.5}, 3),
    ],
    ids=str,
)
def test_limits_and_checkpoints_of_all_kinds(run: Run, keys: dict, epochs: int | None) -> None:
    """Whatever is validated when: the best of it is kept, with its word error rate."""
    model, result = run(keys)
    assert result.wer_before is not None and result.wer_after < result.wer_before and result.epochs > 0
    rates = [row["val_wer"] for row in result.history if "val_wer" in row]
    if f"{CHECKPOINTS}.monitor" not in keys:
        assert result.wer_after <= min(rates)  # several validations in an epoch leave the last one's
    assert epochs is None or len(result.history) == epochs
    assert result.path.is_file() and torch.equal(restored_weights(result), flat(model))


def test_one_step_is_validated_though_no_epoch_is_over(run: Run) -> None:
    _, result = run({"trainer.max_steps": 1})
    (row,) = result.history
    assert row["val_wer"] >= result.wer_after and result.path.is_file() and result.model_path.is_file()


def test_steps_without_validation(run: Run) -> None:
    keys = {"trainer.max_epochs": -1, "trainer.max_steps": 20, "model.adapter.folds": 0}
    _, result = run(keys, validation=False)
    assert result.epochs == len(result.history) == 10 and "10 epochs, " in result.lines()[0]


def test_a_training_that_does_not_converge(run: Run, talkative, batch, tmp_path: Path) -> None:
    keys = {"model.optim.lr": 1e30, "model.optim.sched": None, "trainer.gradient_clip_val": 0.0}
    model, result = run(keys)
    assert (result.epochs, result.wer_after) == (0, result.wer_before)
    with torch.no_grad():
        assert torch.equal(model(**batch)[0], talkative()(**batch)[0])
    assert restored_weights(result).isfinite().all()
    with pytest.raises(InputError, match="did not converge, weights are not finite: lower model.optim.lr"):
        run({**keys, "model.adapter.folds": 0, "exp_manager.version": "diverged"}, validation=False)
    assert not list(tmp_path.rglob("*diverged*/**/*.nemo"))


def test_nothing_is_left_on_the_model(make_model, manifest: Path, tmp_path: Path, snapshot) -> None:
    """Bob's training knows nothing of Ann's validation data, and neither changes the process's random numbers."""
    settings = {**QUICK, "layers": "all", "exp_dir": str(tmp_path)}
    model = make_model()
    modules, attributes = list(model.modules()), set(vars(model))
    modes = [module.training for module in modules]
    states = [torch.get_rng_state(), np.random.get_state()[1].copy()]
    adapt(model, "ann", manifest, manifest, **settings)
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    assert model._validation_dl is None and model._train_dl is None and model._trainer is None
    assert set(vars(model)) <= attributes | {"adapter_cfg", "adapter_name", "_restoring_adapters"}
    assert "train_ds" not in model.cfg and "validation_ds" not in model.cfg
    assert [m.training for path, m in model.named_modules() if "adapter" not in path][: len(modes)] == modes[
        : len(modes)
    ]
    assert all(p.requires_grad for name, p in model.named_parameters() if ".adapter_layer." not in name)
    after_ann = adapt(model, "bob", manifest, folds=0, **settings)
    alone = make_model()
    alone_result = adapt(alone, "bob", manifest, folds=0, **settings)
    assert after_ann.wer_before is None and after_ann.epochs == alone_result.epochs
    one, other = attached_adapter(model, "bob"), attached_adapter(alone, "bob")
    assert one == other


def test_a_continued_adapter_is_named_with_or_without_its_module(make_model, manifest: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "folds": 0, "exp_dir": str(tmp_path)}
    model = make_model()
    adapt(model, "encoder:ann", manifest, **settings)
    quick = {key: value for key, value in settings.items() if key != "hidden_dims"}
    adapt(model, "encoder:ann", manifest, continue_existing=True, **quick)
    adapt(model, "bob", manifest, init_from="encoder:ann", **quick)
    assert list_adapters(model) == ["ann", "bob"]


def test_copies_of_recordings_are_not_held_out_one_from_the_other(
    make_model, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is scored is never what was trained on, be it another line or another file."""
    twice = tmp_path / "twice.json"
    lines = []
    for utterance in read_manifest(manifest, "manifest"):
        copy = tmp_path / f"copy of {utterance.audio.stem}.wav"
        samples, rate = soundfile.read(utterance.audio)
        soundfile.write(copy, samples, rate)
        line = {**utterance.fields, "audio_filepath": str(utterance.audio)}
        lines += [line, {**line, "audio_filepath": str(copy)}]
    twice.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    members = []
    of = decision.Trial.of.__func__

    def spy(cls: Any, engine: Any, *arguments: Any) -> Any:
        trial = of(cls, engine, *arguments)
        members.extend(trial.members)
        return trial

    monkeypatch.setattr(decision.Trial, "of", classmethod(spy))
    once = adapt(make_model(), "anna", manifest, exp_dir=str(tmp_path), **QUICK)
    members.clear()
    result = adapt(make_model(), "anna", twice, exp_dir=str(tmp_path), **QUICK)
    assert len(members) == 4 and result.wer_before == once.wer_before
    for member in members:
        assert not {i // 2 for i in member.train} & {i // 2 for i in member.held_out}
        assert len(member.train) == 6 and len(member.held_out) == 1
