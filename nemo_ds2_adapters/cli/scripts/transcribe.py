"""Transcribe recordings of many people, each with their own adapter, in mixed batches."""

import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.scripts.decoding import search_settings, words_for_all
from nemo_ds2_adapters.cli.scripts.script import hydra_command, make_folder_of
from nemo_ds2_adapters.data.manifest import BadLine, Utterance, read_lines
from nemo_ds2_adapters.decoding.decoder import manifest_fields
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation.report import write_lines
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.formats.reading import read_adapter
from nemo_ds2_adapters.recognition.transcribe import transcribe


@hydra_command("asr_adapters/transcribe_speech")
def main(cfg: DictConfig) -> None:
    check_sources(cfg)
    lines = read_input(cfg)
    words, search = words_for_all(cfg, len(lines)), search_settings(cfg)
    output = output_path(cfg, lines)
    if output.exists() and not cfg.overwrite_transcripts:
        say(f"{output} exists, and overwrite_transcripts=false: nothing was done")
        return

    model = restore_model(cfg.model_path, cfg.pretrained_name).to(device(cfg.cuda))
    errors: dict[int, str] = {}
    hypotheses = transcribe(
        model,
        lines,
        store=cfg.adapter_store,
        default=read_adapter(cfg.adapter_default) if cfg.adapter_default else None,
        batch_size=cfg.batch_size,
        adapter_key=cfg.adapter_key,
        words=words,
        search=search,
        return_hypotheses=True,
        timestamps=cfg.timestamps,
        confidence=cfg.confidence,
        max_seconds=cfg.max_seconds,
        overlap_seconds=cfg.overlap_seconds,
        progress=cfg.progress,
        on_error=errors.__setitem__,
    )
    done = [(line, hypothesis) for line, hypothesis in zip(lines, hypotheses) if hypothesis is not None]
    write_lines([{**line.fields, **manifest_fields(hypothesis)} for line, hypothesis in done], output)
    for number in sorted(errors):
        say(f"not transcribed: {errors[number]}", err=True)
    say(f"{len(done)} of {len(lines)} utterances transcribed: {output}")
    if errors:
        sys.exit(1)


def check_sources(cfg: DictConfig) -> None:
    """Refuse both or none of two keys, and files that do not exist."""
    for one, other in (("model_path", "pretrained_name"), ("dataset_manifest", "audio_dir")):
        if bool(cfg[one]) == bool(cfg[other]):
            raise InputError(f"set one of {one} and {other}, {'both are' if cfg[one] else 'none is'} set")
    for key, exists in (("model_path", Path.is_file), ("dataset_manifest", Path.is_file), ("audio_dir", Path.is_dir)):
        if cfg[key] and not exists(Path(cfg[key])):
            raise InputError(f"{key}={cfg[key]}: no such file or directory")
    for key in ("adapter_store", "adapter_default", "adapter_key"):
        if cfg.audio_dir and cfg[key]:
            raise InputError(f"{key} needs dataset_manifest: the files of audio_dir do not say whose they are")


def read_input(cfg: DictConfig) -> list[Utterance | BadLine]:
    """What to transcribe, as the lines of a manifest."""
    if cfg.dataset_manifest:
        return read_lines(Path(cfg.dataset_manifest), "dataset_manifest", transcribed=False)
    files = sorted(Path(cfg.audio_dir).rglob(f"*.{cfg.audio_type}"))
    if not files:
        raise InputError(f"audio_dir={cfg.audio_dir}: no files that end with .{cfg.audio_type} (audio_type)")
    return [Utterance(file, fields={"audio_filepath": str(file)}) for file in files]


def output_path(cfg: DictConfig, lines: list[Utterance | BadLine]) -> Path:
    """Where to write."""
    source = Path(cfg.dataset_manifest or cfg.audio_dir).absolute()
    name = f"{source.stem}_{Path(cfg.model_path or cfg.pretrained_name).stem}.json"
    output = Path(cfg.output_filename or source.with_name(name))
    keys = ("model_path", "dataset_manifest", "adapter_store", "adapter_default", "decoding.lm", "decoding.words")
    recordings = {line.label: line.audio for line in lines if isinstance(line, Utterance)}
    check_not_input(
        output, {**{f"{key}={value}": value for key in keys if (value := OmegaConf.select(cfg, key))}, **recordings}
    )
    make_folder_of(output, f"output_filename={output}")
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
