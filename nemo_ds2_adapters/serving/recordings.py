"""What a person has recorded for their adapter: in the store's folder of the person, which erasing them removes."""

import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.data.findings import check_recordings
from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.transcripts import check_vocabulary
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import write_atomically
from nemo_ds2_adapters.serving.refusal import Refusal
from nemo_ds2_adapters.store.store import AdapterStore

FOLDER = "recordings"
MANIFEST = "manifest.json"  # NeMo's, with `recording`, `sha256` and `recorded` of each
MOST_SECONDS = 3600.0  # of one person's speech
MODE = 0o600
DAY = 86400.0  # seconds
FATAL = ("silent", "transcript longer than its frames allow")  # findings with which nothing can be learnt


@dataclass(frozen=True)
class Recording:
    """A sentence that a person has said."""

    number: int
    text: str
    seconds: float
    recorded: float  # seconds since 1970
    sha256: str  # of the samples
    path: Path

    @property
    def line(self) -> dict[str, Any]:
        """As the manifest has it."""
        own = {"recording": self.number, "recorded": self.recorded, "sha256": self.sha256}
        return {"audio_filepath": self.path.name, "duration": self.seconds, "text": self.text, **own}

    @classmethod
    def of(cls, line: dict[str, Any], folder: Path) -> "Recording":
        """The inverse of `line`."""
        own = (line["recording"], line["text"], line["duration"], line["recorded"], line["sha256"])
        return cls(*own, folder / line["audio_filepath"])


class Recordings:
    """Everybody's recordings. Who changes a person's recordings holds a lock against others who do.

    Args:
        store: in a local directory.
        model: they are to adapt.
        keep_days: how long they are kept; 0: until an adapter was trained of them, a day at most.
    """

    def __init__(self, store: AdapterStore, model: EncDecCTCModel, keep_days: float) -> None:
        self._store, self._model, self._keep_days = store, model, keep_days
        self._sample_rate = int(model.cfg.sample_rate)

    def add(self, user: str, samples: np.ndarray, text: str) -> tuple[Recording, list[str]]:
        """Keep a recording `[T]` at the model's rate, and say what it is like; what is there already stays as it is.

        Raises:
            InputError: it is silent, too short for its text, or the model cannot write the text.
            Refusal: the person has recorded too much.
        """
        text = " ".join(text.split())
        if not text:
            raise InputError("text: is empty; write what is said")
        seconds = len(samples) / self._sample_rate
        utterance = Utterance(Path("the recording"), text, seconds, samples=samples)
        check_vocabulary([utterance], "text", self._model)
        findings = list(check_recordings([utterance], self._model).names)
        if fatal := [finding for finding in findings if finding in FATAL]:
            raise InputError(f"file: is {fatal[0]}; record it again")
        digest = hashlib.sha256(samples.tobytes()).hexdigest()
        known = self.of(user)
        for one in known:
            if (one.sha256, one.text) == (digest, text):  # sent again
                return one, findings
        if sum(one.seconds for one in known) + seconds > MOST_SECONDS:
            raise Refusal(413, "too_much", f"more than {MOST_SECONDS:g} s recorded: train, or remove some")
        folder = self._store.cache_folder(user) / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        number = max((one.number for one in known), default=0) + 1
        new = Recording(number, text, seconds, time.time(), digest, folder / f"{number:04d}.flac")
        content = io.BytesIO()
        soundfile.write(content, samples, self._sample_rate, format="FLAC", subtype="PCM_16")
        write_atomically(new.path, content.getvalue(), MODE)
        _write(folder, [*(one for one in known if one.sha256 != digest), new])
        return new, findings

    def of(self, user: str) -> list[Recording]:
        """A person's recordings, in their order."""
        path = self._store.cache_folder(user, create=False) / FOLDER / MANIFEST
        return _read(path) if path.exists() else []

    def remove(self, user: str, number: int) -> None:
        """Remove one. Raises Refusal: there is none of this number."""
        known = self.of(user)
        if number not in [one.number for one in known]:
            raise Refusal(404, "unknown_recording", f"there is no recording {number} of this user")
        self._keep(known, [one for one in known if one.number != number])

    def trained(self, user: str, numbers: set[int]) -> None:
        """An adapter was trained of these: they go, unless they are kept."""
        if not self._keep_days:
            known = self.of(user)
            self._keep(known, [one for one in known if one.number not in numbers])

    def old(self) -> Iterator[Path]:
        """The folders of people with recordings older than they are kept."""
        for folder in self._store.cached(FOLDER):
            if (folder / MANIFEST).exists() and self._fresh(_read(folder / MANIFEST)) != _read(folder / MANIFEST):
                yield folder

    def remove_old(self, folder: Path) -> None:
        """Remove what is older than it is kept."""
        if (folder / MANIFEST).exists():
            known = _read(folder / MANIFEST)
            self._keep(known, self._fresh(known))

    def _fresh(self, recordings: list[Recording]) -> list[Recording]:
        since = time.time() - (self._keep_days or 1.0) * DAY if math.isfinite(self._keep_days) else 0.0
        return [one for one in recordings if one.recorded >= since]

    def _keep(self, known: list[Recording], kept: list[Recording]) -> None:
        if known and not kept:
            shutil.rmtree(known[0].path.parent)
        elif kept != known:
            _write(known[0].path.parent, kept)


def _read(path: Path) -> list[Recording]:
    return [Recording.of(json.loads(line), path.parent) for line in path.read_text("utf-8").splitlines()]


def _write(folder: Path, recordings: list[Recording]) -> None:
    """Write the manifest, and remove what it does not name."""
    lines = "".join(json.dumps(one.line) + "\n" for one in recordings)
    write_atomically(folder / MANIFEST, lines.encode(), MODE)
    for path in set(folder.glob("*.flac")) - {one.path for one in recordings}:
        path.unlink()
