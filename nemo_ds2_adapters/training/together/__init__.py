"""Many adapters trained at once."""

from nemo_ds2_adapters.training.together.loop import Together, score
from nemo_ds2_adapters.training.together.member import CTCScore, Member, Settings, patience_of
from nemo_ds2_adapters.training.together.parts import copied_parts

__all__ = ["CTCScore", "Member", "Settings", "Together", "copied_parts", "patience_of", "score"]
