"""Which adapter names are legal: those that NeMo can add, save, restore and reload from an adapter file.

NeMo matches names as substrings of state-dict keys and strips `name.` wherever it occurs, so an adapter called
`0` or `module` loses parts of its keys on reload. Names contain no dot, hence a name is at risk exactly if
some part of a key before the last dot ends with it.
"""

import difflib
import re
from collections.abc import Iterable

from nemo_ds2_adapters.errors import AdapterNameError

GLOBAL_CFG = "global_cfg"  # NeMo's key, in a config of adapters, of what is common to all of them,
META_CFG = "adapter_meta_cfg"  # and in that section, of its record of which module each belongs to
MAX_NAME_LENGTH = 255  # characters
RESERVED_CHARACTERS = ".:+"
RESERVED_NAMES = (GLOBAL_CFG,)
# Attributes of torch's ModuleDict, which keeps the adapters; written down because torch takes seconds to import.
TORCH_NAMES = """
    T_destination _apply _backward_hooks _backward_pre_hooks _buffers _call_impl _compiled_call_impl _forward_hooks
    _forward_hooks_always_called _forward_hooks_with_kwargs _forward_pre_hooks _forward_pre_hooks_with_kwargs
    _get_backward_hooks _get_backward_pre_hooks _get_name _is_full_backward_hook _load_from_state_dict
    _load_state_dict_post_hooks _load_state_dict_pre_hooks _maybe_warn_non_full_backward_hook _modules
    _named_members _non_persistent_buffers_set _parameters _register_load_state_dict_pre_hook
    _register_state_dict_hook _replicate_for_data_parallel _save_to_state_dict _slow_forward _state_dict_hooks
    _state_dict_pre_hooks _version _wrapped_call_impl add_module apply bfloat16 buffers call_super_init children
    clear compile cpu cuda double dump_patches eval extra_repr float forward get_buffer get_extra_state
    get_parameter get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children
    named_modules named_parameters parameters pop register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule
    share_memory state_dict to to_empty train training type update values xpu zero_grad
""".split()  # noqa: SIM905 (a line for each would fill two screens)
KEY_PARTS = ("module",)  # of LinearAdapter's and MLPAdapter's state dicts, besides numbers


def split_name(name: str) -> tuple[str, str]:
    """`encoder:user_john` -> (`encoder`, `user_john`); without a prefix the first part is empty."""
    if not isinstance(name, str):
        raise AdapterNameError(f"adapter name {name!r} is not text but {type(name).__name__}: give a string")
    prefix, _, plain = name.rpartition(":")
    return prefix, plain


def check_adapter_name(name: str, taken: Iterable[str] = ()) -> None:
    """Refuse a name without prefix that is not legal, or taken: AdapterNameError, which proposes one that is."""
    taken = set(taken)
    reason = illegal_reason(name)
    if reason is None and name in taken:
        raise AdapterNameError(
            f"adapter {name!r} exists already: delete or rename it, continue its training, "
            f"or choose another name such as {nearest_legal_name(name, taken)!r}"
        )
    if reason is not None:
        proposal = nearest_legal_name(name, taken)
        raise AdapterNameError(f"adapter name {_shorten(name)} {reason}: choose another one such as {proposal!r}")


def check_reloadable(name: str, keys: Iterable[str]) -> None:
    """Refuse (AdapterNameError) a legal name under which NeMo could not reload these state-dict keys of an adapter."""
    parts = {part for key in keys for part in key.split(".")[:-1]}
    for part in sorted(parts):
        if part.endswith(name):
            raise AdapterNameError(
                f"adapter name {name!r} ends a part of the adapter's own weight names ({part!r}), NeMo could not "
                f"reload it: choose another one such as {'user_' + name!r}"
            )


def illegal_reason(name: str) -> str | None:
    """Why a name without module prefix is not legal, None if it is."""
    if not isinstance(name, str):
        return f"is not text but {type(name).__name__}"
    if not name or not name.strip():
        return "is empty"
    if len(name) > MAX_NAME_LENGTH:
        return f"has {len(name)} characters, at most {MAX_NAME_LENGTH} are allowed"
    reserved = sorted(set(name) & set(RESERVED_CHARACTERS))
    if reserved:
        return f"contains {' '.join(reserved)}, which NeMo reserves"
    if not name.isprintable():
        return "contains characters that cannot be printed"
    if name in RESERVED_NAMES:
        return "is reserved by NeMo"
    if name.startswith("_") and name.endswith("_"):
        return "begins and ends with an underscore, like the reserved keys of configs and adapter files"
    if name.isdecimal() or any(part.endswith(name) for part in KEY_PARTS):
        return "is also a part of weight names, NeMo could not reload it"
    if name in TORCH_NAMES:
        return "is an attribute of torch's ModuleDict, which keeps the adapters"
    return None


def nearest_legal_name(name: str, taken: Iterable[str] = ()) -> str:
    """A legal name that is like the given one and not taken."""
    taken = set(taken)
    text = re.sub(r"\W+", "_", str(name)).strip("_")[: MAX_NAME_LENGTH - 20] or "adapter"
    candidate = text if illegal_reason(text) is None else f"user_{text}"
    number = 2
    legal = candidate
    while legal in taken:
        legal = f"{candidate}_{number}"
        number += 1
    return legal


def missing_adapter(name: str, existing: Iterable[str], where: object = "the model") -> AdapterNameError:
    """The error for an adapter that is not in a model or file, naming the nearest one that is."""
    existing = list(existing)
    if not existing:
        return AdapterNameError(f"there is no adapter {name!r}: {where} has none, add or load it first")
    near = difflib.get_close_matches(str(name), existing, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(existing[:10])}"
    more = f" and {len(existing) - 10} more" if not near and len(existing) > 10 else ""
    return AdapterNameError(f"there is no adapter {_shorten(name)} in {where}: {hint}{more}")


def _shorten(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 60 else text[:57] + "..."
