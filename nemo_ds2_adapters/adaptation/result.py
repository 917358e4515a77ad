"""What came of one adapter's training."""

from dataclasses import dataclass
from pathlib import Path

from nemo_ds2_adapters.adapters.chosen import ChosenAdapter


@dataclass(frozen=True)
class Adaptation:
    """Word error rates are fractions: of the validation data, or without any of cross-validation."""

    adapter: ChosenAdapter
    wer_before: float | None  # of what the adapter is compared with; None if nothing was compared
    wer_after: float | None  # of what was kept
    epochs: int  # trained before the weights that were kept; 0: none was better than the start, which was kept
    history: list[dict[str, float]]  # of every epoch: `train_loss`, `seconds`, and `val_wer` where it was validated
    seconds: float
    model_path: Path  # the adapted `.nemo`
    path: Path | None = None  # the file of the adapter alone
    is_cross_validated: bool = False  # the word error rates are those of cross-validation
    is_kept: bool = True  # False: the base was better, and this kind of adapter cannot be the base, so there is none
    was_finished: bool = False  # an earlier run had trained it; this one found its result

    def lines(self) -> list[str]:
        """For a person."""
        said = f"adapter {self.adapter.shown}: {self.epochs} epochs"
        if not self.is_kept:
            said = f"adapter {self.adapter.shown}: no epoch was better than the base: there is no adapter"
        elif self.epochs == 0:
            said = f"adapter {self.adapter.shown}: no epoch was better than the start, which was kept"
        if self.wer_before is not None and self.wer_after is not None:
            kind = "cross-validated" if self.is_cross_validated else "validation"
            said += f", {kind} WER {100 * self.wer_before:.1f} % -> {100 * self.wer_after:.1f} %"
        said += ", trained by an earlier run" if self.was_finished else f", {self.seconds:.0f} s"
        lines = [said, f"  model    {self.model_path}"]
        if self.path:
            lines.append(f"  adapter  {self.path} ({self.path.stat().st_size / 1000:.0f} kB)")
        return lines
