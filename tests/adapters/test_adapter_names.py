"""Which names are legal: exactly those that NeMo can add, save, restore and reload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nemo.core import ModelPT
from omegaconf import OmegaConf
from torch.nn import ModuleDict

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.names import (
    check_adapter_name,
    check_reloadable,
    illegal_reason,
    nearest_legal_name,
    split_name,
)
from nemo_ds2_adapters.errors import AdapterNameError
from nemo_ds2_adapters.formats.file import save_adapter

LEGAL = ["user_john", "john", "김", "a b", "a/b", "null", "true", "1e5", "0x1", "-", "~", "user_0"]
ILLEGAL = ["", " ", "a.b", "a+b", "a:b", "0", "12", "e", "odule", "module", "global_cfg", "keys", "pop", "training"]
ILLEGAL += ["forward", "__cfg__", "_target_", "a\nb", "a\x00b", "x" * 256, "\ud800"]


def test_legal_names_go_through_nemo_and_back(base: ModelPT, make_base, kind, linear, tmp_path) -> None:
    for name in LEGAL:
        add_adapter(base, name, linear)
    save_adapter(base, None, tmp_path / "adapters.pt")
    other = make_base(kind)
    other.load_adapters(str(tmp_path / "adapters.pt"))
    assert list(other.state_dict()) == list(base.state_dict())
    restored = type(base)(cfg=OmegaConf.create(OmegaConf.to_yaml(base.cfg)))
    restored.load_state_dict(base.state_dict())
    assert list_adapters(restored) == LEGAL


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_name_is_refused_and_a_legal_one_proposed(name: str) -> None:
    with pytest.raises(AdapterNameError) as caught:
        check_adapter_name(name)
    proposal = str(caught.value).rpartition("such as ")[2].strip("'")
    assert illegal_reason(proposal) is None


@given(
    st.text(min_size=1, max_size=8) | st.text(st.sampled_from("0123eExX_-oOnNyYtTfF~=<>|!&*?#%`'\"{}[], "), min_size=1)
)
def test_legal_names_survive_the_yaml_of_a_model(name: str) -> None:
    if illegal_reason(name) is None:
        assert list(OmegaConf.create(OmegaConf.to_yaml({name: {"enabled": True}}))) == [name]


@pytest.mark.parametrize("name", [None, 12, ["a"]])
def test_what_is_not_text_is_refused(name: object) -> None:
    with pytest.raises(AdapterNameError, match="not text"):
        split_name(name)  # type: ignore[arg-type]
    with pytest.raises(AdapterNameError, match="not text"):
        check_adapter_name(name)  # type: ignore[arg-type]


def test_existing_name_is_refused_and_a_free_one_proposed() -> None:
    with pytest.raises(AdapterNameError, match=r"exists already.*'user_john_3'"):
        check_adapter_name("user_john", ["user_john", "user_john_2"])


def test_name_that_ends_a_weight_name_is_refused() -> None:
    with pytest.raises(AdapterNameError, match="linear_q"):
        check_reloadable("q", ["linear_q.weight"])
    check_reloadable("weight", ["linear_q.weight"])  # what comes last has no dot behind it
    check_reloadable("linear", ["linear_q.weight"])


def test_split_name() -> None:
    assert split_name("encoder+decoder:user_john") == ("encoder+decoder", "user_john")
    assert split_name("user_john") == ("", "user_john")


def test_nearest_legal_name() -> None:
    assert nearest_legal_name("john.doe@example.com") == "john_doe_example_com"
    assert nearest_legal_name("0") == "user_0"
    assert nearest_legal_name("") == "adapter"
    assert nearest_legal_name("keys", ["user_keys"]) == "user_keys_2"


def test_all_attributes_of_torchs_container_are_known() -> None:
    names = [name for name in dir(ModuleDict()) if not name.startswith("___")]  # those are torch.compile's marks
    assert [name for name in names if illegal_reason(name) is None] == []
