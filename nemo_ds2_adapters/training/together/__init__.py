"""Many adapters trained at once."""

from nemo_ds2_adapters.training.together.loop import Together, score
from nemo_ds2_adapters.training.together.member import Member, Score, Settings, TokenScore
from nemo_ds2_adapters.training.together.parts import copied_parts

__all__ = ["Member", "Score", "Settings", "Together", "TokenScore", "copied_parts", "score"]
