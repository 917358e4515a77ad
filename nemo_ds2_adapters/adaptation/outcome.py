"""What a training leaves behind: the adapted model, the adapter alone, and a few lines that say what was reached."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from nemo.collections.asr.models import ASRModel
from nemo.utils.callbacks import NeMoModelCheckpoint
from omegaconf import DictConfig

from nemo_ds2_adapters.adapters.chosen import ChosenAdapter
from nemo_ds2_adapters.formats.file import save_adapter


@dataclass(frozen=True)
class Adaptation:
    """What came of an adapter's training. Word error rates are fractions, of the validation data."""

    adapter: ChosenAdapter
    wer_before: float | None  # None without validation
    wer_after: float | None  # of what was kept
    epochs: int  # trained before the weights that were kept; 0: no epoch was better than the start, which was kept
    history: list[dict[str, float]]  # of every epoch: `train_loss`, `val_wer`, `seconds`
    seconds: float
    model_path: Path | None = None  # the adapted `.nemo`
    path: Path | None = None  # the file of the adapter alone

    def lines(self) -> list[str]:
        """For a person."""
        said = f"adapter {self.adapter.shown}: {self.epochs} epochs"
        if self.wer_before is not None and self.wer_after is not None:
            said += f", validation WER {100 * self.wer_before:.1f} % -> {100 * self.wer_after:.1f} %"
        lines = [f"{said}, {self.seconds:.0f} s"]
        if self.epochs == 0:
            lines = [f"adapter {self.adapter.shown}: no epoch was better than the start, which was kept"]
        lines.append(f"  model    {self.model_path}")
        if self.path:
            lines.append(f"  adapter  {self.path} ({self.path.stat().st_size / 1000:.0f} kB)")
        return lines


def validation_wer(trainer: pl.Trainer, model: ASRModel) -> float:
    """Word error rate of the model as it is on its validation data, as a fraction."""
    return float(trainer.validate(model, verbose=False)[0]["val_wer"])


def best_validation_wer(trainer: pl.Trainer) -> float | None:
    """Word error rate of the epoch that was kept, as a fraction; None if there was no validation."""
    callback = trainer.checkpoint_callback
    if not isinstance(callback, NeMoModelCheckpoint) or callback.best_model_score is None:
        return None
    return float(callback.best_model_score)


def save_model(trainer: pl.Trainer, model: ASRModel, log_dir: Path, name: str, is_kept: bool = True) -> Path:
    """The trained model as a `.nemo`: the checkpoint callback has written the best epoch, or it is written now.

    Args:
        trainer: after training.
        model: with the weights to keep.
        log_dir: of the experiment.
        name: of the file, if there is no checkpoint callback.
        is_kept: whether what a checkpoint callback wrote is to be kept.
    """
    callback = trainer.checkpoint_callback
    if isinstance(callback, NeMoModelCheckpoint):
        path = Path(callback.dirpath) / f"{callback.prefix}{callback.postfix}"
        if is_kept:
            return path
    else:
        path = log_dir / "checkpoints" / f"{name}.nemo"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_to(str(path))
    return path


def save(result: Adaptation, trainer: pl.Trainer, model: ASRModel, log_dir: Path, cfg: DictConfig) -> Adaptation:
    """Save the model, and the adapter beside it.

    Args:
        result: what was reached; goes into the adapter's file.
        trainer: its checkpoint callback has saved the best epoch, if there was validation.
        model: with the weights to keep.
        log_dir: of the experiment.
        cfg: the config of conf/asr_adapters/asr_adaptation.yaml.

    Returns:
        the result with the paths in it.
    """
    name = cfg.exp_manager.name or cfg.name
    model_path = save_model(trainer, model, log_dir, name, is_kept=result.epochs > 0)
    path = None
    if cfg.model.adapter.adapter_state_dict_name:
        path = model_path.parent / cfg.model.adapter.adapter_state_dict_name
        metadata: dict[str, Any] = {
            "wer_before": result.wer_before,
            "wer_after": result.wer_after,
            "epochs": result.epochs,
        }
        if result.adapter.user_id is not None:
            metadata["user_id"] = result.adapter.user_id
        save_adapter(model, str(result.adapter.name), path, metadata)
    return replace(result, model_path=model_path, path=path)
