"""Links between the pages of this project lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("*.md"))]
# In code, what lies in one of these folders, or at the top: `conf/asr_adapters/asr_adaptation.yaml`, `setup.cfg`.
PATH = re.compile(
    r"`((?:nemo_ds2_adapters|conf|examples|hydra_plugins|tests|benchmarks|docs|demo)/[\w./-]*|"
    r"(?:Makefile|setup\.cfg|pyproject\.toml|constraints\.txt|mkdocs\.yml|\w+\.md))`"
)
NOT_OURS = {"examples/asr/asr_adapters/scoring_and_analysis.py"}  # NeMo's


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end with, as GitHub makes it of the heading."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_code_exist(page: Path) -> None:
    named = {*PATH.findall(page.read_text(encoding="utf-8"))} - NOT_OURS
    assert [name for name in named if not (ROOT / name).exists() and not (page.parent / name).exists()] == []


def test_paths_in_code_are_found() -> None:
    assert PATH.findall("`tests/` mirrors `conf/a/b.yaml`, `setup.cfg`") == ["tests/", "conf/a/b.yaml", "setup.cfg"]


@pytest.mark.parametrize("page", PAGES[len(TOP) :], ids=lambda page: page.name)
def test_the_readme_names_every_page(page: Path) -> None:
    assert f"docs/{page.name}" in PAGES[0].read_text(encoding="utf-8")
