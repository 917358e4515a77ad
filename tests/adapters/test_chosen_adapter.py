"""Which adapter a command line means."""

import pytest
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.chosen import ChosenAdapter, chosen_adapter
from nemo_ds2_adapters.adapters.users import adapter_name_for_user
from nemo_ds2_adapters.errors import InputError


def section(**values):
    return OmegaConf.create({"adapter_name": "???", "user_id": "???", **values})


def test_name_person_and_base() -> None:
    assert chosen_adapter(section(adapter_name="user_john")) == ChosenAdapter("user_john")
    person = chosen_adapter(section(user_id="null"))
    assert person == ChosenAdapter(adapter_name_for_user("null"), "null")
    assert (person.shown, person.option) == ("null", "model.adapter.user_id=null")
    assert chosen_adapter(section(adapter_name=None), base_allowed=True).shown == "base"
    assert chosen_adapter(section(user_id="a\nb")).shown == r"'a\nb'"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "set one of model.adapter.adapter_name and model.adapter.user_id, none is set"),
        ({"adapter_name": "a", "user_id": "b"}, "both are set"),
        ({"adapter_name": None, "user_id": "b"}, "both are set"),
        ({"adapter_name": None}, "adapter_name=null is not text; write 'model.adapter.adapter_name=\"null\"'"),
        ({"adapter_name": [1]}, "is not text"),
        ({"user_id": 123}, "int 123 arrived; on the command line write 'model.adapter.user_id=\"123\"'"),
        ({"user_id": None}, "nothing arrived; on the command line write 'model.adapter.user_id=\"null\"'"),
        ({"user_id": ""}, "the user id is empty"),
        ({"user_id": "x" * 201}, "has 201 characters"),
        ({"user_id": "${x}"}, r"""write 'model.adapter.user_id="\${x}"'"""),
    ],
)
def test_anything_else_is_refused(values, message) -> None:
    with pytest.raises(InputError) as caught:
        chosen_adapter(section(**values))
    assert message in str(caught.value) and "\n" not in str(caught.value)
