"""Transcribe recordings of many people, each with their own adapter, in mixed batches."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.cli.script import CONFIGS, hydra_command
from nemo_ds2_adapters.data.recordings import manifest_lines
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.recognition.decoding import manifest_fields
from nemo_ds2_adapters.recognition.transcribe import transcribe

CONFIG = "asr_adapters/transcribe_speech"


@hydra_command(CONFIG)
def main(cfg: DictConfig) -> None:
    check_types(cfg)
    check_sources(cfg)
    audio, entries = read_input(cfg)
    output = output_path(cfg)
    if output.exists() and not cfg.overwrite_transcripts:
        print(f"{output} exists, and overwrite_transcripts=false: nothing was done")
        return

    model = restore_model(cfg.model_path, cfg.pretrained_name).to(device(cfg.cuda))
    errors: dict[int, str] = {}
    hypotheses = transcribe(
        model,
        audio,
        store=cfg.adapter_store,
        batch_size=cfg.batch_size,
        adapter_key=cfg.adapter_key,
        return_hypotheses=True,
        timestamps=cfg.timestamps,
        confidence=cfg.confidence,
        max_seconds=cfg.max_seconds,
        overlap_seconds=cfg.overlap_seconds,
        progress=cfg.progress,
        on_error=errors.__setitem__,
    )
    with output.open("w", encoding="utf-8") as file:
        for entry, hypothesis in zip(entries, hypotheses):
            if hypothesis is not None:
                print(json.dumps({**json.loads(entry), **manifest_fields(hypothesis)}, ensure_ascii=False), file=file)
    for number in sorted(errors):
        print(f"not transcribed: {errors[number]}", file=sys.stderr)
    print(f"{len(entries) - len(errors)} of {len(entries)} utterances transcribed: {output}")
    if errors:
        sys.exit(1)


def check_types(cfg: DictConfig) -> None:
    """Refuse values of another type than the shipped config has."""
    expected = {bool: "true or false", int: "a whole number", float: "a number"}
    for name, default in OmegaConf.load(CONFIGS / f"{CONFIG}.yaml").items():
        key = str(name)
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if type(default) in expected and type(cfg[key]) not in kinds:
            raise InputError(f"{key}={cfg[key]}: expected {expected[type(default)]}")


def check_sources(cfg: DictConfig) -> None:
    """Refuse both or none of two keys, and files that do not exist."""
    for one, other in (("model_path", "pretrained_name"), ("dataset_manifest", "audio_dir")):
        if bool(cfg[one]) == bool(cfg[other]):
            raise InputError(f"set one of {one} and {other}, {'both are' if cfg[one] else 'none is'} set")
    for key, exists in (("model_path", Path.is_file), ("dataset_manifest", Path.is_file), ("audio_dir", Path.is_dir)):
        if cfg[key] and not exists(Path(cfg[key])):
            raise InputError(f"{key}={cfg[key]}: no such file or directory")
    for key in ("adapter_store", "adapter_key"):
        if cfg.audio_dir and cfg[key]:
            raise InputError(f"{key} needs dataset_manifest: the files of audio_dir do not say whose they are")


def read_input(cfg: DictConfig) -> tuple[Any, list[str]]:
    """What to transcribe, and each utterance as a line of a manifest."""
    if cfg.dataset_manifest:
        return Path(cfg.dataset_manifest), [line for _, line in manifest_lines(Path(cfg.dataset_manifest))]
    files = sorted(Path(cfg.audio_dir).rglob(f"*.{cfg.audio_type}"))
    if not files:
        raise InputError(f"audio_dir={cfg.audio_dir}: no files that end with .{cfg.audio_type} (audio_type)")
    return files, [json.dumps({"audio_filepath": str(file)}) for file in files]


def output_path(cfg: DictConfig) -> Path:
    """Where to write."""
    source = Path(cfg.dataset_manifest or cfg.audio_dir).absolute()
    name = f"{source.stem}_{Path(cfg.model_path or cfg.pretrained_name).stem}.json"
    output = Path(cfg.output_filename or source.with_name(name))
    if output.exists() and output.samefile(source):
        raise InputError(f"output_filename={output}: would overwrite the input")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_filename={output}: cannot be written ({error.strerror})") from None
    return output


def device(cuda: int | None) -> str:
    """NeMo's meaning of the key `cuda`."""
    if cuda is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(cuda, int):
        raise InputError(f"cuda={cuda}: expected a number, or null")
    if cuda >= torch.cuda.device_count():
        raise InputError(f"cuda={cuda}: there are {torch.cuda.device_count()} CUDA devices, the first one is 0")
    return "cpu" if cuda < 0 else f"cuda:{cuda}"
