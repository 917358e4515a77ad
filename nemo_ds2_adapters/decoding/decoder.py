"""From a CTC model's log probabilities to text, timestamps and confidence."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from nemo.collections.asr.models import EncDecCTCModel
from nemo.collections.asr.parts.submodules.ctc_decoding import (
    AbstractCTCDecoding,
    CTCBPEDecoding,
    CTCDecoding,
    CTCDecodingConfig,
)
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from nemo.collections.asr.parts.utils.timestamp_utils import process_timestamp_outputs
from omegaconf import OmegaConf
from torch.nn.utils.rnn import pad_sequence

from nemo_ds2_adapters.errors import InputError

SPANS = ("char", "word", "segment")  # what timestamps are of


class Decoder:
    """The model's decoding, or one like it that computes more; NeMo's own call would change the model's config.

    Args:
        model: whose decoding settings and vocabulary are used.
        timestamps: compute `timestamp["word"]`, `["char"]` and `["segment"]`, with `start` and `end` in seconds.
        confidence: compute `word_confidence`, `token_confidence` and `frame_confidence`.

    Raises:
        InputError: the model's decoding strategy cannot compute these.
    """

    def __init__(self, model: EncDecCTCModel, timestamps: bool = False, confidence: bool = False) -> None:
        self.timestamps = timestamps
        self.stride = float(model.cfg.preprocessor.get("window_stride", 0.01))  # seconds between input frames
        self.subsampling = int(getattr(model.encoder, "subsampling_factor", 1))  # input frames per output frame
        self._of_characters = confidence and not hasattr(model, "tokenizer")
        self._decoding = _more(model, timestamps, confidence) if timestamps or confidence else model.decoding

    @property
    def blank(self) -> int:
        """Number of the blank."""
        return self._decoding.blank_id

    @property
    def frame_seconds(self) -> float:
        """Seconds between output frames."""
        return self.stride * self.subsampling

    def __call__(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best hypothesis for each `[T, V]`."""
        if not log_probs:
            return []
        lengths = torch.tensor([len(output) for output in log_probs])
        padded = pad_sequence([torch.from_numpy(output) for output in log_probs], batch_first=True)
        found = self._decoding.ctc_decoder_predictions_tensor(padded, decoder_lengths=lengths, return_hypotheses=True)
        best = [hypothesis[0] if isinstance(hypothesis, list) else hypothesis for hypothesis in found]
        if self._of_characters:
            for hypothesis in best:
                hypothesis.word_confidence = self._word_confidence(hypothesis)
        if self.timestamps:
            process_timestamp_outputs(best, self.subsampling, self.stride)  # in place
            for hypothesis in best:
                for kind in SPANS:
                    hypothesis.timestamp[kind] = [_plain(span) for span in hypothesis.timestamp[kind]]
        return best

    def text(self, tokens: Sequence[int]) -> str:
        """Of token numbers without repetitions and blanks."""
        return self._decoding.decode_tokens_to_str_with_strip_punctuation(list(tokens))

    def _word_confidence(self, hypothesis: Hypothesis) -> list[float]:
        """NeMo's own fails for characters: it takes their numbers for text."""
        characters = zip(hypothesis.timestamp["char"], hypothesis.token_confidence)
        groups = groupby(characters, key=lambda item: item[0]["char"] in ("", " "))
        words = [[confidence for _, confidence in group] for is_space, group in groups if not is_space]
        return [self._decoding._aggregate_confidence(word) for word in words]


def manifest_fields(hypothesis: Hypothesis) -> dict[str, Any]:
    """A hypothesis as NeMo's scripts write it into a manifest: `pred_text`, and what else was computed."""
    fields: dict[str, Any] = {"pred_text": hypothesis.text}
    if isinstance(hypothesis.timestamp, dict):
        for kind in SPANS:
            fields[f"timestamp_{kind}"] = [_plain(span) for span in hypothesis.timestamp.get(kind, [])]
    if hypothesis.word_confidence:
        fields["word_confidence"] = [float(value) for value in hypothesis.word_confidence]
    return fields


def _plain(span: dict[str, Any]) -> dict[str, Any]:
    """NeMo leaves numpy's numbers in it, which JSON does not take."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in span.items()}


def _more(model: EncDecCTCModel, timestamps: bool, confidence: bool) -> AbstractCTCDecoding:
    defaults = OmegaConf.create(OmegaConf.to_container(OmegaConf.structured(CTCDecodingConfig)))
    cfg = OmegaConf.merge(defaults, model.cfg.decoding)
    cfg.compute_timestamps = timestamps or cfg.compute_timestamps
    if confidence:
        for kind in ("frame", "token", "word") if hasattr(model, "tokenizer") else ("frame", "token"):
            cfg.confidence_cfg[f"preserve_{kind}_confidence"] = True
    try:
        if hasattr(model, "tokenizer"):
            return CTCBPEDecoding(cfg, tokenizer=model.tokenizer)
        return CTCDecoding(cfg, vocabulary=list(model.decoder.vocabulary))
    except NotImplementedError as error:
        raise InputError(f"timestamps={timestamps}, confidence={confidence}: {error}") from error
