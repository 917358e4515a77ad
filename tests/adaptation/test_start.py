"""Starting one person's adapter from another one."""

import pytest
import torch
from omegaconf import OmegaConf

from nemo_ds2_adapters.adaptation.warm_start import start_from
from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import adapter_parts, module_prefix
from nemo_ds2_adapters.adapters.lifecycle import list_adapters
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.file import save_adapter
from nemo_ds2_adapters.modules import MLPAdapterConfig, MLPHeadAdapterConfig
from nemo_ds2_adapters.store.store import AdapterStore

CONFIG = MLPHeadAdapterConfig(hidden_dims=[5])


def section(source, store=None, module=None):
    return OmegaConf.create({"init_from": source, "init_from_store": store, "adapter_module_name": module})


@pytest.fixture
def adapted(model, disturb):
    add_adapter(model, "decoder:mary", CONFIG)
    disturb(model, "mary")
    return model


@pytest.mark.parametrize("kind", ["model", "file", "store"])
def test_copy(adapted, make_model, tmp_path, kind) -> None:
    model, source, store = adapted, "mary", None
    if kind == "file":
        model, source = make_model(), str(tmp_path / "mary.pt")
        save_adapter(adapted, "mary", source)
    elif kind == "store":
        model, source, store = make_model(), "mary@example.com", str(tmp_path / "store")
        AdapterStore(store).put(source, adapted, "mary")
    start_from(model, "john", section(source, store, "decoder"))
    assert "john" in list_adapters(model) and module_prefix(model, "john") == "decoder"
    ((_, copy),), ((_, original),) = adapter_parts(model, "john"), adapter_parts(adapted, "mary")
    assert copy is not original
    assert all(torch.equal(value, original.state_dict()[key]) for key, value in copy.state_dict().items())


def test_what_cannot_be_started_from(adapted, tmp_path) -> None:
    add_adapter(adapted, "anna", MLPAdapterConfig(hidden_dims=[5]))
    (tmp_path / "text.pt").write_text("no adapter")
    for cfg, error, message in [
        (
            section("mari"),
            InputError,
            "init_from=mari: neither an adapter of the model, which has mary, anna, nor a file",
        ),
        (section(3), InputError, "init_from=3 is not text"),
        (section(None, "somewhere"), InputError, "init_from=None is not text"),
        (section("mary", module="encoder"), InputError, "encoder, but model.adapter.init_from=mary sits in decoder"),
        (section("mary", str(tmp_path / "nowhere")), InputError, "nowhere"),
        (section(str(tmp_path / "text.pt")), AdapterFileError, "text.pt"),
    ]:
        with pytest.raises(error, match=message):
            start_from(adapted, "john", cfg)
        assert list_adapters(adapted) == ["mary", "anna"]
