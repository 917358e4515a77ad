"""A real person is heard while they speak, by the base for streams and by their own adapter: `make demo-stream`.

python -m demo.stream jackson
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from demo.run import FSDD, STREAM_BASE_MODEL
from nemo_ds2_adapters import AdapterBank, adapt
from nemo_ds2_adapters.adapters.enabling import enable_adapters
from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.cli.stream import cut, shown
from nemo_ds2_adapters.data.manifest import Utterance, read_manifest
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.streaming.recogniser import Recogniser

PEOPLE = tuple(sorted(path.name for path in FSDD.iterdir() if path.is_dir()))
SENTENCES = 3  # to be heard


def show_person(name: str, console: Console) -> None:
    """Train the person's adapter, then let them speak."""
    model = restore_model(str(STREAM_BASE_MODEL), None)
    train, test = (_of(split, name) for split in ("train", "test"))
    seconds = sum(utterance.duration or 0.0 for utterance in train)
    console.print(f"{name} has said {len(train)} sentences, {seconds:.0f} s: an adapter is trained ...")
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / "train.json"
        lines = [{"audio_filepath": str(one.audio), "duration": one.duration, "text": one.text} for one in train]
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        trained = adapt(model, name, manifest, exp_dir=folder, folds=0, enable_progress_bar=False)
    console.print(f"... in {trained.seconds:.0f} s. And now something else, as it is spoken:\n")
    enable_adapters(model, None)
    recogniser = Recogniser(model, AdapterBank(model))
    for utterance in test[:SENTENCES]:
        _listen(recogniser, name, utterance, console)


def _listen(recogniser: Recogniser, name: str, utterance: Utterance, console: Console) -> None:
    """One recording in two streams, the base's and the person's, in the same batches."""
    with recogniser.open() as base, recogniser.open(name) as own, Live(console=console, auto_refresh=False) as live:
        for samples in cut(utterance, recogniser.sample_rate, real_time=True):
            for stream in (base, own):
                stream.feed(samples)
            while recogniser.step():
                pass
            live.update(_lines(name, shown(base.partial), shown(own.partial)), refresh=True)
        texts = [Text(str(stream.finish().text)) for stream in (base, own)]
        live.update(Group(_lines(name, *texts), Text.assemble((f"{'was said':>10}  ", "dim"), utterance.text, "\n")))
        live.refresh()


def _lines(name: str, base: Text, own: Text) -> Group:
    width = max(10, len(name))
    return Group(*(Text.assemble((f"{who:>{width}}  ", "dim"), text) for who, text in (("base", base), (name, own))))


def _of(split: str, name: str) -> list[Utterance]:
    return [one for one in read_manifest(FSDD / f"{split}.json", split) if one.fields["speaker"] == name]


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description="Hear a real person while they speak.")
    parser.add_argument("person", nargs="?", default=PEOPLE[1], choices=PEOPLE)
    name = parser.parse_args().person
    quiet("ERROR")
    show_person(name, Console(highlight=False))


if __name__ == "__main__":
    main()
