"""The exceptions that a caller may catch."""

import nemo_ds2_adapters
from nemo_ds2_adapters import errors

# What programs go by: may grow, but a code that was released stays.
CODES = {
    "NemoDs2Error": "error",
    "InputError": "input",
    "AdapterNameError": "adapter_name",
    "UserIdError": "user_id",
    "UnknownUserError": "unknown_user",
    "AdapterFileError": "adapter_file",
    "BaseMismatchError": "base_mismatch",
    "StreamError": "stream",
    "StoreBusyError": "store_busy",
    "StoreAccessError": "store_access",
    "ClusterError": "cluster",
}


def test_every_exception_has_the_root_and_a_code_of_its_own() -> None:
    own = {name: value for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__}
    classes = {name: value for name, value in own.items() if isinstance(value, type)}
    assert {name: cls.code for name, cls in classes.items()} == CODES
    assert len({*CODES.values()}) == len(CODES)
    assert all(issubclass(cls, errors.NemoDs2Error) for cls in classes.values())


def test_every_exception_is_importable_from_the_package() -> None:
    assert all(getattr(nemo_ds2_adapters, name) is getattr(errors, name) for name in CODES)


def test_wrong_input_is_a_value_error_too() -> None:
    assert issubclass(errors.InputError, ValueError)
