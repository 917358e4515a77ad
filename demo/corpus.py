"""The demo's corpus: FLAC files spoken by espeak-ng, and NeMo manifests that list them.

Two demo users, whom the base model never heard, and any amount of speech of many other voices for the base::

    python -m demo.corpus users OUT_DIR
    python -m demo.corpus base OUT_DIR --utterances 2000 --seed 0

Running a command again writes the same bytes again.
"""

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy import signal
from tqdm import tqdm

from demo.sentences import distinct_sentences, sentence_sets
from demo.voices import SAMPLE_RATE, Synthesizer

LEVEL = 0.07  # root mean square of a recording, full scale is 1
PEAK = 0.95  # nothing gets louder than this
PAUSE_RANGE_S = (0.1, 0.4)  # silence before and after the speech
REVERBERANT_ENERGY = 0.3  # of a room's tail, relative to the direct sound


@dataclass(frozen=True)
class Channel:
    """What a room and a microphone make of a voice. The defaults are a good microphone in a quiet room.

    Attributes:
        low_hz, high_hz: the band that passes.
        resonance_hz, resonance_db: one peak in the frequency response; 0 dB is none.
        snr_db: speech level over noise level, in dB; the noise is white before the band limits it.
        reverberation_s: time in which the room's echo falls by 60 dB; 0 is no echo.

    Raises:
        ValueError: the band is empty or not within 0 to 8000 Hz, or the reverberation is negative.
    """

    low_hz: float = 50.0
    high_hz: float = 7500.0
    resonance_hz: float = 1500.0
    resonance_db: float = 0.0
    snr_db: float = 40.0
    reverberation_s: float = 0.0

    def __post_init__(self) -> None:
        nyquist = SAMPLE_RATE / 2
        if not 0 < self.low_hz < self.high_hz < nyquist:
            raise ValueError(f"need 0 < low_hz < high_hz < {nyquist:g}, got {self.low_hz:g} and {self.high_hz:g}")
        if self.reverberation_s < 0:
            raise ValueError(f"reverberation_s must not be negative, got {self.reverberation_s:g}")

    def apply(self, speech: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """``speech`` ``[samples]`` at 16 kHz as recorded, at level `LEVEL`. ``rng`` draws the noise."""
        sound = self._reverberate(speech.astype(np.float64))
        sound *= LEVEL / np.sqrt(np.mean(sound**2))
        sound += rng.standard_normal(sound.size) * LEVEL * 10 ** (-self.snr_db / 20)
        band = signal.butter(4, (self.low_hz, self.high_hz), "bandpass", fs=SAMPLE_RATE, output="sos")
        sound = signal.sosfilt(band, sound)
        peak = signal.iirpeak(self.resonance_hz, Q=3, fs=SAMPLE_RATE)
        sound += (10 ** (self.resonance_db / 20) - 1) * signal.lfilter(*peak, sound)
        sound *= min(LEVEL / np.sqrt(np.mean(sound**2)), PEAK / np.abs(sound).max())
        return np.asarray(sound, np.float32)

    def _reverberate(self, speech: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.reverberation_s == 0:
            return speech
        time = np.arange(1, 1 + round(self.reverberation_s * SAMPLE_RATE)) / SAMPLE_RATE
        # Seeded by a constant: the room stays the same from one utterance to the next.
        tail = np.random.default_rng(0).standard_normal(time.size) * 10 ** (-3 * time / self.reverberation_s)
        tail *= np.sqrt(REVERBERANT_ENERGY / np.sum(tail**2))
        return np.asarray(signal.fftconvolve(speech, np.concatenate(([1.0], tail)))[: speech.size])


@dataclass(frozen=True)
class Speaker:
    """A synthetic person: an espeak-ng voice, a way to speak, and the channel they are heard through.

    ``pitch``, ``rate`` and ``word_gap_ms`` are those of `Synthesizer.synthesize`.
    """

    name: str
    voice: str
    pitch: int = 50
    rate: int = 130
    word_gap_ms: int = 60
    channel: Channel = Channel()


@dataclass(frozen=True)
class Utterance:
    """A sentence and who says it."""

    speaker: Speaker
    text: str


# Accents and variants of the two users appear nowhere in the base's voices.
DEMO_USERS = (
    Speaker(  # a high, quick Caribbean voice on a narrow-band telephone headset
        "demo_anna",
        "en-029+f4",
        pitch=70,
        rate=150,
        word_gap_ms=40,
        channel=Channel(low_hz=300, high_hz=3400, resonance_hz=1200, resonance_db=8, snr_db=20, reverberation_s=0.1),
    ),
    Speaker(  # a low, slow, trembling Scottish voice far from a cheap microphone
        "demo_boris",
        "en-gb-scotland+grandpa",
        pitch=30,
        rate=120,
        word_gap_ms=50,
        channel=Channel(low_hz=150, high_hz=5000, resonance_hz=2500, resonance_db=6, snr_db=15, reverberation_s=0.4),
    ),
)

BASE_ACCENTS = ("en-us", "en-us-nyc", "en", "en-gb-x-rp", "en-gb-x-gbclan")
BASE_VARIANTS = (
    *("Alex", "Andy", "Gene", "Lee", "Mario", "Michael", "adam", "edward", "ian", "max", "michel", "robert", "victor"),
    *("m1", "m2", "m3", "m5", "m6"),
    *("Alicia", "Annie", "aunty", "belinda", "linda", "shelby", "steph", "f1", "f2", "f5"),
)
BASE_VOICES = tuple(f"{accent}+{variant}" for accent in BASE_ACCENTS for variant in BASE_VARIANTS)
VALIDATION_VOICES = BASE_VOICES[::10]  # not heard in the base's training


def write_corpus(out_dir: Path, splits: Mapping[str, Sequence[Utterance]], seed: int = 0) -> None:
    """Speak every utterance into ``out_dir/<split>/*.flac``, 16 bit at 16 kHz, listed in ``out_dir/<split>.json``.

    A manifest is in NeMo's format, one JSON object per line: ``audio_filepath`` relative to the manifest,
    ``duration`` in seconds, ``text`` and ``speaker``. It is written after its audio, so it never names a missing file.

    Args:
        out_dir: made where missing; files of the same name are replaced.
        splits: for each manifest's name, its utterances in order.
        seed: of the noise and the pauses.

    Raises:
        ImportError: espeak-ng is not installed.
        ValueError: espeak-ng does not have a speaker's voice.
    """
    synthesizer = Synthesizer()
    total = sum(len(utterances) for utterances in splits.values())
    with tqdm(total=total, desc=out_dir.name, unit="utterance") as progress:
        for split, utterances in splits.items():
            (out_dir / split).mkdir(parents=True, exist_ok=True)
            lines = []
            for index, utterance in enumerate(utterances):
                name = f"{split}/{utterance.speaker.name}-{index:05d}.flac"
                # Seeded by the name, an utterance does not depend on those before it.
                audio = speak(synthesizer, utterance, np.random.default_rng([seed, *name.encode()]))
                soundfile.write(out_dir / name, audio, SAMPLE_RATE, subtype="PCM_16")
                entry = {"audio_filepath": name, "duration": audio.size / SAMPLE_RATE, "text": utterance.text}
                lines.append(json.dumps(entry | {"speaker": utterance.speaker.name}) + "\n")
                progress.update()
            (out_dir / f"{split}.json").write_text("".join(lines), encoding="utf-8")


def speak(synthesizer: Synthesizer, utterance: Utterance, rng: np.random.Generator) -> NDArray[np.float32]:
    """One recording ``[samples]`` at 16 kHz: the speech, a pause on either side, through the speaker's channel."""
    speaker = utterance.speaker
    speech = synthesizer.synthesize(
        utterance.text, speaker.voice, pitch=speaker.pitch, rate=speaker.rate, word_gap_ms=speaker.word_gap_ms
    )
    before, after = (round(seconds * SAMPLE_RATE) for seconds in rng.uniform(*PAUSE_RANGE_S, size=2))
    return speaker.channel.apply(np.pad(speech, (before, after)), rng)


def write_user_corpora(
    out_dir: Path,
    users: Sequence[Speaker] = DEMO_USERS,
    train: int = 40,
    validation: int = 10,
    test: int = 40,
    seed: int = 0,
) -> None:
    """Write ``out_dir/<user>/{train,validation,test}.json`` of so many utterances; they share no sentence."""
    for user in users:
        sets = asdict(sentence_sets(user.name, train, validation, test, seed))
        splits = {split: [Utterance(user, text) for text in texts] for split, texts in sets.items()}
        write_corpus(out_dir / user.name, splits, seed)


def write_base_corpus(out_dir: Path, utterances: int = 2000, validation: int = 100, seed: int = 0) -> None:
    """Write ``out_dir/{train,validation}.json``: many voices, each utterance with its own pitch, rate and channel.

    The validation set's voices and sentences do not occur in training.
    """
    rng = random.Random(seed)
    sentences = distinct_sentences(validation + utterances, rng)
    training_voices = [voice for voice in BASE_VOICES if voice not in VALIDATION_VOICES]
    splits = {
        "train": [Utterance(_base_speaker(training_voices, rng), text) for text in sentences[validation:]],
        "validation": [Utterance(_base_speaker(VALIDATION_VOICES, rng), text) for text in sentences[:validation]],
    }
    write_corpus(out_dir, splits, seed)


@dataclass(frozen=True)
class Variety:
    """Between what and what people differ; units are those of `Speaker` and `Channel`."""

    pitch: tuple[int, int]
    rate: tuple[int, int]
    low_hz: tuple[float, float]
    high_hz: tuple[float, float]
    resonance_hz: tuple[float, float]
    resonance_db: tuple[float, float]
    snr_db: tuple[float, float]
    reverberation_s: tuple[float, float]

    def draw(self, name: str, voice: str, rng: random.Random) -> Speaker:
        """Somebody with this voice."""
        return Speaker(
            name=name,
            voice=voice,
            pitch=rng.randint(*self.pitch),
            rate=rng.randint(*self.rate),
            word_gap_ms=rng.randrange(0, 130, 10),
            channel=Channel(
                low_hz=rng.uniform(*self.low_hz),
                high_hz=rng.uniform(*self.high_hz),
                resonance_hz=rng.uniform(*self.resonance_hz),
                resonance_db=rng.uniform(*self.resonance_db),
                snr_db=rng.uniform(*self.snr_db),
                reverberation_s=rng.uniform(*self.reverberation_s),
            ),
        )


BASE_VARIETY = Variety(
    pitch=(30, 70),
    rate=(120, 190),
    low_hz=(40, 150),
    high_hz=(6000, 7800),
    resonance_hz=(500, 4000),
    resonance_db=(-3, 3),
    snr_db=(20, 45),
    reverberation_s=(0, 0.2),
)


def _base_speaker(voices: Sequence[str], rng: random.Random) -> Speaker:
    voice = rng.choice(voices)
    return BASE_VARIETY.draw("base_" + voice.replace("+", "_"), voice, rng)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the demo's speech corpus.")
    commands = parser.add_subparsers(dest="command", required=True)
    users = commands.add_parser("users", help="the two demo users")
    base = commands.add_parser("base", help="speech of many voices for the base model")
    for command in (users, base):
        command.add_argument("out_dir", type=Path)
        command.add_argument("--seed", type=int, default=0)
    base.add_argument("--utterances", type=int, default=2000, help="for training")
    base.add_argument("--validation", type=int, default=100, help="utterances for validation")
    options = parser.parse_args(arguments)
    if options.command == "users":
        write_user_corpora(options.out_dir, seed=options.seed)
    else:
        write_base_corpus(options.out_dir, options.utterances, options.validation, options.seed)


if __name__ == "__main__":
    main()
