"""What a training starts from: a new adapter, another one, or the one that is to be trained on."""

import pytest
import torch

from nemo_ds2_adapters.adaptation.fit_settings import StartSettings
from nemo_ds2_adapters.adaptation.start import new_adapter, starting_adapter
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.file import save_adapter
from nemo_ds2_adapters.modules import MLPAdapterConfig, MLPHeadAdapterConfig
from nemo_ds2_adapters.store.store import AdapterStore

CONFIG = MLPHeadAdapterConfig(hidden_dims=[5])
NEW = {"_target_": "nemo_ds2_adapters.modules.MLPAdapter", "hidden_dims": [5]}


def copy_of(source, store=None, module=None):
    return StartSettings(NEW, module, source, store)


@pytest.fixture
def adapted(model, disturb):
    add_adapter(model, "decoder:mary", CONFIG)
    disturb(model, "mary")
    return model


@pytest.mark.parametrize("kind", ["model", "model and module", "file", "store"])
def test_copy(adapted, make_model, snapshot, tmp_path, kind) -> None:
    model, source, store = adapted, "decoder:mary" if kind == "model and module" else "mary", None
    if kind == "file":
        model, source = make_model(), str(tmp_path / "mary.pt")
        save_adapter(adapted, "mary", source)
    elif kind == "store":
        model, source, store = make_model(), "mary@example.com", str(tmp_path / "store")
        AdapterStore(store).put(source, adapted, "mary")
    before = snapshot(model)
    copy = starting_adapter(model, "john", copy_of(source, store, "decoder"), seed=0)
    assert snapshot(model) == before
    original = attached_adapter(adapted, "mary")
    assert (copy.name, copy.module, copy.architecture) == ("john", "decoder", original.architecture)
    for one, other in zip(copy.weights.values(), original.weights.values()):
        assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("name", ["mary", "decoder:mary"])
def test_the_one_that_is_to_be_trained_on(adapted, name) -> None:
    start = starting_adapter(adapted, name, StartSettings(NEW, continue_existing=True), seed=0)
    assert start == attached_adapter(adapted, "mary")
    with pytest.raises(InputError, match="no adapter"):
        starting_adapter(adapted, "encoder:mary", StartSettings(NEW, continue_existing=True), seed=0)


def test_a_new_one_depends_on_its_seed_and_leaves_no_trace(model) -> None:
    state = torch.get_rng_state()
    one, same, other = (new_adapter(model, "encoder:john", NEW, seed) for seed in (1, 1, 2))
    assert one == same != other and (one.name, one.module) == ("john", "encoder")
    assert torch.equal(torch.get_rng_state(), state)
    assert list_adapters(model) == [] and not any("john" in name for name, _ in model.named_parameters())


def test_what_cannot_be_started_from(adapted, tmp_path) -> None:
    add_adapter(adapted, "anna", MLPAdapterConfig(hidden_dims=[5]))
    (tmp_path / "text.pt").write_text("no adapter")
    for settings, error, message in [
        (
            copy_of("mari"),
            InputError,
            "init_from=mari: neither an adapter of the model, which has mary, anna, nor a file",
        ),
        (copy_of(3), InputError, "init_from=3 is not text"),
        (copy_of(None, "somewhere"), InputError, "init_from=None is not text"),
        (copy_of("mary", module="encoder"), InputError, "encoder, but model.adapter.init_from=mary sits in decoder"),
        (copy_of("mary", str(tmp_path / "nowhere")), InputError, "nowhere"),
        (copy_of(str(tmp_path / "text.pt")), AdapterFileError, "text.pt"),
        (StartSettings(NEW, "decoder", "mary", continue_existing=True), InputError, "both are set"),
    ]:
        with pytest.raises(error, match=message):
            starting_adapter(adapted, "john", settings, seed=0)
        assert list_adapters(adapted) == ["mary", "anna"]
