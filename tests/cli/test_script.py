"""Command lines, config keys and errors of the scripts."""

import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_ds2_adapters.cli.script import check_keys, one_line_errors, open_overrides, quiet
from nemo_ds2_adapters.errors import InputError

CONFIG = Path(__file__).parents[2] / "conf" / "asr_adapters" / "asr_adaptation.yaml"


@pytest.fixture
def cfg():
    return OmegaConf.load(CONFIG)


def test_shipped_config_is_known(cfg) -> None:
    check_keys(cfg, CONFIG)


def test_unknown_keys_are_named_together_with_the_nearest(cfg) -> None:
    cfg.model.adapter.adapter_nam = "john"
    cfg.model.adaptor = {"mlp": 1}
    with pytest.raises(InputError) as error:
        check_keys(cfg, CONFIG)
    assert "unknown config key model.adapter.adapter_nam, the nearest known one is model.adapter.adapter_name" in str(
        error.value
    )
    assert "model.adaptor.mlp" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", ["train_ds", "validation_ds", "test_ds", "optim"])
def test_sections_of_nemo_are_open(cfg, section: str) -> None:
    cfg.model[section].max_duration = 5.0
    cfg.trainer.limit_train_batches = 2
    check_keys(cfg, CONFIG)


def test_missing_mandatory_values_do_not_hide_keys(cfg) -> None:
    assert OmegaConf.is_missing(cfg.model.adapter, "adapter_name")
    cfg.model.adapter.adapter_typo = 1
    with pytest.raises(InputError, match="model.adapter.adapter_typo"):
        check_keys(cfg, CONFIG)


def test_overrides_may_name_any_key() -> None:
    arguments = ["model.train_ds.x=1", "+a=2", "~b", "hydra.verbose=true", "--config-name=c", "++d=3"]
    assert open_overrides(arguments) == ["++model.train_ds.x=1", *arguments[1:]]


@pytest.mark.parametrize("text", ["홍길동", "é", "a#b", "a=b", "[a", "a'b", "a,b", " a", "a\\,b"])
def test_text_that_would_not_arrive_as_typed(text: str) -> None:
    with pytest.raises(SystemExit) as end:
        open_overrides([f"model.adapter.user_id={text}"])
    quoted = end.value.code.rpartition("; write ")[2]
    assert end.value.code.startswith(f"error: model.adapter.user_id={text} is not taken as it stands")
    assert open_overrides(shlex.split(quoted)) == [f'++model.adapter.user_id="{text}"']


def test_text_that_arrives() -> None:
    for text in ("john.doe@example.com", "a/b:c+d", "..", "null", "123", "a b", '"홍길동"', "'x'"):
        assert open_overrides([f"model.adapter.user_id={text}"]) == [f"++model.adapter.user_id={text}"]
    assert open_overrides(["model.train_ds.labels=[a,b", "output_filename=홍"])  # for Hydra to speak about
    sweep = ["-m", "model.adapter.adapter_name=user_a,user_b"]
    assert open_overrides(sweep) == ["-m", f"++{sweep[1]}"]
    with pytest.raises(SystemExit, match="cannot be said: it stands for a missing value"):
        open_overrides(['model.adapter.user_id="???"'])


def test_wrong_input_ends_in_one_line() -> None:
    @one_line_errors
    def task(cfg) -> None:
        raise InputError("model.train_ds.manifest_filepath is not set")

    with pytest.raises(SystemExit) as end:
        task(OmegaConf.create())
    assert end.value.code == "error: model.train_ds.manifest_filepath is not set"


def test_defects_keep_their_traceback() -> None:
    @one_line_errors
    def task(cfg) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        task(OmegaConf.create())


def test_unknown_log_level() -> None:
    with pytest.raises(InputError, match="log_level=LOUD: expected DEBUG"):
        quiet("LOUD")
