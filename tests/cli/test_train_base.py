"""The recipes that are shipped for base models are what the command accepts."""

import pytest

from nemo_ds2_adapters.cli.scripts.script import check_config
from nemo_ds2_adapters.cli.scripts.train_base import CONFIGS
from nemo_ds2_adapters.configs import CONFIGS as SHIPPED
from nemo_ds2_adapters.configs import shipped_config

RECIPES = sorted(path.stem for path in (SHIPPED / "deepspeech2").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_shipped_recipe_is_accepted(recipe: str) -> None:
    check_config(shipped_config(f"deepspeech2/{recipe}"), *(shipped_config(f"deepspeech2/{name}") for name in CONFIGS))
