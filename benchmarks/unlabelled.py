"""Whether people gain by speech that nobody has written down: trained on what the population's adapter hears.

python benchmarks/unlabelled.py --base base.nemo --prior prior.pt --train train.json --test test.json --text text.txt

Everybody's adapter starts at the prior's and is trained at the prior's step size on the transcripts given, on what the
population's adapter hears greedily, on what it hears with a language model of `--text` (which must not have the
people's own sentences), and on the recordings alone in which the two agree. Neither base nor prior may know the
people. Printed are the labels' word error rate, and by epochs the word errors on the people's test recordings.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nemo.collections.asr.models import EncDecCTCModel
from personal_ways import Person, read_people, scored
from rich.console import Console

from nemo_ds2_adapters.adaptation.group import training_engine
from nemo_ds2_adapters.adaptation.settings import person_settings
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior, read_prior
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.cli.output import quiet
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.decoding.kneser_ney import write_language_model
from nemo_ds2_adapters.decoding.search import SearchSettings
from nemo_ds2_adapters.evaluation.errors import Score, score
from nemo_ds2_adapters.evaluation.report import percent, table
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.recognition.transcribe import transcribe

EPOCHS = (1, 2, 4, 8)


def heard(model: EncDecCTCModel, prior: VoicePrior, people: Sequence[Person], search: SearchSettings) -> list[Person]:
    """The people, with what the population's adapter hears for transcripts."""
    audio = [str(one.audio) for person in people for one in person.train]
    users = ["nobody knows"] * len(audio)
    texts = iter(transcribe(model, audio, users, default=prior.adapter, search=search, progress=False))
    return [replace(person, train=tuple(replace(one, text=next(texts)) for one in person.train)) for person in people]


def agreed(first: Person, second: Person) -> Person:
    """Only the recordings whose transcripts are the same."""
    return replace(first, train=tuple(a for a, b in zip(first.train, second.train) if a.text == b.text))


def trained(model: EncDecCTCModel, prior: VoicePrior, people: Sequence[Person], epochs: int) -> list[Adapter | None]:
    """Everybody's adapter; the population's for who has nothing to train on."""
    have = [[one for one in person.train if one.text] for person in people]
    settings = person_settings(prior.lr, prior.batch_size, epochs, seed=0)
    with training_engine(model, have, prior.adapter) as (engine, positions, start):
        members = [engine.member(start, own, [], settings) for own in positions]
        for _ in range(epochs):
            engine.train_epoch([member for member, own in zip(members, have) if own])
        return [member.adapter() if own else prior.adapter for member, own in zip(members, have)]


def errors_in_labels(people: Sequence[Person], truth: Sequence[Person]) -> str:
    """Recordings, and the labels' word error rate."""
    said: dict[Path, Utterance] = {one.audio: one for person in truth for one in person.train}
    labels = [one for person in people for one in person.train]
    found = sum((score(one.text, said[one.audio].text) for one in labels), Score())
    return f"{len(labels)}, {percent(found.wer)}"


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "prior", "train", "test", "text"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--people", type=int, default=None, help="only the first so many")
    options = parser.parse_args()
    quiet("ERROR")
    model, prior = restore_model(options.base, None), read_prior(options.prior)
    people = read_people(options.train, options.test)[: options.people]
    with tempfile.TemporaryDirectory() as folder:
        lm = Path(folder, "lm.arpa")
        write_language_model(Path(options.text), lm, 3)
        greedy = heard(model, prior, people, SearchSettings())
        searched = heard(model, prior, people, SearchSettings(lm=lm))
    ways = {
        "transcripts": people,
        "greedy": greedy,
        "language model": searched,
        "both agree": [agreed(*pair) for pair in zip(searched, greedy)],
    }
    before = scored(model, [prior.adapter] * len(people), prior.adapter, people)
    base = sum(scored(model, [None] * len(people), prior.adapter, people), Score())
    rows = [("base", "", "", percent(base.wer), ""), ("prior", "", "", percent(sum(before, Score()).wer), "")]
    for way, some in ways.items():
        for epochs in EPOCHS:
            after = scored(model, trained(model, prior, some, epochs), prior.adapter, people)
            better = sum(a.word_errors < b.word_errors for a, b in zip(after, before))
            worse = sum(a.word_errors > b.word_errors for a, b in zip(after, before))
            labels = errors_in_labels(some, people)
            rows.append((way, labels, str(epochs), percent(sum(after, Score()).wer), f"{better} / {worse}"))
    headings = ("trained on", "recordings, WER\nof the labels", "epochs", "WER", "better / worse\nthan the prior")
    Console(width=100).print(table(f"{len(people)} people, {base.words} test words", headings, rows))


if __name__ == "__main__":
    main()
