"""The fingerprint is that of the base: nothing else changes it, and nothing of the base leaves it the same."""

import pytest
import torch
from omegaconf import OmegaConf, open_dict

from nemo_ds2_adapters.adapters import fingerprint as base_part
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.fingerprint import describe_base, difference, fingerprint
from nemo_ds2_adapters.adapters.lifecycle import copy_adapter, delete_adapter


def changed_weight(model) -> None:
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1)


def changed_data(model) -> None:
    next(model.decoder.parameters()).data.mul_(2)  # leaves the version counter alone


def replaced_weight(model) -> None:
    module = next(m for m in model.decoder.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv1d))
    module.weight = torch.nn.Parameter(module.weight + 1)


def changed_buffer(model) -> None:
    model.preprocessor.featurizer.window.zero_()


def changed_preprocessor(model) -> None:
    model.cfg.preprocessor.window_size = 0.03


def changed_vocabulary(model) -> None:
    model.decoder.vocabulary[1] = "ä"


CHANGES = [changed_weight, changed_data, replaced_weight, changed_buffer, changed_preprocessor, changed_vocabulary]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_base_changes_it(base, change) -> None:
    before = fingerprint(base)
    change(base)
    assert fingerprint(base) != before


def test_adapters_do_not_change_it(base, linear, train, outputs) -> None:
    before = fingerprint(base)
    add_adapter(base, "a", linear)
    train(base, "a")
    copy_adapter(base, "a", "b")
    assert fingerprint(base) == before
    base.train()
    base.freeze()
    base.unfreeze_enabled_adapters()
    optimizer = torch.optim.SGD([p for p in base.parameters() if p.requires_grad], lr=0.1)
    base(processed_signal=torch.randn(2, 16, 40), processed_signal_length=torch.tensor([40, 31]))[
        0
    ].square().mean().backward()
    optimizer.step()
    assert fingerprint(base) == before
    delete_adapter(base, "a")
    assert fingerprint(base) == before


def test_what_does_not_change_results_does_not_change_it(base) -> None:
    before = fingerprint(base)
    base.cfg.preprocessor.dither = 0.5
    with open_dict(base.cfg):
        base.cfg.preprocessor.pad_to = 16
        base.cfg.optim = {"name": "sgd"}
    base.train()
    assert fingerprint(base) == before


def test_same_after_restore_and_class_swap(make_base, linear, tmp_path) -> None:
    plain = make_base("deepspeech2", _target_="nemo_ds2_adapters.modules.DeepSpeech2Encoder")
    before, description = fingerprint(plain), describe_base(plain)
    plain.save_to(str(tmp_path / "base.nemo"))
    plain.replace_adapter_compatible_modules()
    assert fingerprint(plain) == before
    add_adapter(plain, "a", linear)
    plain.save_to(str(tmp_path / "adapted.nemo"))
    for path in ("base.nemo", "adapted.nemo"):
        restored = type(plain).restore_from(str(tmp_path / path))
        assert fingerprint(restored) == before
        assert describe_base(restored) == description


def test_known_value() -> None:
    """Files and stores hold fingerprints: the way of computing them must not change."""
    model = torch.nn.Module()
    model.cfg = OmegaConf.create({"preprocessor": {"features": 16, "dither": 0.1}})
    model.decoder = torch.nn.BatchNorm1d(2)
    model.decoder.vocabulary = ["a", "가"]
    assert fingerprint(model) == "2d38d48160345005523748b71547be3c53ec78528ef83b42bcc2996b5b01f8ec"


def test_hashed_once(base, linear, monkeypatch) -> None:
    calls = []
    real = base_part._hash
    monkeypatch.setattr(base_part, "_hash", lambda model: calls.append(model) or real(model))
    for name in ("a", "b"):
        fingerprint(base)
        add_adapter(base, name, linear)
    base.to("cpu")
    fingerprint(base)
    assert len(calls) == 1


def test_difference_names_what_differs(make_base) -> None:
    one, two = describe_base(make_base()), describe_base(make_base(n_layers=1))
    two["vocabulary"] = two["vocabulary"][:-1]
    assert difference(one, one) == []
    assert difference(one, two) == [
        "encoder.n_layers: 2 in the file, 1 in the model",
        f"parameters: {one['parameters']} in the file, {two['parameters']} in the model",
        "vocabulary: 28 entries in the file, 27 entries in the model",
    ]
    assert difference({}, {"encoder": {"d_model": 4}}) == ["encoder.d_model: nothing in the file, 4 in the model"]
    assert len(difference({"x": "y" * 1000}, {})[0]) < 150


def test_description_is_plain(base) -> None:
    assert OmegaConf.to_container(OmegaConf.create(describe_base(base))) == describe_base(base)


@pytest.mark.gpu
def test_same_on_gpu(base) -> None:
    before = fingerprint(base)
    assert fingerprint(base.cuda()) == before
