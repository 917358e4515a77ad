"""What a training leaves behind: the adapted model, the adapter alone, and a few lines that say what was reached."""

from pathlib import Path

import lightning.pytorch as pl
from nemo.collections.asr.models import ASRModel
from nemo.utils.callbacks import NeMoModelCheckpoint

from nemo_ds2_adapters.adapters import save_adapter
from nemo_ds2_adapters.training.chosen_adapter import ChosenAdapter


def validation_wer(trainer: pl.Trainer, model: ASRModel) -> float:
    """Word error rate of the model as it is on its validation data, as a fraction."""
    return float(trainer.validate(model, verbose=False)[0]["val_wer"])


def best_validation_wer(trainer: pl.Trainer) -> float | None:
    """Word error rate of the epoch that was kept, as a fraction; None if there was no validation."""
    callback = trainer.checkpoint_callback
    if not isinstance(callback, NeMoModelCheckpoint) or callback.best_model_score is None:
        return None
    return float(callback.best_model_score)


def save_model(trainer: pl.Trainer, model: ASRModel, log_dir: Path, name: str) -> Path:
    """The trained model as a `.nemo`: the checkpoint callback has written the best epoch, or it is written now."""
    callback = trainer.checkpoint_callback
    if isinstance(callback, NeMoModelCheckpoint):
        return Path(callback.dirpath) / f"{callback.prefix}{callback.postfix}"
    path = log_dir / "checkpoints" / f"{name}.nemo"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_to(str(path))
    return path


def report(
    model: ASRModel,
    adapter: ChosenAdapter,
    wer_before: float | None,
    wer_after: float | None,
    model_path: Path,
    file_name: str | None,
) -> list[str]:
    """Save the adapter beside the model and say what was reached.

    Args:
        model: trained.
        adapter: which one; its user id goes into the file.
        wer_before: validation WER as a fraction, None without validation.
        wer_after: the same, of the epoch that was kept.
        model_path: the `.nemo`.
        file_name: of the adapter file beside it, None for no such file.

    Returns:
        lines for a person.
    """
    lines = [f"adapter {adapter.shown} trained"]
    if wer_before is not None and wer_after is not None:
        lines = [f"adapter {adapter.shown}: validation WER {100 * wer_before:.1f} % -> {100 * wer_after:.1f} %"]
    lines.append(f"  model    {model_path}")
    if file_name:
        path = model_path.parent / file_name
        metadata: dict[str, float | str | None] = {"wer_before": wer_before, "wer_after": wer_after}
        if adapter.user_id is not None:
            metadata["user_id"] = adapter.user_id
        save_adapter(model, adapter.name, path, metadata)
        lines.append(f"  adapter  {path} ({path.stat().st_size / 1000:.0f} kB)")
    return lines
