"""From any text to an adapter name, and how to say that text on a Hydra command line."""

import hashlib
import shlex

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.names import illegal_reason
from nemo_ds2_adapters.adapters.users import adapter_name_for_user, check_user_id, hydra_override, user_hash
from nemo_ds2_adapters.errors import UserIdError

IDS = ["john.doe@example.com", "홍길동", "a/b:c+d", "..", "123", "null", " ", "A", "a", "e\u0301", "\u00e9", "x" * 200]
TRICKY = st.text(alphabet=st.sampled_from(list("\\\"'${}a :,[](=홍\n")), min_size=1, max_size=8)


def test_mapping_is_fixed_for_ever() -> None:
    """Stored adapters are found by it."""
    digest = hashlib.sha256(b"john.doe@example.com").hexdigest()
    assert adapter_name_for_user("john.doe@example.com") == f"user_{digest[:40]}"
    assert user_hash("홍길동") == hashlib.sha256("홍길동".encode()).hexdigest()[:40]


def test_different_ids_have_different_names() -> None:
    assert len({adapter_name_for_user(user_id) for user_id in IDS}) == len(IDS)


@given(st.text(min_size=1, max_size=200))
def test_any_text_becomes_a_legal_name(user_id: str) -> None:
    assert illegal_reason(adapter_name_for_user(user_id)) is None


@pytest.mark.parametrize(("value", "shown"), [(123, '"123"'), (None, '"null"'), (1.5, '"1.5"'), (True, '"True"')])
def test_what_is_not_text_is_refused_and_the_quoting_shown(value: object, shown: str) -> None:
    with pytest.raises(UserIdError) as caught:
        check_user_id(value)
    assert str(caught.value).endswith(f"on the command line write 'model.adapter.user_id={shown}'")


@pytest.mark.parametrize("value", ["", "x" * 201, "\ud800"])
def test_bad_text_is_refused(value: str) -> None:
    with pytest.raises(UserIdError):
        adapter_name_for_user(value)


def arrived(text: str) -> object:
    """What Hydra makes of the override that we propose."""
    (argument,) = shlex.split(hydra_override("user_id", text))
    cfg = OmegaConf.create({"user_id": None})
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides([argument]), cfg)
    return cfg.user_id


@pytest.mark.parametrize("user_id", IDS)
def test_proposed_quoting_works(user_id: str) -> None:
    assert arrived(user_id) == user_id


@given(TRICKY)
def test_proposed_quoting_works_for_anything(user_id: str) -> None:
    assert arrived(user_id) == user_id
