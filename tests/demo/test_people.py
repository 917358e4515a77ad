"""People for a prior and people to show it on: strangers to each other, to the base and to the demo's users."""

import json
from pathlib import Path

import soundfile

from demo.corpus import BASE_VARIANTS, DEMO_USERS, SAMPLE_RATE
from demo.people import (
    OTHER_ACCENTS,
    OTHER_VARIANTS,
    POPULATION_ACCENTS,
    POPULATION_VARIANTS,
    main,
    write_others,
    write_population,
)
from demo.voices import Synthesizer


def test_groups_share_no_variant() -> None:
    users = [user.voice.partition("+")[2] for user in DEMO_USERS]
    every = [*BASE_VARIANTS, *POPULATION_VARIANTS, *OTHER_VARIANTS, *users]
    assert len(every) == len(set(every))
    assert not {user.voice.partition("+")[0] for user in DEMO_USERS} & set(POPULATION_ACCENTS)


def test_every_voice_exists() -> None:
    synthesizer = Synthesizer()
    for variant in (*POPULATION_VARIANTS, *OTHER_VARIANTS):
        assert synthesizer.synthesize("yes", f"en-us+{variant}").size
    for accent in OTHER_ACCENTS:
        assert synthesizer.synthesize("yes", accent).size


def test_everybody_has_so_many_sentences_and_none_twice(tmp_path: Path) -> None:
    write_others(tmp_path, people=2, train=3, test=2)
    train, test = (
        [json.loads(line) for line in (tmp_path / f"{split}.json").read_text().splitlines()]
        for split in ("train", "test")
    )
    assert [entry["speaker"] for entry in train] == ["other_000"] * 3 + ["other_001"] * 3
    assert [entry["speaker"] for entry in test] == ["other_000"] * 2 + ["other_001"] * 2
    assert not {(e["speaker"], e["text"]) for e in train} & {(e["speaker"], e["text"]) for e in test}
    assert soundfile.info(tmp_path / train[0]["audio_filepath"]).samplerate == SAMPLE_RATE


def test_same_people_again(tmp_path: Path) -> None:
    write_population(tmp_path / "first", people=1, sentences=2)
    main(["population", str(tmp_path / "second"), "--people", "1"])
    first, second = (sorted((tmp_path / name / "train").glob("*.flac"))[:2] for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
