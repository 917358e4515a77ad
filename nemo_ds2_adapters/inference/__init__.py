"""Using adapted models."""

from nemo_ds2_adapters.inference.evaluation import Score, total_score, transcribe_section

__all__ = ["Score", "total_score", "transcribe_section"]
