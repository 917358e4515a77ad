"""Every wrong input that a person may give a command ends in one line that names it, before anything is written."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_ds2_adapters.adaptation.voice_prior.prior import Experience, Step, VoicePrior, save_prior
from nemo_ds2_adapters.cli import main
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.formats.reading import read_adapters
from nemo_ds2_adapters.store.store import AdapterStore

RELEASED = Path(__file__).parents[1] / "data" / "v0_1"
MODEL, NAME, USER = "model.nemo_model", "model.adapter.adapter_name", "model.adapter.user_id"
TRAIN_DATA, TEST_DATA = "model.train_ds.manifest_filepath", "model.test_ds.manifest_filepath"
FILE_NAME, KEY = "model.adapter.adapter_state_dict_name", "model.adapter.adapter_key"
UP = "../../../../"  # from nemo_experiments/ASR-Adapter/<time>/checkpoints
EARLIER = {"exp_manager.exp_dir": ".", "exp_manager.name": "exp", "exp_manager.version": "v"}
PRIOR = "model.adapter.prior"
VALIDATION_DATA = "model.validation_ds.manifest_filepath"

# What each command is given where nothing is wrong.
RIGHT: dict[str, dict[str, str]] = {
    "train": {
        MODEL: "base.nemo",
        NAME: "user_john",
        TRAIN_DATA: "data.json",
        VALIDATION_DATA: "data.json",
    },
    "adapt-speakers": {MODEL: "base.nemo", TRAIN_DATA: "data.json", "adapter_store": "new"},
    "fit-prior": {MODEL: "base.nemo", TRAIN_DATA: "data.json"},
    "eval": {MODEL: "base.nemo", NAME: "null", TEST_DATA: "data.json"},
    "transcribe": {"model_path": "base.nemo", "dataset_manifest": "data.json", "output_filename": "out.json"},
    "search": {
        "--config-name": "asr_adaptation_grid",
        MODEL: "base.nemo",
        TRAIN_DATA: "data.json",
        VALIDATION_DATA: "data.json",
        "search.base_manifest": "data.json",
    },
    "train-base": {TRAIN_DATA: "data.json", VALIDATION_DATA: "data.json", "trainer.max_epochs": "1"},
}
# What is changed, with a value of None for a key that is left out, and what the line says.
WRONG: list[tuple[str, dict[str, str | None], str]] = [
    # keys and values of any command
    (
        "train",
        {"model.adapter.adapter_nam": "x"},
        "unknown config key model.adapter.adapter_nam, the nearest known one",
    ),
    ("train", {"model.adapter.mlp.hidden_dim": "[1]"}, "the nearest known one is model.adapter.mlp.hidden_dims"),
    (
        "adapt-speakers",
        {"adapter_stor": "x"},
        "unknown config key adapter_stor, the nearest known one is adapter_",
    ),
    ("eval", {"model.adapter.adapter_keys": "x"}, "the nearest known one is model.adapter.adapter_key"),
    ("transcribe", {"adapter_stor": "x"}, "the nearest known one is adapter_store"),
    ("search", {"search.base_manifes": "x"}, "the nearest known one is search.base_manifest"),
    ("train-base", {"model.encoder.n_layer": "1"}, "the nearest known one is model.encoder.n_layers"),
    ("train", {"log_level": "LOUD"}, "log_level=LOUD: expected DEBUG"),
    ("transcribe", {"log_level": "LOUD"}, "log_level=LOUD: expected DEBUG"),
    ("train", {"seed": "1.5"}, "seed=1.5: expected a whole number"),
    ("train", {"trainer": "3"}, "trainer=3 is no section: trainer has keys of its own"),
    ("train", {"~model.optim": None}, "model.optim is missing"),
    ("train", {MODEL: "${foo}"}, "model.nemo_model"),
    ("train", {MODEL: "[a"}, "model.nemo_model=[a is not taken as it stands; write"),
    ("train", {"output": "홍"}, "output=홍 is not taken as it stands; write"),
    ("train", {NAME: "[a"}, f"{NAME}=[a is not taken as it stands; write"),
    ("eval", {NAME: "\x1b[31m"}, r"=\x1b[31m is not taken"),
    # the model
    (
        "train",
        {"model.pretrained_model": "stt_en"},
        "set one of model.nemo_model and model.pretrained_model, both are",
    ),
    ("train", {MODEL: None}, "set one of model.nemo_model and model.pretrained_model, none is set"),
    ("train", {MODEL: "nowhere.nemo"}, "model.nemo_model=nowhere.nemo: no such file"),
    ("train", {MODEL: "data.json"}, "data.json: not a .nemo archive"),
    ("eval", {MODEL: "data.json"}, "data.json: not a .nemo archive"),
    ("adapt-speakers", {MODEL: None}, "set one of model.nemo_model and model.pretrained_model, none"),
    ("transcribe", {"model_path": None}, "set one of model_path and pretrained_name, none is set"),
    ("transcribe", {"model_path": "nowhere.nemo"}, "model_path=nowhere.nemo: no such file"),
    ("transcribe", {"model_path": "data.json"}, "data.json: not a .nemo archive"),
    # which adapter
    ("train", {NAME: None}, f"set one of {NAME} and {USER}, none is set"),
    ("train", {USER: "john"}, f"set one of {NAME} and {USER}, both are set"),
    ("train", {NAME: "123"}, f"{NAME}=123 is not text"),
    ("train", {NAME: "john.doe"}, "john.doe"),
    ("train", {NAME: "module"}, "module"),
    ("train", {"model.adapter.adapter_type": "lora"}, "model.adapter.adapter_type=lora: expected one of mlp, linear"),
    ("train", {"model.adapter.adapter_type": "mlp_head"}, "set model.adapter.adapter_module_name=decoder"),
    ("train", {"model.adapter.adapter_module_name": "joint"}, "joint"),
    ("train", {"model.adapter.mlp.layers": "middle"}, "layers='middle': expected one of first, last, all"),
    ("train", {"model.adapter.mlp.layers": "[7]"}, "expected layer indices from 0 to 1"),
    ("train", {"model.adapter.mlp.hidden_dims": "[]"}, "hidden_dims"),
    ("train", {"model.adapter.continue_existing": "true"}, "the model has no adapter for model.adapter.adapter_name"),
    ("train", {"model.adapter.init_from": "user_mary"}, "neither an adapter of the model, which has none, nor a file"),
    ("train", {"model.adapter.init_from": "7"}, "model.adapter.init_from=7 is not text"),
    ("train", {"model.adapter.init_from_store": "nowhere"}, "model.adapter.init_from=None is not text"),
    ("train", {"model.char_labels.update_labels": "true"}, "model.char_labels.labels is not set"),
    ("eval", {NAME: "user_mary"}, "user_mary"),
    ("eval", {"model.adapter.adapter_key": "speaker"}, f"adapter_key=speaker: leave {NAME} out"),
    ("eval", {"adapter_store": "store"}, "adapter_store=store needs model.adapter.adapter_key"),
    ("eval", {NAME: None, "model.adapter.adapter_key": "person"}, "data.json, line 1: person=None, expected text"),
    ("eval", {NAME: None, "model.adapter.adapter_key": "speaker"}, "the model has no adapter of ann, bob"),
    (
        "eval",
        {NAME: None, "model.adapter.adapter_key": "speaker", "adapter_store": "nowhere"},
        "nowhere: there is no adapter store",
    ),
    ("transcribe", {"adapter_key": "person"}, "no line of the manifest has a field person"),
    ("transcribe", {"adapter_store": "nowhere"}, "nowhere: there is no adapter store"),
    # the data
    ("train", {TRAIN_DATA: None}, f"{TRAIN_DATA} is not set"),
    ("train", {TRAIN_DATA: "nowhere.json"}, f"{TRAIN_DATA}=nowhere.json"),
    ("train", {VALIDATION_DATA: "nowhere.json"}, f"{VALIDATION_DATA}=nowhere.json"),
    ("train", {TRAIN_DATA: "foreign.json"}, "'5' 'Z' 'ü'"),
    ("train", {TRAIN_DATA: "broken.json"}, "broken.json, line 1"),
    ("train", {TRAIN_DATA: "missing.json"}, "gone.wav"),
    ("adapt-speakers", {TRAIN_DATA: None}, f"{TRAIN_DATA} is not set"),
    (
        "adapt-speakers",
        {"model.adapter.prior": "[1]"},
        "prior=[1]: give the path of a voice prior, or off",
    ),
    ("train", {"model.adapter.prior": "data.json"}, "data.json"),
    ("fit-prior", {"from_store": "nowhere"}, "nowhere: there is no adapter store"),
    ("eval", {TEST_DATA: None}, f"{TEST_DATA} is not set"),
    ("eval", {TEST_DATA: "broken.json"}, "broken.json, line 1"),
    ("transcribe", {"audio_dir": "."}, "set one of dataset_manifest and audio_dir, both are set"),
    ("transcribe", {"dataset_manifest": None, "audio_dir": "nowhere"}, "audio_dir=nowhere: no such"),
    ("transcribe", {"dataset_manifest": None, "audio_dir": ".", "audio_type": "xyz"}, "no files that end with .xyz"),
    (
        "transcribe",
        {"dataset_manifest": None, "audio_dir": ".", "adapter_key": "speaker"},
        "adapter_key needs dataset_manifest",
    ),
    ("search", {"search.base_manifest": None}, "search.base_manifest is not set"),
    ("search", {"search.max_base_loss": "0"}, "search.max_base_loss=0: expected points of WER above 0"),
    ("train-base", {TRAIN_DATA: None}, f"{TRAIN_DATA} is not set"),
    # how it is computed
    ("transcribe", {"cuda": "99"}, "cuda=99: there are"),
    ("transcribe", {"cuda": "first"}, "cuda=first: expected a number"),
    ("transcribe", {"batch_size": "0"}, "batch_size=0"),
    ("transcribe", {"batch_size": "many"}, "batch_size=many: expected a whole number"),
    ("transcribe", {"timestamps": "maybe"}, "timestamps=maybe: expected true or false"),
    ("transcribe", {"max_seconds": "long"}, "max_seconds=long: expected a number"),
    ("train", {"model.adapter.cache_memory": "abc"}, "model.adapter.cache_memory=abc: expected a number"),
    ("train", {"model.adapter.kl_weight": "much"}, "model.adapter.kl_weight=much: expected a number"),
    ("train", {VALIDATION_DATA: "null", "model.adapter.folds": "1"}, "model.adapter.folds=1"),
    ("adapt-speakers", {"model.adapter.folds": "1"}, "model.adapter.folds=1"),
    ("train", {"trainer.max_epochs": "0"}, "trainer.max_epochs=0: expected a whole number of at least 1"),
    ("train", {"trainer.max_epochs": "-1"}, "trainer.max_epochs=-1 never ends: set trainer.max_steps"),
    ("train", {"trainer.max_steps": "0"}, "trainer.max_steps=0: expected a whole number of at least 1"),
    ("train", {"model.train_ds.batch_size": "0"}, "model.train_ds.batch_size=0: expected a whole number of at least"),
    ("train", {"model.validation_ds.batch_size": "x"}, "model.validation_ds.batch_size=x: expected a whole number"),
    ("train", {"model.optim.lr": "abc"}, "model.optim.lr=abc: expected a number of at least 0"),
    ("train", {"model.optim.name": "foo"}, "model.optim.name=foo: expected one of adadelta, adafactor,"),
    ("train", {"model.optim.betas": "[7,7]"}, "model.optim: Invalid beta parameter"),
    ("train", {"model.optim.sched.name": "foo"}, "model.optim.sched.name=foo: expected one of"),
    ("train", {"trainer.accelerator": "gpu"}, "trainer: No supported gpu backend found"),
    ("train", {"trainer.accelerator": "abacus"}, "trainer: You selected an invalid accelerator name"),
    ("train", {"trainer.limit_val_batches": "0"}, "trainer.limit_val_batches=0: leave out model.validation_ds"),
    ("train", {"trainer.limit_train_batches": "0"}, "trainer.limit_train_batches=0: there would be nothing"),
    ("train", {"trainer.fast_dev_run": "true"}, "trainer.fast_dev_run keeps nothing"),
    ("train", {"trainer.epochs": "3"}, "trainer: Trainer.__init__() got an unexpected keyword argument 'epochs'"),
    ("train", {"model.train_ds.max_duration": "0.01"}, "min_duration and max_duration leave none of"),
    ("train", {"model.train_ds.max_duration": "long"}, "model.train_ds.max_duration=long: expected a number"),
    (
        "train",
        {"model.train_ds.drop_last": "true", "model.train_ds.batch_size": "999"},
        "model.train_ds.drop_last=true leaves none",
    ),
    ("train", {"seed": "-1"}, "seed=-1: expected a whole number from 0"),
    ("train", {"model.adapter.cache": "sometimes"}, "model.adapter.cache=sometimes: expected one of auto"),
    ("train", {"model.adapter.cache_memory": "-1"}, "cache_memory=-1: expected a number of at least 0"),
    ("train", {"model.adapter.cache_dir": "data.json/x"}, "data.json/x: no folder for activations can be made there"),
    (
        "train",
        {"exp_manager.checkpoint_callback_params.monitor": "train_loss"},
        "monitor=train_loss, mode=min: epochs are compared by val_wer or val_loss",
    ),
    (
        "train",
        {"exp_manager.checkpoint_callback_params.always_save_nemo": "true"},
        "the .nemo is written once, at the end",
    ),
    ("train", {"exp_manager.foo": "1"}, "exp_manager: "),
    ("train", {"exp_manager.exp_dir": "data.json/x"}, "exp_manager.exp_dir=data.json/x: cannot be written"),
    ("train", {VALIDATION_DATA: "null", "trainer.max_steps": "3"}, "trainer.max_steps=3 does not go with cross-"),
    ("train", {VALIDATION_DATA: "null", "trainer.max_time": "00:00:01:00"}, "trainer.max_time=00:00:01:00 does not"),
    ("adapt-speakers", {"model.optim.lr": "abc"}, "model.optim.lr=abc: expected a number"),
    ("adapt-speakers", {"trainer.max_epochs": "-1"}, "trainer.max_epochs=-1: expected a whole number of at least 1"),
    ("adapt-speakers", {"model.adapter.cache_dir": "x"}, "set model.adapter.keep_activations=true instead"),
    ("adapt-speakers", {"model.adapter.users_at_once": "0"}, "model.adapter.users_at_once=0: expected a whole number"),
    ("train", {"trainer.accelerator": "foo"}, "trainer"),
    ("train", {"trainer.precision": "foo"}, "trainer"),
    ("train", {"trainer.devices": "0"}, "trainer"),
    ("train", {"trainer.no_such_key": "1"}, "no_such_key"),
    ("train", {"model.train_ds.batch_size": "abc"}, "model.train_ds.batch_size=abc"),
    ("train", {"model.validation_ds.batch_size": "0"}, "model.validation_ds.batch_size=0"),
    ("train", {"model.train_ds.max_duration": "0.001"}, "max_duration leave none of 4 utterances"),
    ("train", {"model.adapter.mlp.dropout": "2.0"}, "dropout"),
    ("train", {"model.adapter.mlp.activation": "foo"}, "foo"),
    ("train", {"model.adapter.cache_precision": "8"}, "model.adapter.cache_precision=8"),
    ("adapt-speakers", {"trainer.max_epochs": "0"}, "trainer.max_epochs=0"),
    ("adapt-speakers", {"model.train_ds.batch_size": "0"}, "model.train_ds.batch_size=0"),
    ("adapt-speakers", {"trainer.accelerator": "gpu"}, "No supported gpu backend"),
    ("adapt-speakers", {"cluster": "spark"}, "cluster=spark is not known, expected one of local, ray"),
    ("adapt-speakers", {"cluster.workers": "2"}, "cluster.workers=2 is for a cluster: add cluster=ray"),
    ("fit-prior", {"cluster": "ray", "from_store": "store"}, "cluster=ray does not go with from_store"),
    (
        "adapt-speakers",
        {"cluster": "ray", "cluster.address": "127.0.0.1:9"},
        "cluster.address=127.0.0.1:9: no cluster can be reached there",
    ),
    ("adapt-speakers", {"model.adapter.patience": "0"}, "model.adapter.patience=0"),
    ("eval", {"model.test_ds.batch_size": "0"}, "batch_size=0"),
    ("eval", {"trainer.accelerator": "gpu"}, "trainer: No supported gpu backend found"),
    ("eval", {"trainer.precision": "foo"}, "trainer: Precision 'foo' is invalid"),
    ("transcribe", {"max_seconds": "0"}, "max_seconds=0"),
    ("transcribe", {"overlap_seconds": "50"}, "overlap_seconds=50"),
    ("train-base", {"trainer.accelerator": "gpu"}, "trainer"),
    ("train-base", {"trainer.max_epochs": "0"}, "trainer.max_epochs=0"),
    ("train-base", {"model.optim.name": "foo"}, "model.optim.name=foo"),
    ("train-base", {"model.encoder.rnn_type": "foo"}, "foo"),
    ("train-base", {"seed": "-1"}, "seed=-1"),
    # the voice prior
    ("fit-prior", {}, "0 speakers with 3 utterances or more are too few for a voice prior, at least 6 are needed"),
    ("fit-prior", {"prior.epoch": "1"}, "the nearest known one is prior.epochs"),
    ("fit-prior", {"prior.person_epochs": "[1]"}, "unknown config key prior.person_epochs"),
    ("fit-prior", {MODEL: None}, "set one of model.nemo_model and model.pretrained_model, none"),
    ("fit-prior", {MODEL: "data.json"}, "data.json: not a .nemo archive"),
    ("fit-prior", {TRAIN_DATA: None}, f"{TRAIN_DATA} is not set"),
    ("fit-prior", {TRAIN_DATA: "nowhere.json"}, f"{TRAIN_DATA}=nowhere.json"),
    ("fit-prior", {TRAIN_DATA: "broken.json"}, "broken.json, line 1"),
    (
        "fit-prior",
        {"model.adapter.speaker_key": "person"},
        "data.json, line 1: no field 'person'; set model.adapter.s",
    ),
    ("fit-prior", {"model.adapter.speaker_key": "null"}, "data.json, line 1: no field"),
    (
        "fit-prior",
        {"model.adapter.cache_memory": "-1"},
        "cache_memory=-1: expected a number of at least 0",
    ),
    ("fit-prior", {"model.adapter.cache_memory": "much"}, "model.adapter.cache_memory=much: expected a number"),
    ("fit-prior", {"model.adapter.adapter_type": "lora"}, "model.adapter.adapter_type=lora: expected one of mlp"),
    ("fit-prior", {"model.adapter.mlp.layers": "middle"}, "layers='middle': expected one of first, last, all"),
    ("fit-prior", {"model.adapter.mlp.hidden_dims": "[-1]"}, "hidden_dims"),
    ("fit-prior", {"seed": "-1"}, "seed=-1: expected a whole number from 0"),
    ("fit-prior", {"seed": "abc"}, "seed=abc: expected a whole number"),
    ("fit-prior", {"prior": "null"}, "prior"),
    ("fit-prior", {"prior.epochs": "0"}, "prior.epochs=0: expected a whole number of at least 1"),
    ("fit-prior", {"prior.epochs": "1.5"}, "prior.epochs=1.5: expected a whole number"),
    ("fit-prior", {"prior.batch_size": "0"}, "prior.batch_size=0: expected a whole number of at least 1"),
    ("fit-prior", {"prior.folds": "1"}, "prior.folds=1: expected a whole number of at least 2"),
    ("fit-prior", {"prior.folds": "null"}, "prior.folds=None: expected a whole number"),
    ("fit-prior", {"prior.lr": "-1"}, "prior.lr=-1: expected a number of at least 0"),
    ("fit-prior", {"prior.lr": "nan"}, "prior.lr=nan: expected a number of at least 0"),
    ("fit-prior", {"prior.lr": "fast"}, "prior.lr=fast: expected a number"),
    ("fit-prior", {"prior.person_lr": "inf"}, "prior.person_lr=inf: expected a number of at least 0"),
    ("fit-prior", {"prior.person_batch_size": "0"}, "prior.person_batch_size=0: expected a whole number of at least"),
    ("fit-prior", {"trainer.accelerator": "gpu"}, "No supported gpu backend"),
    ("fit-prior", {"trainer.precision": "16-mixed"}, "16-mixed: expected 32-true or 64-true"),
    ("fit-prior", {"trainer.devices": "0"}, "trainer"),
    ("fit-prior", {"output": "null"}, "output=None: give the path of the file to write"),
    ("fit-prior", {"output": "7"}, "output=7: give the path of the file to write"),
    ("fit-prior", {"output": "''"}, "output=: give the path of the file to write"),
    ("fit-prior", {"output": "data.json"}, "data.json would overwrite model.train_ds.manifest_filepath=data.json"),
    ("fit-prior", {"output": "base.nemo"}, "base.nemo would overwrite model.nemo_model"),
    ("fit-prior", {"output": "data.json/prior.pt"}, "prior.pt: cannot be written"),
    ("fit-prior", {"output": "store"}, "output=store: is a folder"),
    ("train", {PRIOR: "nowhere.pt"}, "nowhere.pt: "),
    ("train", {PRIOR: "data.json"}, "data.json: is not a file that torch.save wrote"),
    ("train", {PRIOR: "base.nemo"}, "base.nemo: is not an adapter file"),
    ("train", {PRIOR: "store"}, "store: "),
    ("train", {PRIOR: "0"}, f"{PRIOR}=0: give the path of a voice prior, or off"),
    ("train", {PRIOR: "''"}, f"{PRIOR}=: give the path of a voice prior, or off"),
    ("train", {PRIOR: "adapter.pt"}, "adapter.pt: holds an adapter, but no voice prior: make one with ds2-adapters"),
    ("adapt-speakers", {PRIOR: "nowhere.pt"}, "nowhere.pt: "),
    ("adapt-speakers", {PRIOR: "7"}, f"{PRIOR}=7: give the path of a voice prior, or off"),
    ("adapt-speakers", {PRIOR: "[a.pt]"}, f"{PRIOR}=['a.pt']: give the path of a voice prior"),
    ("adapt-speakers", {PRIOR: "adapter.pt"}, "adapter.pt: holds an adapter, but no voice prior"),
    ("adapt-speakers", {PRIOR: "foreign.pt"}, "the voice prior was made for another base model"),
    ("train", {PRIOR: "foreign.pt"}, "the voice prior was made for another base model"),
    ("train-base", {"init_from_nemo_model": "base.nemo"}, "init_from_nemo_model=base.nemo: no model of this shape"),
    ("train-base", {"init_from_nemo_model": "data.json"}, "init_from_nemo_model=data.json: no model of this shape"),
    ("train-base", {"init_from_nemo_model": "nowhere.nemo"}, "init_from_nemo_model=nowhere.nemo: no model of this"),
    ("train-base", {"labels": "[b]"}, "characters outside the model's vocabulary: ' ' 'a' 'e'"),
    ("train-base", {"model.preprocessor.features": "0"}, "feat_in=0: expected at least 1"),
    ("train-base", {"model.encoder.d_model": "-1"}, "d_model"),
    ("train-base", {"model.encoder.dropout": "2"}, "dropout"),
    ("train-base", {"model.train_ds.batch_size": "0"}, "model.train_ds.batch_size=0: expected a whole number"),
    ("train-base", {"model.validation_ds.batch_size": "0"}, "model.validation_ds.batch_size=0: expected a whole"),
    ("train-base", {"model.train_ds.max_duration": "0.01"}, "model.train_ds"),
    ("train-base", {"model.train_ds.num_workers": "-1"}, "num_workers"),
    ("train-base", {"model.decoding.strategy": "foo"}, "foo"),
    ("train-base", {"trainer.max_epochs": "abc"}, "trainer.max_epochs=abc: expected a whole number"),
    ("train", {"trainer.devices": "99"}, "trainer.devices=99: there are"),
    ("train-base", {"trainer.devices": "99"}, "trainer.devices=99: there are"),
    ("train-base", {"exp_manager.exp_dir": "data.json/x"}, "data.json/x: cannot be written"),
    ("train-base", {VALIDATION_DATA: "foreign.json"}, "'5' 'Z' 'ü'"),
    ("train-base", {TRAIN_DATA: "missing.json"}, "gone.wav"),
    ("transcribe", {"adapter_key": "speaker", "adapter_store": "store", "adapter_default": "7"}, "7: is not the path"),
    (
        "transcribe",
        {"adapter_key": "speaker", "adapter_store": "store", "adapter_default": "several.pt"},
        "several.pt",
    ),
    (
        "transcribe",
        {"adapter_key": "speaker", "adapter_store": "store", "adapter_default": "foreign.pt"},
        "the default: the adapter was made for base",
    ),
    ("eval", {"adapter_default": "adapter.pt"}, "adapter_default=adapter.pt needs model.adapter.adapter_key"),
    # where it is written: never over what is read
    ("train", {FILE_NAME: f"{UP}data.json"}, f"data.json would overwrite {TRAIN_DATA}=data.json, which is read"),
    ("train", {FILE_NAME: f"{UP}base.nemo"}, "base.nemo would overwrite model.nemo_model, which is read"),
    ("train", {FILE_NAME: f"{UP}nowhere/a.pt"}, "in a folder that does not exist: give another name"),
    ("train", {FILE_NAME: "ASR-Adapter.nemo"}, f"{FILE_NAME}=ASR-Adapter.nemo: the model, a folder, or"),
    ("train", {FILE_NAME: "7"}, f"{FILE_NAME}=7 is not text"),
    ("train", {**EARLIER, MODEL: "exp/v/checkpoints/exp.nemo"}, "exp.nemo would overwrite model.nemo_model"),
    (
        "train-base",
        {**EARLIER, "init_from_nemo_model": "exp/v/checkpoints/exp.nemo"},
        "exp.nemo would overwrite init_from_nemo_model, which is read",
    ),
    ("adapt-speakers", {TRAIN_DATA: "report.json", "output_dir": "."}, f"report.json would overwrite {TRAIN_DATA}"),
    ("adapt-speakers", {"adapter_store": "store", "output_dir": "store"}, "report.json would overwrite adapter_store"),
    (
        "eval",
        {NAME: None, KEY: "speaker", "adapter_store": "store", "output_filename": "store/x.jsonl"},
        "x.jsonl would overwrite adapter_store, which is read",
    ),
    (
        "transcribe",
        {"adapter_key": "speaker", "adapter_store": "store", "output_filename": "store/x.json"},
        "x.json would overwrite adapter_store=store",
    ),
    ("search", {TRAIN_DATA: "trials.csv", "hydra.sweep.dir": "."}, f"trials.csv would overwrite {TRAIN_DATA}"),
    ("adapt-speakers", {"output_dir": "data.json/x"}, "data.json/x"),
    ("adapt-speakers", {"adapter_store": "data.json"}, "data.json"),
    ("adapt-speakers", {"adapter_store": None}, "adapter_store is not set"),
    ("eval", {"output_filename": "data.json"}, "data.json would overwrite"),
    ("transcribe", {"output_filename": "data.json"}, "data.json would overwrite"),
    ("transcribe", {"output_filename": "base.nemo"}, "base.nemo would overwrite"),
    ("eval", {"output_filename": "store"}, "output_filename=store: is a folder, give the path of a file"),
    (
        "transcribe",
        {"output_filename": "store", "adapter_store": None},
        "output_filename=store: is a folder, give the path of a file",
    ),
    ("eval", {"output_filename": "data.json/out.json"}, "out.json: cannot be written"),
    ("transcribe", {"output_filename": "data.json/out.json"}, "out.json: cannot be written"),
]
# Folders for results, which are made before it is computed what goes there.
LEFT = {"adapt-speakers": ["speakers"], "train-base": ["nemo_experiments"], "train": ["nemo_experiments"]}
IDS = [" ".join((command, *changes)) for command, changes, _ in WRONG]


@pytest.fixture(scope="module")
def archive() -> dict[str, bytes]:
    """A base that takes adapters, made once."""
    return {}


@pytest.fixture
def inputs(
    archive: dict[str, bytes], make_model, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The folder in which the command runs, with all that the table names."""
    if not archive:
        make_model(adapters=False).save_to(str(tmp_path / "base.nemo"))
        archive["base"] = (tmp_path / "base.nemo").read_bytes()
    (tmp_path / "base.nemo").write_bytes(archive["base"])
    entries = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    lines = [{**entry, "speaker": user} for entry, user in zip(entries, ("ann", "bob", "ann", "bob"))]
    for name, content in (
        ("data", lines),
        ("report", lines),
        ("foreign", [{**entries[0], "text": "Zürich 5"}]),
        ("missing", [{**entries[0], "audio_filepath": "gone.wav"}]),
        ("broken", ["no object"]),
    ):
        text = "".join(f"{json.dumps(line)}\n" for line in content)
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    shutil.copy(RELEASED / "two_adapters.pt", tmp_path / "several.pt")
    adapter = next(iter(read_adapters(tmp_path / "several.pt").values()))
    write_adapters([adapter], tmp_path / "adapter.pt")
    record = (Experience(0, 3.0, 20, 10, 8, 40, 20, 15, 12),)
    save_prior(VoicePrior(adapter, 0.01, 2, (Step(3.0, 2, 1.0),), record, {}, 12, 100.0), tmp_path / "foreign.pt")
    (tmp_path / "trials.csv").write_bytes((tmp_path / "data.json").read_bytes())
    (tmp_path / "exp" / "v" / "checkpoints").mkdir(parents=True)
    (tmp_path / "exp" / "v" / "checkpoints" / "exp.nemo").write_bytes(archive["base"])
    AdapterStore(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("command", "changes", "message"), WRONG, ids=IDS)
def test_wrong_input_is_one_line(
    inputs: Path, capfd: pytest.CaptureFixture[str], command: str, changes: dict[str, str | None], message: str
) -> None:
    before = {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}
    given = {key: value for key, value in {**RIGHT[command], **changes}.items() if value is not None}
    given |= {key: None for key in changes if key.startswith("~")}
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        main([command, *(key if value is None else f"{key}={value}" for key, value in given.items())])
    out, err = capfd.readouterr()
    line = end.value.code if isinstance(end.value.code, str) else err
    assert end.value.code not in (0, None)
    assert line.startswith("error: ") and message in line
    assert line.strip().isprintable()
    assert "Traceback" not in out + err
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in inputs.iterdir() if path.is_file()} <= {*before}
    assert {path.name for path in inputs.iterdir() if path.is_dir()} <= {"store", "exp", *LEFT.get(command, ())}
