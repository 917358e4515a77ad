"""The adapters in a `.nemo`."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from nemo_ds2_adapters.adapters.adapter import Adapter, loaded
from nemo_ds2_adapters.adapters.attach import attach
from nemo_ds2_adapters.adapters.attached import attached_adapter, without_info
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.enabling import enable_adapters, enabled_names
from nemo_ds2_adapters.adapters.fingerprint import check_base
from nemo_ds2_adapters.adapters.lifecycle import average_adapters, delete_adapter, rename_adapter
from nemo_ds2_adapters.cli.sources import Findings, Progress, Row, WithoutHistory, described, row
from nemo_ds2_adapters.errors import AdapterFileError, InputError, naming
from nemo_ds2_adapters.formats.nemo_archive import restore_model, save_nemo
from nemo_ds2_adapters.formats.reading import OURS


class ModelSource(WithoutHistory):
    """A `.nemo`; every change writes it anew, beside the old one, which it then replaces. What is new is disabled."""

    format = OURS

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.model = restore_model(str(path), None)

    def rows(self, prefix: str, since: datetime | None) -> list[Row]:
        self.refuse(since=since)
        enabled = enabled_names(self.model)
        adapters = [without_info(self.model, name) for name in list_adapters(self.model) if name.startswith(prefix)]
        return [{**row(adapter), "enabled": adapter.name in enabled} for adapter in adapters]

    def about(self, name: str, version: int | None) -> Row:
        return described(self.get(name, version), self.format)

    def get(self, name: str, version: int | None) -> Adapter:
        self.refuse(version=version)
        return attached_adapter(self.model, name)

    def take(self, adapter: Adapter, label: str, name: str | None, any_base: bool) -> str:
        before = enabled_names(self.model)
        with naming(label):
            if not any_base:
                check_base(self.model, adapter, "--any-base")
            attached = attach(self.model, loaded(adapter), name, strict_base=False)
        enable_adapters(self.model, before)
        save_nemo(self.model, self.path)
        return attached

    def rename(self, old: str, new: str) -> None:
        rename_adapter(self.model, old, new)
        save_nemo(self.model, self.path)

    def average(self, names: Sequence[str], target: str, weights: Sequence[float] | None) -> None:
        average_adapters(self.model, names, target, weights)
        save_nemo(self.model, self.path)

    def delete(self, name: str, version: int | None) -> None:
        self.refuse(version=version)
        delete_adapter(self.model, name)
        save_nemo(self.model, self.path)

    def verify(self, on_progress: Progress) -> Findings:
        """Check that every adapter of the config has its modules, and finite weights."""
        problems = []
        names = list_adapters(self.model)
        for i, name in enumerate(names):
            try:
                without_info(self.model, name)
            except (AdapterFileError, InputError) as error:
                problems.append(f"{self.path}: {error}")
            on_progress((i + 1) / len(names))
        return Findings(len(names), [], problems)
