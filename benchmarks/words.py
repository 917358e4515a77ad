"""What personal words and a language model bring: names that the base writes wrongly, and word error rates.

python benchmarks/words.py names --base demo/base.nemo --spelled
python benchmarks/words.py names --base demo/read_base.nemo
python benchmarks/words.py lm --base demo/read_base.nemo --test base_val.json base_train.json more_train.json

`names`: forty names that the base writes wrongly, each said by three synthetic people, as a word or spelled letter by
letter, and recognised without words and with all forty; and the ordinary sentences of other people, with a hundred
names that nobody says. `--development` takes other names and people: on these the weights were chosen.

`lm`: the language model is made of the transcripts of the manifests given; it is tried on the one of `--test`.
NAME=VALUE are settings of `SearchSettings`.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf

from demo.corpus import Utterance as Said
from demo.corpus import write_corpus
from demo.people import (
    OTHER_ACCENTS,
    OTHER_VARIANTS,
    POPULATION_ACCENTS,
    POPULATION_VARIANTS,
    VARIETY,
    write_others,
    write_population,
)
from nemo_ds2_adapters.cli.scripts.script import quiet
from nemo_ds2_adapters.data.manifest import read_manifest
from nemo_ds2_adapters.decoding.kneser_ney import write_language_model
from nemo_ds2_adapters.decoding.search import SearchSettings
from nemo_ds2_adapters.evaluation.errors import Score, score
from nemo_ds2_adapters.recognition.transcribe import transcribe

NAMES = (
    *("siobhan", "xochitl", "ortega", "priyanka", "nguyen", "joaquin", "svetlana", "kwame", "oluwaseun", "mateusz"),
    *("francesca", "giovanni", "annelise", "bartholomew", "gwendolyn", "ignatius", "jacqueline", "lysander"),
    *("marguerite", "nikolai", "octavia", "penelope", "rosalind", "sebastian", "tatiana", "valentina", "wilhelmina"),
    *("yolanda", "zebulon", "aurelio", "beatriz", "cordelia", "dmitri", "esperanza", "fernando", "gabriella"),
    *("hildegard", "isadora", "kazimir", "lorenzo", "magdalena", "natasha", "ophelia", "philippa", "ramesh"),
    *("santiago", "theodora", "ulrich", "venkatesh", "wojtek", "yasmin", "zulaikha", "abernathy", "blackwood"),
    *("castellano", "donnelly", "eisenberg", "fairweather", "gallagher", "hathaway", "iverson", "jankowski"),
    *("kaminski", "lombardi", "mcallister", "nakamura", "oconnor", "petrovic", "quigley", "rasmussen", "schneider"),
    *("thackeray", "underhill", "vasquez", "whitaker", "yamamoto", "zielinski", "anderson", "baptiste", "chaudhary"),
    *("delacroix", "emanuel", "fitzgerald", "goldstein", "hernandez", "ibrahim", "jorgensen", "khalil", "levinson"),
    *("montgomery", "novak", "oppenheimer", "pemberton", "rodriguez", "sullivan", "takahashi", "vandenberg"),
    *("wellington", "adeyemi", "brannigan", "cunningham", "dempsey"),
)
OTHERS = (  # whom nobody names
    *("zaragoza", "quetzal", "dragomir", "hieronymus", "llewellyn", "aphrodite", "caoimhe", "eilidh", "saoirse"),
    *("thibault", "xiaoping", "yevgeny", "zsofia", "ruaridh", "padraig", "nkechi", "mbappe", "jurgen", "guadalupe"),
    *("fatoumata", "eyjolfur", "djokovic", "chidinma", "bjornstad", "alejandro", "cristobal", "rosencrantz"),
    *("guildenstern", "mephisto", "anastasia", "bonaparte", "copernicus", "desdemona", "ezekiel", "ferdinand"),
    *("galadriel", "hannibal", "icarus", "jezebel", "leopold", "montague", "prospero", "ferreira", "gutierrez"),
    *("holloway", "ingersoll", "jefferson", "kowalski", "lindqvist", "macintosh", "nightingale", "ostrowski"),
)
COUNT, IRRELEVANT = 40, 100  # names
SPELLED = ("{}", "{}", "erase {} forty two", "enter {}")
WORDS = ("i saw {} in the garden", "do you know {}", "{} came home late", "we went to see {} again")


def say_names(folder: Path, names: Sequence[str], sentences: Sequence[str], development: bool) -> None:
    """Write `names.json`: each name three times, by somebody else every time."""
    rng = random.Random(15 if development else 16)
    accents, variants = (POPULATION_ACCENTS, POPULATION_VARIANTS) if development else (OTHER_ACCENTS, OTHER_VARIANTS)
    said = []
    for name in names:
        for _ in range(3):
            voice = f"{rng.choice(accents)}+{rng.choice(variants)}"
            speaker = VARIETY.draw(f"person_{len(said):03d}", voice, rng)
            said.append(Said(speaker, rng.choice(sentences).format(name)))
    write_corpus(folder, {"names": said})


def contains(text: str, name: str) -> bool:
    return f" {name} " in f" {text} "


def total(texts: Sequence[str], references: Sequence[str]) -> Score:
    return sum(map(score, texts, references), Score())


def names_of(development: bool, spelled: bool) -> tuple[list[str], list[str]]:
    """Those to be said, more than are needed, and those that are not."""
    shuffled = list(NAMES)
    random.Random(0).shuffle(shuffled)
    half = len(shuffled) // 2
    said, rest = (shuffled[:half], shuffled[half:]) if development else (shuffled[half:], shuffled[:half])
    others = [*OTHERS, *rest][:IRRELEVANT]
    return ([" ".join(name) for name in names] if spelled else names for names in (said, others))  # type: ignore


def measure_names(model: ASRModel, settings: SearchSettings, spelled: bool, development: bool, folder: Path) -> None:
    names, others = names_of(development, spelled)
    say_names(folder / "names", names, SPELLED if spelled else WORDS, development)
    lines = read_manifest(folder / "names" / "names.json", "names")
    plain = transcribe(model, folder / "names" / "names.json", progress=False)
    threes = {name: range(3 * number, 3 * number + 3) for number, name in enumerate(names)}
    wrong = [name for name, three in threes.items() if sum(contains(plain[i], name) for i in three) <= 1][:COUNT]
    rows = [(i, name) for name in wrong for i in threes[name]]
    audio = [lines[i].audio for i, _ in rows]
    found = transcribe(model, audio, words=[wrong] * len(rows), search=settings, progress=False)
    without = sum(contains(plain[i], name) for i, name in rows) / len(rows)
    share = sum(contains(text, name) for text, (_, name) in zip(found, rows)) / len(rows)
    print(f"{len(wrong)} names, {len(rows)} recordings")
    print(f"  found: {100 * without:.1f} % without words, {100 * share:.1f} % with")
    before = total([plain[i] for i, _ in rows], [lines[i].text for i, _ in rows])
    after = total(found, [lines[i].text for i, _ in rows])
    print(f"  their WER: {100 * (before.wer or 0):.2f} % without, {100 * (after.wer or 0):.2f} % with")

    write = write_population if development else write_others
    write(folder / "ordinary", people=12)
    manifest = folder / "ordinary" / ("train.json" if development else "test.json")
    references = [line.text for line in read_manifest(manifest, "ordinary")]
    greedy = total(transcribe(model, manifest, progress=False), references)
    listed = [others] * len(references)
    with_others = total(transcribe(model, manifest, words=listed, search=settings, progress=False), references)
    change = with_others.word_errors / greedy.word_errors - 1
    print(
        f"ordinary sentences, {greedy.words} words: WER {100 * (greedy.wer or 0):.2f} % without words, "
        f"{100 * (with_others.wer or 0):.2f} % with {len(others)} that are not said ({100 * change:+.2f} % relative)"
    )


def measure_lm(
    model: ASRModel, settings: SearchSettings, texts: Sequence[Path], test: Path, order: int, limit: int, folder: Path
) -> None:
    sentences = [line.text.lower() for path in texts for line in read_manifest(path, "text")]
    (folder / "text.txt").write_text("\n".join(sentences))
    lm = write_language_model(folder / "text.txt", folder / "lm.arpa", order)
    lines = read_manifest(test, "test")
    random.Random(0).shuffle(lines)
    lines = lines[:limit]
    references = [line.text for line in lines]
    known = {word for (word,) in lm.probabilities[0]}
    words = [word for text in references for word in text.split()]
    read, unknown = sum(len(text.split()) for text in sentences), sum(word not in known for word in words)
    print(f"language model of order {order}, of {len(sentences)} sentences, {read} words")
    print(f"{len(lines)} utterances, {len(words)} words, of which it does not know {100 * unknown / len(words):.1f} %")
    audio = [line.audio for line in lines]
    for label, search in (("without", None), ("with", settings)):
        found = transcribe(model, audio, progress=False, **({} if search is None else {"search": search}))
        result = total(found, references)
        print(f"  {label}: WER {100 * (result.wer or 0):.2f} %, CER {100 * (result.cer or 0):.2f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("names", "lm"))
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--spelled", action="store_true", help="names letter by letter")
    parser.add_argument("--development", action="store_true", help="other names and people")
    parser.add_argument("--test", type=Path, help="manifest, for lm")
    parser.add_argument("--order", type=int, default=3, help="of the language model")
    parser.add_argument("--limit", type=int, default=10**9, help="most utterances of --test")
    parser.add_argument("rest", nargs="*", help="manifests whose transcripts make the language model; NAME=VALUE")
    arguments = parser.parse_intermixed_args()
    quiet("ERROR")
    given = OmegaConf.to_container(OmegaConf.from_dotlist([text for text in arguments.rest if "=" in text]))
    texts = [Path(text) for text in arguments.rest if "=" not in text]
    model = ASRModel.restore_from(str(arguments.base), map_location="cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.what == "names":
            measure_names(model, SearchSettings(**given), arguments.spelled, arguments.development, folder)
        else:
            settings = SearchSettings(**{"lm": folder / "lm.arpa", **given})
            measure_lm(model, settings, texts, arguments.test, arguments.order, arguments.limit, folder)


if __name__ == "__main__":
    main()
