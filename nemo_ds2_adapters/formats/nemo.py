"""NeMo's own adapter file, and this package's `.pt`, which is NeMo's with an entry that NeMo does not look at.

What `model.save_adapters` writes is one dict: `[module:]name` -> the state dicts of the adapter, one per point where
it sits; `__cfg__` -> the configs. Ours says under `INFO_KEY` what base and person the adapters are for.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nemo_ds2_adapters.adapters.adapter import Adapter, Info, check_finite
from nemo_ds2_adapters.adapters.names import GLOBAL_CFG, META_CFG, split_name
from nemo_ds2_adapters.adapters.stored import StoredTensor
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.plain import plain_values, written_values

CONFIG_KEY = "__cfg__"
INFO_KEY = "__nemo_ds2_adapters__"
FORMAT_VERSION = 1
KINDS = {"fingerprint": str, "base": dict, "created": str, "versions": dict, "metadata": dict}  # the fields of `Info`
MAX_SHARING = 2  # bytes of weights per byte in the file: adapters may share some, but not all be views of one


def to_nemo(adapters: Iterable[Adapter]) -> dict[str, Any]:
    """What `torch.save` writes, readable by NeMo's `model.load_adapters`. Raises InputError: a name twice, no plain
    config."""
    modules: dict[str, str] = {}
    configs: dict[str, Any] = {GLOBAL_CFG: {META_CFG: {"modules": modules}}}
    content: dict[str, Any] = {}
    for adapter in adapters:
        if adapter.name in modules:
            raise InputError(f"two adapters are called {adapter.name!r}: a file needs different names")
        modules[adapter.name] = adapter.module
        configs[adapter.name] = written_values(adapter.config, f"the config of adapter {adapter.name!r}")
        content[adapter.full_name] = [
            {f"{adapter.name}.{key}": value for key, value in state.items()} for state in adapter.weights.values()
        ]
    return {**content, CONFIG_KEY: configs}


def from_nemo(
    content: Mapping[str, Any], info: Info | None = None, points: Mapping[str, Any] | None = None
) -> dict[str, Adapter]:
    """The adapters of a file of plain values and stored tensors, checked (AdapterFileError).

    `info` is what the file says about all of them, `points` where each sits, by name; NeMo's own files say neither.
    """
    configs = content.get(CONFIG_KEY)
    if not isinstance(configs, dict):
        raise AdapterFileError("is not an adapter file: it has no section __cfg__")
    adapters: dict[str, Adapter] = {}
    for key, states in content.items():
        if key != CONFIG_KEY:
            module, name = split_name(key)
            if name in adapters:
                raise AdapterFileError(f"holds two adapters called {name!r}")
            config = _checked_config(name, configs.get(name))
            own = _own_weights(name, states, exactly=info is not None)
            where = _checked_points((points or {}).get(name), len(own))
            adapters[name] = Adapter(name, config, dict(zip(where, own)), module, info)
    if not adapters:
        raise AdapterFileError("holds no adapter")
    _check_sharing(adapters.values())
    return adapters


def to_pt(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """As `to_nemo`, with what is said of base and person, which must be the same of all (InputError)."""
    infos = [adapter.info for adapter in adapters if adapter.info is not None]
    if not infos or len(infos) < len(adapters):
        raise InputError("an adapter that does not say for which base it was made: attach it to that base first")
    if any(info != infos[0] for info in infos):
        raise InputError("a file says once for which base and person all its adapters are, these differ in that")
    about = {key: getattr(infos[0], key) for key in KINDS}
    metadata = written_values(about.pop("metadata"), "the metadata")
    return {
        **to_nemo(adapters),
        INFO_KEY: {
            **written_values(about, "what is known of the base"),
            "paths": {adapter.name: adapter.points for adapter in adapters},
            "parameters": {adapter.name: adapter.parameters for adapter in adapters},
            "metadata": metadata,
            "format_version": FORMAT_VERSION,
        },
    }


def from_pt(content: Mapping[str, Any]) -> dict[str, Adapter]:
    """The adapters of a file, checked; they share one `Info`. Raises AdapterFileError, also if it is of a later
    version."""
    about = content[INFO_KEY]
    version = about.get("format_version") if isinstance(about, dict) else None
    if version != FORMAT_VERSION:
        raise AdapterFileError(
            f"has format version {version!r}, this version of nemo_ds2_adapters reads {FORMAT_VERSION}: "
            "update the package"
        )
    for key, kind in {**KINDS, "paths": dict}.items():
        if not isinstance(about.get(key), kind):
            raise AdapterFileError(f"its section {INFO_KEY} has no proper entry {key!r}")
    info = Info(**plain_values({key: about[key] for key in KINDS}))  # without tensors
    return from_nemo({key: value for key, value in content.items() if key != INFO_KEY}, info, about["paths"])


def _own_weights(name: str, states: Any, exactly: bool) -> list[Any]:
    if not isinstance(states, list) or not states or not all(isinstance(state, dict) for state in states):
        raise AdapterFileError(f"adapter {name!r} has no list of weights")
    result = []
    for state in states:
        # NeMo writes along the weights of other adapters whose names contain this one's.
        own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        if not own or (exactly and len(own) != len(state)):
            raise AdapterFileError(f"adapter {name!r} has no weights, or weights of others")
        if not all(isinstance(value, StoredTensor) for value in own.values()):
            raise AdapterFileError(f"adapter {name!r} has weights that are no tensors")
        result.append(own)
    check_finite(name, result)
    return result


def _checked_config(name: str, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict) or not isinstance(config.get("_target_"), str):
        raise AdapterFileError(f"adapter {name!r} has no config, or one without _target_")
    if not isinstance(config.get("enabled", True), bool):
        raise AdapterFileError(f"the config of adapter {name!r} has enabled={config['enabled']!r}, not true or false")
    return plain_values(config)  # without tensors


def _checked_points(points: Any, count: int) -> list[str]:
    if points is None:
        return [str(number) for number in range(count)]
    if not isinstance(points, list) or not all(isinstance(point, str) for point in points):
        raise AdapterFileError("its list of points is no list of text")
    if len(points) != count or len(set(points)) != count:
        raise AdapterFileError(f"its list of {len(points)} points does not fit its weights, which are for {count}")
    return points


def _check_sharing(adapters: Iterable[Adapter]) -> None:
    tensors: Any = [value for adapter in adapters for state in adapter.weights.values() for value in state.values()]
    taken = sum(value.numel() * value.storage.itemsize for value in tensors)
    held = sum(len(storage.content) for storage in {value.storage for value in tensors})
    if taken > MAX_SHARING * held:
        raise AdapterFileError(f"its adapters would take {taken} bytes of weights, of which it holds {held}")
