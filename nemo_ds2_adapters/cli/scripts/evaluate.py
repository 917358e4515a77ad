"""Evaluate an adapter of a model, or its base; or many people's adapters, each on its own utterances."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from nemo.collections.asr.models import ASRModel
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from tqdm import tqdm

from nemo_ds2_adapters.adaptation.lightning_fit import autocast_type, one_device_trainer, place
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.chosen import ChosenAdapter, chosen_adapter
from nemo_ds2_adapters.adapters.enabling import enabled_adapters
from nemo_ds2_adapters.cli.output import say
from nemo_ds2_adapters.cli.scripts.decoding import search_settings, words_for_all
from nemo_ds2_adapters.cli.scripts.script import files_read, hydra_command, make_folder_of
from nemo_ds2_adapters.configs import shipped_config
from nemo_ds2_adapters.data.findings import check_recordings
from nemo_ds2_adapters.data.manifest import Utterance, read_manifest
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.evaluation import report
from nemo_ds2_adapters.evaluation.comparison import compare
from nemo_ds2_adapters.evaluation.errors import Score
from nemo_ds2_adapters.evaluation.recognised import Recognised, recognise
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.nemo_archive import check_source, restore_model
from nemo_ds2_adapters.formats.reading import read_adapter
from nemo_ds2_adapters.store.store import AdapterStore

MANIFEST = "model.test_ds.manifest_filepath"
# Of NeMo's data sections: what would change utterances, or leave some out. Here every one is taken as it is.
REFUSED = ("max_duration", "min_duration", "max_utts", "trim_silence", "channel_selector", "augmentor", "is_tarred")


@hydra_command("asr_adapters/asr_evaluation", "asr_adapters/asr_adaptation")
def main(cfg: DictConfig) -> None:
    cfg = DictConfig(OmegaConf.merge(shipped_config("asr_adapters/asr_evaluation"), cfg))  # NeMo's give the training's
    key = adapter_key(cfg)
    adapter = None if key else chosen_adapter(cfg.model.adapter, base_allowed=True)
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    for name in (name for name in REFUSED if cfg.model.test_ds.get(name)):
        raise InputError(f"model.test_ds.{name}: evaluation takes every utterance as it is; leave it out")
    utterances = read_manifest(cfg.model.test_ds.manifest_filepath, MANIFEST)
    users = users_of(utterances, key) if key else None
    store = AdapterStore(cfg.adapter_store, create=False) if cfg.adapter_store else None
    default = read_adapter(cfg.adapter_default) if cfg.adapter_default else None
    words, search = words_for_all(cfg, len(utterances)), search_settings(cfg)
    trainer = one_device_trainer(dict(cfg.trainer), mixed=True)
    output = output_path(cfg, "users" if adapter is None else adapter.name or "base", utterances)

    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model)
    place(model, trainer)
    check_adapters(model, adapter, users, store, cfg)
    check_vocabulary(utterances, MANIFEST, model)
    progress, precision = cfg.trainer.enable_progress_bar, autocast_type(trainer)
    findings = check_recordings(tqdm(utterances, desc="checking recordings", leave=False, disable=not progress), model)
    for line in findings.lines(MANIFEST):
        say(line)
    with nullcontext() if adapter is None else enabled_adapters(model, adapter.name):
        size = cfg.model.test_ds.batch_size
        results = recognise(model, utterances, users, store, size, progress, precision, default, words, search)
    report.write_lines([result.line() for result in results], output)
    if adapter is None:
        show_comparison(results, output)
    else:
        total = sum((result.score for result in results), Score())
        rates = f"WER {report.percent(total.wer, digits=2)}, CER {report.percent(total.cer, digits=2)}"
        say(f"{adapter.shown}: {rates}, {len(results)} utterances, {total.words} words")
        say(f"  each utterance: {output}")


def adapter_key(cfg: DictConfig) -> str | None:
    """The manifest field that names the adapters, None if one adapter is to be evaluated."""
    key = cfg.model.adapter.adapter_key
    others = [other for other in ("adapter_name", "user_id") if not OmegaConf.is_missing(cfg.model.adapter, other)]
    if key is not None and others:
        raise InputError(f"model.adapter.adapter_key={key}: leave model.adapter.{others[0]} out, lines name adapters")
    for name in ("adapter_store", "adapter_default"):
        if key is None and cfg[name]:
            raise InputError(f"{name}={cfg[name]} needs model.adapter.adapter_key, a field of the manifest")
    return key


def users_of(utterances: Sequence[Utterance], key: str) -> list[str]:
    """Whose each utterance is."""
    for utterance in utterances:
        user = utterance.fields.get(key)
        if not isinstance(user, str):
            raise InputError(f"{utterance.place}: {key}={user!r}, expected text that names a user")
    return [utterance.fields[key] for utterance in utterances]


def output_path(cfg: DictConfig, name: str, utterances: Sequence[Utterance]) -> Path:
    """Where each utterance's line goes; of many people's adapters there are reports beside it."""
    output = Path(cfg.output_filename or f"eval_{name}.jsonl")
    outputs = [output]
    if cfg.model.adapter.adapter_key:
        outputs += [output.with_suffix(ending) for ending in report.COMPARISON_ENDINGS]
    if len(set(outputs)) < len(outputs):
        raise InputError(f"output_filename={output}: expected another ending than {output.suffix}, a report has it")
    recordings = {utterance.label: utterance.audio for utterance in utterances}
    for path in outputs:
        check_not_input(path, {**files_read(cfg, MANIFEST), **recordings})
    make_folder_of(output, f"output_filename={output}")
    return output


def check_adapters(
    model: ASRModel,
    adapter: ChosenAdapter | None,
    users: list[str] | None,
    store: AdapterStore | None,
    cfg: DictConfig,
) -> None:
    """Refuse adapters that do not exist, unless there is another one for these people."""
    attached = list_adapters(model)
    if adapter is not None and adapter.name is not None and adapter.name.rpartition(":")[2] not in attached:
        have = f"its adapters are {', '.join(attached)}" if attached else "it has none"
        raise InputError(f"{adapter.option}: the model has no such adapter, {have}")
    known = set(attached) if store is None else {user for user in set(users or []) if store.has(user)}
    unknown = sorted(set(users or []) - known)
    if unknown and cfg.adapter_default:
        say(f"{len(unknown)} of {len(set(users or []))} users have no adapter and get that of {cfg.adapter_default}")
    elif unknown:
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise InputError(f"{cfg.adapter_store or 'the model'} has no adapter of {', '.join(unknown[:10])}{more}")


def show_comparison(results: Sequence[Recognised], output: Path) -> None:
    """Base and personal adapters side by side: a table, JSON, CSV and a picture."""
    comparison = compare(results)
    report.write_comparison(comparison, output)
    Console(width=report.WIDTH).print(report.comparison_table(comparison))
    print("\n".join(report.summary(comparison)))
    say(f"  each utterance: {output}; per user: {output.stem}.json, .csv and .png beside it")
