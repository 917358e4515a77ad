"""What can be imported, and done, without NeMo, which takes ten seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest
from nemo.core.classes.mixins.adapter_mixins import AdapterModuleMixin

from nemo_ds2_adapters.adapters import adapter, names
from nemo_ds2_adapters.modules import MLPAdapter, MLPHeadAdapter
from nemo_ds2_adapters.modules.adapters import ResidualAddAdapterStrategyConfig
from tests.fixtures import LINEAR

PACKAGE = Path(__file__).parents[1] / "nemo_ds2_adapters"
FILE = Path(__file__).parent / "data" / "v0_1" / "two_adapters.pt"


def imported_by(program: str) -> set[str]:
    """Names of the modules that a program has imported at its end."""
    program += "\nimport sys\nprint(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("part", ["adapters", "formats"])
def test_no_module_imports_nemo(part: str) -> None:
    modules = [path.relative_to(PACKAGE.parent).with_suffix("") for path in (PACKAGE / part).rglob("*.py")]
    program = "\n".join(f"import {'.'.join(module.parts).removesuffix('.__init__')}" for module in sorted(modules))
    assert not {"nemo", "lightning", "torch"} & imported_by(program)


def test_a_file_is_read_without_nemo() -> None:
    program = f"from nemo_ds2_adapters import inspect_adapter\nassert inspect_adapter({str(FILE)!r})['adapters']"
    assert "nemo" not in imported_by(program)


def test_names_that_are_written_down_are_nemos() -> None:
    assert AdapterModuleMixin.adapter_global_cfg_key == names.GLOBAL_CFG
    assert AdapterModuleMixin.adapter_metadata_cfg_key == names.META_CFG
    assert ResidualAddAdapterStrategyConfig()._target_ == adapter.ADDING_STRATEGY
    assert f"{MLPHeadAdapter.__module__}.MLPHeadAdapter" == adapter.HEAD
    assert (f"{MLPAdapter.__module__}.MLPAdapter", LINEAR) == adapter.ADDING
