"""What NeMo must know before it can restore our models."""

from nemo.core.classes import common

TARGET_PREFIX = "nemo_ds2_adapters."


def allow_targets() -> None:
    """Let NeMo instantiate this package's classes from a config's `_target_`.

    NeMo keeps a list of packages whose classes a config may name and has no call to extend it.
    """
    if TARGET_PREFIX not in common.ALLOWED_TARGET_PREFIXES:
        common.ALLOWED_TARGET_PREFIXES.append(TARGET_PREFIX)
