"""Hydra plugin: scripts that know only NeMo find our configs by name, and restore, train and run our models.

Hydra imports this module in every Hydra app of the environment, and NeMo does so while it is itself half imported.
So nothing heavy is imported here, and an app that does not use NeMo is left alone.
"""

import sys
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

CONFIG_FOLDERS = ("", "asr_adapters", "deepspeech2")  # "" for names with a folder: deepspeech2/deepspeech2_small


class NemoDs2AdaptersPlugin(SearchPathPlugin):
    """Registers the package with NeMo and makes its configs the last that a name is looked up in."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Hydra calls this when an app starts, after the app's own imports."""
        if "nemo.core" not in sys.modules:
            return
        import nemo_ds2_adapters

        # Not pkg://, which Hydra calls unavailable for folders without an __init__.py.
        configs = Path(nemo_ds2_adapters.__file__).parent / "conf"
        for folder in CONFIG_FOLDERS:
            search_path.append(provider="nemo_ds2_adapters", path=f"file://{configs / folder}")
