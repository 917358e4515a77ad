"""Command lines, config keys and errors of the scripts."""

import importlib.util
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.cli.scripts.script import check_config, one_line_errors, open_overrides
from nemo_ds2_adapters.configs import CONFIGS, shipped_config
from nemo_ds2_adapters.errors import InputError

CONFIG = shipped_config("asr_adapters/asr_adaptation")


WITH_OPTUNA = importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None


@pytest.fixture
def cfg():
    return CONFIG.copy()


def test_shipped_config_is_known(cfg) -> None:
    check_config(cfg, CONFIG)


def test_unknown_keys_are_named_together_with_the_nearest(cfg) -> None:
    cfg.model.adapter.adapter_nam = "john"
    cfg.model.adaptor = {"mlp": 1}
    with pytest.raises(InputError) as error:
        check_config(cfg, CONFIG)
    assert "unknown config key model.adapter.adapter_nam, the nearest known one is model.adapter.adapter_name" in str(
        error.value
    )
    assert "model.adaptor.mlp" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", ["train_ds", "validation_ds", "test_ds", "optim"])
def test_sections_of_nemo_are_open(cfg, section: str) -> None:
    OmegaConf.update(cfg, f"model.{section}.max_duration", 5.0)
    cfg.trainer.limit_train_batches = 2
    check_config(cfg, CONFIG)


def test_values_of_another_type_are_named_together(cfg) -> None:
    cfg.seed, cfg.model.adapter.cache_memory, cfg.model.adapter.average_epochs = 1.5, "abc", 1
    cfg.model.adapter.folds, cfg.model.adapter.patience = None, None
    cfg.trainer = 3
    with pytest.raises(InputError) as error:
        check_config(cfg, CONFIG)
    assert set(str(error.value).split("; ")) == {
        "seed=1.5: expected a whole number",
        "model.adapter.cache_memory=abc: expected a number",
        "model.adapter.average_epochs=1: expected true or false",
        "model.adapter.folds=None: expected a whole number",
        "trainer=3: expected a section with keys of its own",
    }


def test_what_was_taken_away_is_missed(cfg) -> None:
    del cfg.model.optim.sched  # that section is NeMo's
    check_config(cfg, CONFIG)
    del cfg.model.optim, cfg.seed
    with pytest.raises(InputError, match=r"^model.optim is missing; seed is missing$"):
        check_config(cfg, CONFIG)
    check_config(cfg, CONFIG, OmegaConf.create())  # not in all of them


def test_a_section_where_the_shipped_config_has_null(cfg) -> None:
    cfg.model.spec_augment = {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation", "freq_masks": 1}
    check_config(cfg, CONFIG)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_shipped_config_is_what_hydra_composes(path: Path) -> None:
    with initialize_config_dir(str(path.parent), version_base=None):
        if path.stem.endswith("_hp") and not WITH_OPTUNA:
            pytest.skip("cannot be composed without the extra [search]")
        assert compose(path.stem) == shipped_config(f"{path.parent.name}/{path.stem}")


def test_missing_mandatory_values_do_not_hide_keys(cfg) -> None:
    assert OmegaConf.is_missing(cfg.model.adapter, "adapter_name")
    cfg.model.adapter.adapter_typo = 1
    with pytest.raises(InputError, match="model.adapter.adapter_typo"):
        check_config(cfg, CONFIG)


def test_overrides_may_name_any_key() -> None:
    arguments = ["model.train_ds.x=1", "+a=2", "~b", "hydra.verbose=true", "--config-name=c", "++d=3", "seed=1"]
    assert open_overrides(arguments, CONFIG) == ["++model.train_ds.x=1", *arguments[1:]]
    assert open_overrides(["seed=1"], CONFIG, OmegaConf.create()) == ["++seed=1"]  # not in all of them
    assert open_overrides(["model.optim.lr=1,2"], CONFIG) == ["model.optim.lr=1,2"]  # a sweep goes by the key as it is


@pytest.mark.parametrize("text", ["홍길동", "é", "a#b", "a=b", "[a", "a'b", "a,b", " a", "a\\,b"])
def test_text_that_would_not_arrive_as_typed(text: str) -> None:
    with pytest.raises(SystemExit) as end:
        open_overrides([f"model.adapter.user_id={text}"], CONFIG)
    quoted = end.value.code.rpartition("; write ")[2]
    assert end.value.code.startswith(f"error: model.adapter.user_id={text} is not taken as it stands")
    assert open_overrides(shlex.split(quoted), CONFIG) == [f'model.adapter.user_id="{text}"']


@pytest.mark.parametrize("argument", ["model.train_ds.labels=[a,b", "output_filename=홍", "+a=}", "~b={"])
def test_what_hydra_cannot_parse(argument: str) -> None:
    with pytest.raises(SystemExit) as end:
        open_overrides([argument], CONFIG)
    assert end.value.code.startswith(f"error: {argument.lstrip('+')} is not taken as it stands; write ")


def test_text_that_arrives() -> None:
    for text in ("john.doe@example.com", "a/b:c+d", "..", "null", "123", "a b", '"홍길동"', "'x'"):
        assert open_overrides([f"model.adapter.user_id={text}"], CONFIG) == [f"model.adapter.user_id={text}"]
    assert open_overrides(["seed=1", 'output_filename="홍"'], CONFIG) == ["seed=1", '++output_filename="홍"']
    sweep = ["-m", "model.adapter.adapter_name=user_a,user_b"]
    assert open_overrides(sweep, CONFIG) == sweep
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
