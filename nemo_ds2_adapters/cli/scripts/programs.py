"""The commands that take a config: what `--help` says of them, and how what they are given reaches Hydra."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import typer

from nemo_ds2_adapters.configs import CONFIGS


@dataclass(frozen=True)
class Program:
    """A command, `main` of a module of this folder, and what is worth knowing about it."""

    module: str
    config: str  # as in conf/
    summary: str
    keys: dict[str, str]  # those that matter
    more: str = ""

    @property
    def help(self) -> str:
        """What `--help` shows; `\\b` keeps the lines of a table apart."""
        width = max(map(len, self.keys))
        table = "\n".join(f"{key:{width}}  {about}" for key, about in self.keys.items())
        everything = (
            f"All keys, with what they mean: {CONFIGS / self.config}.yaml\n\nTheir values in this call: --cfg job"
        )
        return "\n\n".join(part for part in (self.summary, f"\b\n{table}", self.more, everything) if part)


BASE = {"model.nemo_model": "the base, or an adapted model: a .nemo"}
TRAINING = {
    "model.adapter.prior": "a voice prior, of fit-prior",
    "model.adapter.mlp.hidden_dims": "sizes of the adapter, [64]",
    "model.adapter.mlp.layers": "where it sits: all, first, last, or a list",
    "model.optim.lr": "learning rate, 0.002",
    "trainer.max_epochs": "at most so many epochs, 20",
}
DECODING = {
    "decoding.words": "a name per line; null: each user's own, of the store",
    "decoding.lm": "ARPA file of a language model",
}
PROGRAMS = {
    "train": Program(
        "train",
        "asr_adapters/asr_adaptation",
        "Train a personal adapter on a frozen base.",
        {
            **BASE,
            "model.adapter.adapter_name": "name of the adapter; or in its place",
            "model.adapter.user_id": "any text that names the person",
            "model.train_ds.manifest_filepath": "NeMo manifest of the person's recordings",
            "model.validation_ds.manifest_filepath": "others of theirs; null: cross-validation",
            **TRAINING,
        },
    ),
    "adapt-speakers": Program(
        "adapt_speakers",
        "asr_adapters/speaker_adaptation",
        "Train an adapter for every speaker of a manifest, in one run; run again, it goes on where it was.",
        {
            **BASE,
            "model.train_ds.manifest_filepath": "NeMo manifest of everybody's recordings",
            "model.adapter.speaker_key": "its field that says whose they are, speaker",
            "adapter_store": "where the adapters go: a folder or a URL",
            "output_dir": "where the report goes, ./speakers",
            "cluster": "ray: a Ray cluster does it; local: this process",
            **TRAINING,
        },
    ),
    "fit-prior": Program(
        "fit_prior",
        "asr_adapters/voice_prior",
        "Learn a voice prior from people whom the base has not heard.",
        {
            **BASE,
            "model.train_ds.manifest_filepath": "NeMo manifest of the population's recordings",
            "model.adapter.speaker_key": "its field that says whose they are, speaker",
            "output": "the prior, prior.pt",
            "prior.epochs": "of the population's adapter, 10",
            "prior.folds": "parts of the speakers that are left out in turn, 3",
        },
    ),
    "eval": Program(
        "evaluate",
        "asr_adapters/asr_evaluation",
        "Evaluate an adapter of a model, or its base; or everybody's adapter on their own recordings.",
        {
            **BASE,
            "model.test_ds.manifest_filepath": "NeMo manifest with transcripts",
            "model.adapter.adapter_name": "which adapter, null: the base; or in its place",
            "model.adapter.user_id": "whose adapter; or in its place",
            "model.adapter.adapter_key": "field of the manifest that says whose",
            "adapter_store": "with adapter_key: where the adapters are",
            "output_filename": "one JSON line per utterance",
            **DECODING,
        },
    ),
    "transcribe": Program(
        "transcribe",
        "asr_adapters/transcribe_speech",
        "Transcribe recordings of many people, each with their own adapter.",
        {
            "model_path": "a .nemo",
            "dataset_manifest": "NeMo manifest; or in its place",
            "audio_dir": "a folder with recordings",
            "adapter_store": "where the adapters are; null: in the .nemo",
            "adapter_key": "field of the manifest that says whose",
            "output_filename": "NeMo manifest with pred_text",
            **DECODING,
        },
    ),
    "search": Program(
        "search",
        "asr_adapters/asr_adaptation_hp",
        "Search for the settings of an adapter: as train, with --multirun.",
        {
            **BASE,
            "model.train_ds.manifest_filepath": "NeMo manifest of the person's recordings",
            "model.validation_ds.manifest_filepath": "others of theirs",
            "search.base_manifest": "recordings of the base's own domain",
            "hydra.sweeper.n_trials": "how many trials, 20",
        },
        "Needs the extra [search]; a grid does not: --config-name=asr_adaptation_grid",
    ),
    "train-base": Program(
        "train_base",
        "deepspeech2/deepspeech2_small",
        "Train a DeepSpeech2 base model; an interrupted training goes on where it was.",
        {
            "model.train_ds.manifest_filepath": "NeMo manifest",
            "model.validation_ds.manifest_filepath": "NeMo manifest of other speakers",
            "init_from_nemo_model": "a .nemo whose weights to start from",
            "trainer.max_epochs": "epochs",
        },
        "The large model: --config-name=deepspeech2, or deepspeech2_syllables, _graphemes, _bpe.",
    ),
}


def add_programs(app: typer.Typer) -> None:
    """Add the commands, each of which imports what it needs when it is called."""
    for name, program in PROGRAMS.items():
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
        app.command(
            name,
            help=program.help,
            short_help=program.summary,
            options_metavar="KEY=VALUE... [OPTIONS OF HYDRA]",
            context_settings=settings,
            rich_help_panel="Training and recognition",
        )(_starter(program.module))


def _starter(module: str) -> Callable[[typer.Context], None]:
    def start(context: typer.Context) -> None:
        importlib.import_module(f"nemo_ds2_adapters.cli.scripts.{module}").main(context.args)

    return start
