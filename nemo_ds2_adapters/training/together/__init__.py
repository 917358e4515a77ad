"""Many adapters trained at once."""

from nemo_ds2_adapters.training.together.loop import score_base, train_together
from nemo_ds2_adapters.training.together.member import EpochScore, Member, Settings

__all__ = ["EpochScore", "Member", "Settings", "score_base", "train_together"]
