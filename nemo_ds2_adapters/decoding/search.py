"""Decoding with a language model, and with words that differ from one utterance of a batch to the next."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis

from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.decoding.alignment import following, path_of
from nemo_ds2_adapters.decoding.beam import Beam, PrefixBeam, Scorer
from nemo_ds2_adapters.decoding.decoder import Decoder
from nemo_ds2_adapters.decoding.incremental import Partial
from nemo_ds2_adapters.decoding.language_model import LanguageModel, Reader
from nemo_ds2_adapters.decoding.phrases import Phrases, spelled
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.unicode_form import FORMS
from nemo_ds2_adapters.store.words import checked_words

REMEMBERED = 256  # people whose words need not be made into an automaton again


@dataclass(frozen=True)
class SearchSettings:
    """What decoding listens to beside the model, and how much. Weights are natural logarithms; docs/words.md says how
    they were chosen.

    Args:
        lm: ARPA file of a word language model; None for none.
        lm_weight: of its logarithms.
        word_bonus: with a language model, for each word: it prefers few and short ones.
        letter_penalty: with a language model, for each letter of a word that it does not know.
        phrase_bonus: for each letter of a personal word.
        beam_size: texts that are followed at once.

    Raises:
        InputError: a number is out of range.
    """

    lm: str | os.PathLike[str] | None = None
    lm_weight: float = 0.5
    word_bonus: float = 0.5
    letter_penalty: float = -1.0
    phrase_bonus: float = 3.0
    beam_size: int = 64

    def __post_init__(self) -> None:
        for name in ("lm_weight", "word_bonus", "letter_penalty", "phrase_bonus"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)}: expected a finite number")
        check_whole("beam_size", self.beam_size, 1)


DEFAULT = SearchSettings()


class Search:
    """A model's labels and a language model, with which texts are searched; any number of them at the same time.

    Args:
        model: of characters, one of which is the space.
        settings: what to listen to.

    Raises:
        InputError: the model has other units, or the language model cannot be used.
    """

    def __init__(self, model: EncDecCTCModel, settings: SearchSettings = DEFAULT) -> None:
        self.settings = settings
        self._labels = [] if hasattr(model, "tokenizer") else list(model.decoder.vocabulary)
        self._form = FORMS.get(str((model.cfg.get("train_ds") or {}).get("parser")))
        self._phrases = lru_cache(REMEMBERED)(self._automaton)
        self._model = None
        if settings.lm is not None:
            self._check_labels("a language model")
            s = settings
            self._model = LanguageModel(s.lm, self._labels, s.lm_weight, s.word_bonus, s.letter_penalty)  # type: ignore

    def needed(self, words: Sequence[str]) -> bool:
        """Whether there is anything to listen to for an utterance with these words."""
        return bool(words) or self._model is not None

    def begin(self, words: Sequence[str] = ()) -> PrefixBeam:
        """A search for one text. Raises what `check` does."""
        scorers: list[Scorer] = [self._phrases(checked_words(words))] if words else []
        if self._model is not None:
            scorers.append(Reader(self._model))
        # Without a language model, the text is the greedy one but for the words.
        return PrefixBeam(len(self._labels), scorers, Beam(self.settings.beam_size, sums=self._model is not None))

    def found(self, log_probs: np.ndarray, words: Sequence[str] = ()) -> np.ndarray:
        """Log probabilities `[T, V]` of which any decoding reads the text that was found; as they are where there is
        nothing to listen to."""
        if not self.needed(words) or not len(log_probs):
            return log_probs
        beam = self.begin(words)
        beam.accept(log_probs)
        return following(log_probs, path_of(log_probs, *beam.best(final=True), len(self._labels)))

    def check(self, words: Sequence[str]) -> None:
        """Make sure that these words can be listened to.

        Raises:
            InputError: the model cannot write one of them, which it names, or they are too many or too long.
        """
        if words:
            self._phrases(checked_words(words))

    def _automaton(self, words: tuple[str, ...]) -> Phrases:
        self._check_labels("personal words")
        phrases = [spelled(word, self._labels, self._form) for word in words]
        return Phrases(phrases, self._labels.index(" "), len(self._labels), self.settings.phrase_bonus)

    def _check_labels(self, what: str) -> None:
        if " " not in self._labels:
            raise InputError(f"{what} cannot be used: the model's units are not characters with a space between words")


class BeamDecoder:
    """Decoding of one stretch of speech with words and a language model, an `IncrementalDecoder`.

    What all texts that are followed begin with is stable.

    Args:
        decoder: of the model, greedy; it decides what hypotheses contain.
        search: for the same model.
        words: of the person.

    Raises:
        InputError: the model cannot write one of the words.
    """

    def __init__(self, decoder: Decoder, search: Search, words: Sequence[str] = ()) -> None:
        self._decoder = decoder
        self._beam = search.begin(words)
        self._log_probs = [np.zeros((0, decoder.blank + 1), np.float32)]

    def accept(self, log_probs: np.ndarray) -> None:
        """Take the next frames, `[T, V]`, blank last."""
        self._log_probs.append(log_probs)
        self._beam.accept(log_probs)

    @property
    def partial(self) -> Partial:
        """The text so far."""
        best, _ = self._beam.best()
        text = self._decoder.text(best)
        stable = self._decoder.text(best[: self._beam.settled()])
        return Partial(stable, text[len(stable) :])

    def finish(self) -> Hypothesis:
        """What was said, with what the decoder computes beside."""
        log_probs = np.concatenate(self._log_probs)
        path = path_of(log_probs, *self._beam.best(final=True), self._decoder.blank)
        return self._decoder([following(log_probs, path)])[0]
