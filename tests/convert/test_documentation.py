"""The page on conversion names every option, and every feature it promises."""

import inspect
from pathlib import Path

from nemo_ds2_adapters import convert_checkpoint
from nemo_ds2_adapters.convert.features import DEEPSPEECH_PYTORCH, KOSPEECH

PAGE = Path(__file__).parents[2] / "docs" / "convert.md"


def test_every_option_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = [*list(inspect.signature(convert_checkpoint).parameters)[2:], *DEEPSPEECH_PYTORCH, *KOSPEECH]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert [name for name in names[:8] if f"--{name.replace('_', '-')}" not in text and name != "features"] == []
