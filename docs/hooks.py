"""What mkdocs does beside rendering docs/: pages of the top of the checkout, the API, files that pages link to."""

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = "nemo_ds2_adapters"
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}  # page by file
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
BINARY = (".nemo", ".pt")
IMAGES = (".svg", ".png")
LANGUAGES = {".py": "python", ".pyi": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".cfg": "ini"}


def on_config(config: Any) -> Any:
    """Append the API to the navigation."""
    pages: list[Any] = ["api/index.md", *({part: f"api/{part}.md"} for part in parts())]
    config.nav.append({"API": pages})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    contents = {page: (ROOT / name).read_text("utf-8") for name, page in TOP.items()}
    contents |= {"api/index.md": public_names(), **{f"api/{part}.md": api(part) for part in parts()}}
    for source in [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]:
        for target in linked(source):
            page = page_of(target)
            if page.startswith("source/"):
                contents[page] = shown(target)
    for page, content in contents.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links between files of the checkout lead to their pages."""
    uri = page.file.src_uri
    names = {made: name for name, made in TOP.items()}
    source = ROOT / names[uri] if uri in names else ROOT / "docs" / uri
    if not source.exists():  # made here, its links are right
        return markdown

    def moved(match: re.Match[str]) -> str:
        target = resolved(source, match[1])
        if target is None:
            return match[0]
        if target.suffix in IMAGES:  # all of them lie in docs/
            return f"]({os.path.relpath(target, ROOT / 'docs' / Path(uri).parent)})"
        return f"]({os.path.relpath(page_of(target), Path(uri).parent)}{match[2] or ''})"

    return LINK.sub(moved, markdown)


def parts() -> list[str]:
    """Folders of the package with something in them, and its module of exceptions."""
    folders = sorted(path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py"))
    return [*folders, "errors"]


def api(part: str) -> str:
    """The page of a part: what its modules say of themselves."""
    path = ROOT / PACKAGE / part
    if not path.is_dir():
        return f"# {part}\n\n::: {PACKAGE}.{part}\n"
    about = ast.get_docstring(ast.parse((path / "__init__.py").read_text("utf-8"))) or ""
    modules = sorted(file.relative_to(path).with_suffix("") for file in path.rglob("*.py") if file.stem[0] != "_")
    entries = [f"::: {PACKAGE}.{part}.{'.'.join(module.parts)}\n" for module in modules]
    return "\n".join([f"# {part}\n", f"{about}\n", *entries])


def public_names() -> str:
    """What can be imported from the package itself, each with a link to where it is described."""
    rows = []
    for line in (ROOT / PACKAGE / "__init__.pyi").read_text("utf-8").splitlines():
        if match := re.fullmatch(r"from \.(\S+) import (\w+) as \w+", line):
            rows.append(f"- [`{match[2]}`][{defined_in(match[1], match[2])}]")
    return "\n".join([f"# {PACKAGE}", "", "What the package itself offers:", "", *rows, ""])


def defined_in(module: str, name: str) -> str:
    """Full path of what is imported under a name from a module, or from a folder's `__init__.py`."""
    path = ROOT / PACKAGE / Path(*module.split(".")) / "__init__.py"
    if path.exists():
        for node in ast.parse(path.read_text("utf-8")).body:
            for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                if name == (alias.asname or alias.name):
                    return f"{node.module}.{alias.name}"
    return f"{PACKAGE}.{module}.{name}"


def linked(source: Path) -> set[Path]:
    """Files and folders of the checkout that a page links to."""
    targets = (resolved(source, match[1]) for match in LINK.finditer(source.read_text("utf-8")))
    return {target for target in targets if target is not None and target.suffix not in IMAGES}


def resolved(source: Path, link: str) -> Path | None:
    """What a link of a page leads to, None if that is not in the checkout."""
    return None if "://" in link else Path(os.path.normpath(source.parent / link))


def page_of(target: Path) -> str:
    """The page that shows a file or folder of the checkout."""
    name = target.relative_to(ROOT).as_posix()
    if name in TOP:
        return TOP[name]
    folder, _, part = name.partition("/")
    if folder == PACKAGE and part.split("/")[0] in parts() and target.is_dir():
        return f"api/{part.split('/')[0]}.md"
    return part if folder == "docs" and target.suffix == ".md" else f"source/{name}.md"


def shown(target: Path) -> str:
    """A file as it stands, or the names in a folder."""
    name = target.relative_to(ROOT).as_posix()
    if target.is_dir():
        names = sorted(path.relative_to(ROOT).as_posix() for path in target.iterdir() if path.name[0] not in "._")
        text, language = "\n".join(names), "text"
    elif target.suffix in BINARY:
        text, language = f"{target.stat().st_size:,} bytes", "text"
    else:
        text, language = target.read_text("utf-8"), LANGUAGES.get(target.suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n````{language}\n{text}\n````\n"
