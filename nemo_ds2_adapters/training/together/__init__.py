"""Many adapters trained at once."""

from nemo_ds2_adapters.training.together.loop import score, train_together
from nemo_ds2_adapters.training.together.member import EpochScore, Member, Settings
from nemo_ds2_adapters.training.together.stack import copied_parts

__all__ = ["EpochScore", "Member", "Settings", "copied_parts", "score", "train_together"]
