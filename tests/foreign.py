"""While tests run, every exception that leaves a public function is looked at: it has to be one of the package's.

Public is what the package itself offers, functions and methods. What a test makes it raise on purpose, by an exception
of its own or a patched function, is marked with `@pytest.mark.foreign`.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nemo_ds2_adapters
from nemo_ds2_adapters.errors import NemoDs2Error

STUB = Path(nemo_ds2_adapters.__file__).with_name("__init__.pyi")
left: list[str] = []  # what has left a public function of this test


def watched(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, which notes foreign exceptions that leave it."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            is_call_itself = error.__traceback__ is not None and error.__traceback__.tb_next is None
            if (
                not isinstance(error, NemoDs2Error) and not is_call_itself
            ):  # wrong arguments are a defect of the caller
                left.append(f"{name} raised {type(error).__name__}: {error}")
            raise

    return call


def watch() -> None:
    """Watch everything that the package offers, wherever it is imported from afterwards."""
    for name in re.findall(r"from \.\S* import (\w+) as", STUB.read_text("utf-8")):
        thing = getattr(nemo_ds2_adapters, name)
        if inspect.isclass(thing) and thing.__module__.startswith(nemo_ds2_adapters.__name__):
            for key, method in list(vars(thing).items()):
                if inspect.isfunction(method) and (key == "__init__" or key[0] != "_"):
                    setattr(thing, key, watched(method, f"{name}.{key}"))
        elif inspect.isfunction(thing):
            function = watched(thing, name)
            setattr(inspect.getmodule(thing), thing.__name__, function)
            setattr(nemo_ds2_adapters, name, function)


watch()


@pytest.fixture(autouse=True)
def nothing_foreign_leaves(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test in which a foreign exception has left a public function, caught or not."""
    left.clear()
    yield
    if not request.node.get_closest_marker("foreign"):
        assert left == []
