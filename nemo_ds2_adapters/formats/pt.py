"""This package's adapter file, `.pt`: NeMo's, with an entry about base and person that NeMo does not look at."""

from collections.abc import Mapping, Sequence
from typing import Any

from nemo_ds2_adapters.adapters.adapter import Adapter, Info
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.nemo import from_nemo, to_nemo
from nemo_ds2_adapters.formats.plain import plain_values, written_values

INFO_KEY = "__nemo_ds2_adapters__"
FORMAT_VERSION = 1
KINDS = {"fingerprint": str, "base": dict, "created": str, "versions": dict, "metadata": dict}  # the fields of `Info`


def to_pt(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """What `torch.save` writes.

    Raises:
        InputError: an adapter does not say for which base it was made, they say different things of base or person,
            two have the same name, or what they say is not plain values.
    """
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
    """The adapters of a file, checked; they share one `Info`.

    Raises:
        AdapterFileError: it does not hold sound adapters, or is of a later version.
    """
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
