"""Who may import whom: the rules that keep the parts of the package apart, checked in the source text."""

import ast
import configparser
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
PACKAGE = "nemo_ds2_adapters"
EVERYWHERE = {"checks", "configs", "errors", "text", "version"}

# Code flows one way: a part imports those of the levels before its own. A part is a folder, or a module beside
# __init__.py.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("layers",),
    ("modules",),
    ("adapters",),
    ("formats", "data"),
    ("store", "activations", "convert"),
    ("decoding",),
    ("recognition",),
    ("streaming", "evaluation"),
    ("base_training",),
    ("adaptation",),
    ("compat",),
    ("serving",),
    ("cluster",),
    ("cli",),
)
PARTS: dict[str, set[str]] = {
    part: {before for level in LEVELS[:i] for before in level} for i, parts in enumerate(LEVELS) for part in parts
}
OTHERS = {"layers": {"torch"}, "modules": {"torch", "nemo", "omegaconf"}}  # None named: any that setup.cfg declares
FRAMEWORKS = {
    "hydra": {"cli"},
    "lightning": {"base_training", "adaptation"},
    "ray": {"cluster"},
    "pytorch_lightning": set(),  # NeMo's isinstance checks are of lightning.pytorch
}
OUTSIDE = {"benchmarks", "demo", "examples", "hydra_plugins", "simulation", "tests"}


def module_name(path: Path) -> str:
    """`a.b.c` of `<checkout>/a/b/c.py`, `a.b.__init__` of `<checkout>/a/b/__init__.py`."""
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)


def imported_names(module: str, source: str) -> Iterator[str]:
    """Full names of everything imported anywhere in a module: `a.b` of `from a import b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(relative, module.rpartition(".")[0])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def violations(module: str, source: str) -> list[str]:
    """Sentences, one per import that `module`, one of the package's own, may not do."""
    part = module.split(".")[1]
    found = []
    for name in imported_names(module, source):
        top, *rest = name.split(".")
        other = rest[0] if rest else "__init__"
        if top in OUTSIDE:
            found.append(f"{module} imports {name}, which is not part of the package")
        elif part not in FRAMEWORKS.get(top, {part}):
            found.append(f"{module} imports {name}: of the package only {sorted(FRAMEWORKS[top])} may")
        elif top == PACKAGE and other != part:
            allowed = PARTS.get(part)
            if allowed is not None and other not in allowed | EVERYWHERE:
                found.append(f"{module} imports {name}: {part} may import {sorted(allowed | EVERYWHERE)}")
            if any(re.match(r"_(?!_)", piece) for piece in rest):
                found.append(f"{module} imports {name}, which is private to {other}")
        elif top not in {PACKAGE, *sys.stdlib_module_names} and top not in OTHERS.get(part, {top}):
            found.append(f"{module} imports {name}: {part} may import {sorted(OTHERS[part])}")
    return found


def package_files() -> list[Path]:
    return sorted((CHECKOUT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("path", package_files(), ids=module_name)
def test_module_keeps_the_import_rules(path: Path) -> None:
    assert violations(module_name(path), path.read_text(encoding="utf-8")) == []


def test_there_is_something_to_check() -> None:
    names = {module_name(path).split(".")[1] for path in package_files()}
    assert {"layers", "modules", "adaptation", "__init__"} <= names


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("layers.norm", "import numpy", "layers may import ['torch']"),
        ("layers.norm", "from nemo_ds2_adapters.modules import encoder", "layers may import"),
        ("layers.norm", "from ..modules import encoder", "layers may import"),
        ("layers.norm", "def f():\n    import nemo.core", "layers may import ['torch']"),
        ("modules.encoder", "import nemo_ds2_adapters", "modules may import"),
        ("modules.encoder", "from nemo_ds2_adapters.layers import _mask", "private to layers"),
        ("modules.encoder", "from nemo_ds2_adapters.layers._mask import mask", "private to layers"),
        ("adapters.store", "from nemo_ds2_adapters.formats import file", "adapters may import"),
        ("store.store", "import lightning.pytorch as pl", "of the package only"),
        ("convert.kospeech", "from nemo_ds2_adapters import evaluation", "convert may import"),
        ("recognition.batch", "from nemo_ds2_adapters.evaluation import users", "recognition may import"),
        ("adaptation.fit", "from demo import voices", "not part of the package"),
        ("manager", "from nemo_ds2_adapters.store import _lock", "private to store"),
        ("manager", "from hydra import compose", "of the package only"),
        ("adaptation.fit", "from examples.asr import train", "not part of the package"),
    ],
)
def test_breach_is_found(module: str, source: str, reason: str) -> None:
    found = violations(f"{PACKAGE}.{module}", source)
    assert len(found) == 1
    assert reason in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("layers.norm", "import math\nimport torch.nn.functional as F\nfrom .masking import _mask"),
        ("modules.encoder", "from nemo_ds2_adapters.layers import mask\nfrom nemo.core import ModelPT"),
        ("adapters.store", "from nemo_ds2_adapters.errors import AdapterError"),
        ("adaptation.fit", "import lightning.pytorch as pl\nfrom nemo_ds2_adapters import adapters"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert violations(f"{PACKAGE}.{module}", source) == []


def declared_distributions(*extras: str) -> set[str]:
    """Normalised names of the distributions that setup.cfg requires."""
    config = configparser.ConfigParser()
    config.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    lines = config["options"]["install_requires"].split()
    for extra in extras:
        lines += config["options.extras_require"][extra].split()
    return {normalised(re.split(r"[\[=<>]", line)[0]) for line in lines}


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_imported_distribution_is_declared() -> None:
    providers = importlib.metadata.packages_distributions()
    declared = declared_distributions("lm", "microphone", "onnx", "ray", "s3", "serve")
    missing = []
    for path in package_files():
        module = module_name(path)
        for name in imported_names(module, path.read_text(encoding="utf-8")):
            top = name.split(".")[0]
            if top not in {PACKAGE, *sys.stdlib_module_names}:
                distributions = {normalised(provider) for provider in providers[top]}
                if not distributions & declared:
                    missing.append(f"{module} imports {name}")
    assert missing == [], "setup.cfg does not require these"
