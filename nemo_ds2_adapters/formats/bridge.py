"""Until readers and writers of files take `Adapter`: the agreed functions, made of those that there are."""

from dataclasses import replace
from typing import Any

from nemo_ds2_adapters.adapters.adapter import Adapter, Info


def from_contents(contents: Any) -> dict[str, Adapter]:
    from nemo_ds2_adapters.formats.contents import OURS

    about = contents.info
    info = None
    if contents.format == OURS:
        info = Info(about["fingerprint"], about["base"], about["created"], about["versions"], about["metadata"])
    return {
        name: Adapter(
            name,
            a.config,
            dict(zip(a.paths or map(str, range(len(a.states))), a.states)),
            a.prefix,
            info,
        )
        for name, a in contents.adapters.items()
    }


def to_contents(adapter: Adapter) -> Any:
    from nemo_ds2_adapters.formats.contents import NEMO, OURS, FileContents, StoredAdapter

    stored = StoredAdapter(
        adapter.name,
        adapter.module,
        dict(adapter.config),
        [dict(s) for s in adapter.weights.values()],
        adapter.points,
    )
    if adapter.info is None:
        return FileContents(NEMO, {adapter.name: stored})
    info = {**vars(adapter.info), "paths": {adapter.name: adapter.points}}
    info["parameters"] = {adapter.name: adapter.parameters}
    return FileContents(OURS, {adapter.name: stored}, info)


def read_adapter_bytes(data: bytes, label: str) -> dict[str, Adapter]:
    from nemo_ds2_adapters.formats import reading

    return from_contents(reading.read_adapter_bytes(data, label))


def read_adapters(path: Any) -> dict[str, Adapter]:
    from nemo_ds2_adapters.formats import reading

    return from_contents(reading.read_adapter_file(path))


def write_adapters(adapters: list[Adapter], path: Any) -> None:
    from nemo_ds2_adapters.formats.atomic import write_atomically
    from nemo_ds2_adapters.formats.editing import contents_bytes

    write_atomically(path, contents_bytes(to_contents(adapters[0])))


def attached_adapter(model: Any, name: str, metadata: Any = None) -> Adapter:
    from nemo_ds2_adapters.formats.file import describe_adapters

    (adapter,) = from_contents(describe_adapters(model, name, metadata)).values()
    return adapter


def attach(model: Any, adapter: Adapter, as_name: str | None = None, strict_base: bool = True) -> str:
    from nemo_ds2_adapters.formats.file import attach_contents

    label = f"adapter {adapter.name!r}"
    (name,) = attach_contents(model, to_contents(replace(adapter)), label, None, as_name, strict_base)
    return name
