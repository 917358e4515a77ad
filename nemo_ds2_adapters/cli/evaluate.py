"""Evaluate an adapter of a model, or its base; or many people's adapters, each on its own utterances."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from nemo_ds2_adapters.adaptation.setup import enable_only
from nemo_ds2_adapters.adapters.chosen import chosen_adapter
from nemo_ds2_adapters.adapters.lifecycle import list_adapters
from nemo_ds2_adapters.cli.script import hydra_command
from nemo_ds2_adapters.data.recordings import Recording
from nemo_ds2_adapters.data.sections import DataSection, check_section, loader_config, read_section
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation import report
from nemo_ds2_adapters.evaluation.comparison import compare
from nemo_ds2_adapters.evaluation.section import Score, total_score, transcribe_section
from nemo_ds2_adapters.evaluation.users import PairedScore, score_users
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.store.store import AdapterStore


@hydra_command("asr_adapters/asr_adaptation")
def main(cfg: DictConfig) -> None:
    key = adapter_key(cfg)
    adapter = None if key else chosen_adapter(cfg.model.adapter, base_allowed=True)
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    test = read_section(cfg.model, "test_ds")
    users = users_of(test, key) if key else []
    store = AdapterStore(cfg.adapter_store, create=False) if cfg.adapter_store else None

    trainer = pl.Trainer(**cfg.trainer)
    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model, trainer)
    check_section(test, model)
    if adapter is None:
        evaluate_users(cfg, trainer, model, test, users, store)
        return
    enable_only(model, adapter)
    model.freeze()
    scores = transcribe_section(trainer, model, loader_config(test, model))

    output = Path(cfg.output_filename or f"eval_{adapter.name or 'base'}.jsonl")
    write_scores(scores, output)
    wer, cer, words = total_score(scores)
    print(f"{adapter.shown}: WER {100 * wer:.2f} %, CER {100 * cer:.2f} %, {len(scores)} utterances, {words} words")
    print(f"  each utterance: {output}")


def adapter_key(cfg: DictConfig) -> str | None:
    """The manifest field that names the adapters, None if one adapter is to be evaluated."""
    key = cfg.model.adapter.adapter_key
    others = [other for other in ("adapter_name", "user_id") if not OmegaConf.is_missing(cfg.model.adapter, other)]
    if key is not None and others:
        raise InputError(f"model.adapter.adapter_key={key}: leave model.adapter.{others[0]} out, lines name adapters")
    if key is None and cfg.adapter_store:
        raise InputError(f"adapter_store={cfg.adapter_store} needs model.adapter.adapter_key, a field of the manifest")
    return key


def users_of(test: DataSection, key: str) -> list[str]:
    """Whose each utterance is."""
    for utterance in test.utterances:
        if not isinstance(utterance.fields.get(key), str):
            raise InputError(
                f"{utterance.place}: {key}={utterance.fields.get(key)!r}, expected text that names a user"
            )
    return [utterance.fields[key] for utterance in test.utterances]


def evaluate_users(
    cfg: DictConfig,
    trainer: pl.Trainer,
    model: ASRModel,
    test: DataSection,
    users: list[str],
    store: AdapterStore | None,
) -> None:
    """Base and personal adapters side by side: a line per utterance, a table, JSON, CSV and a picture."""
    known = set(list_adapters(model)) if store is None else {user for user in set(users) if store.has(user)}
    unknown = sorted(set(users) - known)
    if unknown:
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise InputError(f"{cfg.adapter_store or 'the model'} has no adapter of {', '.join(unknown[:10])}{more}")
    model.to(trainer.strategy.root_device)
    batch_size = cfg.model.test_ds.batch_size
    scores = score_users(
        model,
        AdapterBank(model, store, capacity=4 * batch_size),
        [Recording(u.place, u.audio, u.offset, u.duration) for u in test.utterances],
        users,
        [utterance.text for utterance in test.utterances],
        batch_size,
        cfg.trainer.enable_progress_bar,
        trainer.precision_plugin.forward_context,
    )
    comparison = compare(scores)
    output = Path(cfg.output_filename or "eval_users.jsonl")
    write_scores(scores, output)
    report.write_json(comparison, output.with_suffix(".json"))
    report.write_csv(comparison, output.with_suffix(".csv"))
    report.write_picture(comparison, output.with_suffix(".png"))
    Console().print(report.table(comparison))
    print("\n".join(report.summary(comparison)))
    print(f"  each utterance: {output}; per user: {output.stem}.json, .csv and .png beside it")


def write_scores(scores: Sequence[Score | PairedScore], output: Path) -> None:
    """One JSON line per utterance."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("".join(f"{json.dumps(asdict(score), ensure_ascii=False)}\n" for score in scores), "utf-8")
