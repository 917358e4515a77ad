"""What NeMo must know before it can restore our models."""

from nemo.core.classes import common

TARGET_PREFIX = "nemo_ds2_adapters."


def register() -> None:
    """Let NeMo instantiate this package's classes from a config's `_target_`, and find parsers and schedules by name.

    NeMo keeps a list of packages whose classes a config may name and has no call to extend it. The adapter-capable
    encoder is registered where the classes are, in `nemo_ds2_adapters.modules`.
    """
    from nemo_ds2_adapters.modules import tri_stage, unicode_form  # noqa: F401

    if TARGET_PREFIX not in common.ALLOWED_TARGET_PREFIXES:
        common.ALLOWED_TARGET_PREFIXES.append(TARGET_PREFIX)
