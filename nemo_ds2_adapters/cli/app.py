"""The commands of `ds2-adapters`.

Each imports what it needs when it is called: NeMo takes ten seconds, and a list of a store needs none of it.
"""

from dataclasses import asdict, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nemo_ds2_adapters.adapters.adapter import Adapter, loaded
from nemo_ds2_adapters.cli.converting import convert
from nemo_ds2_adapters.cli.exporting import export_onnx
from nemo_ds2_adapters.cli.options import JsonOption, check_new
from nemo_ds2_adapters.cli.output import busy, progress, say, show_json, show_rows, show_tree
from nemo_ds2_adapters.cli.scripts.programs import add_programs
from nemo_ds2_adapters.cli.serve import serve
from nemo_ds2_adapters.cli.sources import Findings, Source, open_source
from nemo_ds2_adapters.cli.stream import stream
from nemo_ds2_adapters.cli.words import lm, words
from nemo_ds2_adapters.errors import InputError, NemoDs2Error, naming
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.formats.reading import NEMO, ORIGINAL, OURS, find_adapter, look_into
from nemo_ds2_adapters.text import printable

app = typer.Typer(
    help="Train, use, list, move, change and check personal adapters in .nemo models, .pt files and stores.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SourceArgument = Annotated[str, typer.Argument(help="A .nemo, a .pt, or a store: directory or URL.", metavar="SOURCE")]
NameArgument = Annotated[str, typer.Argument(help="Adapter name; in a store, user id.", metavar="NAME")]
TargetArgument = Annotated[str, typer.Argument(help="Its new name or user id.", metavar="NEW")]
VersionOption = Annotated[int | None, typer.Option(help="Number of a stored version; without, the current one.")]


class Format(StrEnum):
    """Formats of adapter files."""

    ours = OURS
    nemo = NEMO
    original = ORIGINAL


@app.command("list")
def list_command(
    source: SourceArgument,
    prefix: Annotated[str, typer.Option(help="Only names or user ids that begin so.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Only what was stored then or later (stores).")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the adapters in SOURCE."""
    with busy(f"reading {source}"):
        rows = open_source(source).rows(prefix, since)
    if as_json:
        show_json(rows)
    else:
        show_rows(rows, source)


@app.command()
def inspect(
    source: SourceArgument,
    name: Annotated[str | None, typer.Argument(help="Adapter name or user id, if there are several.")] = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all about one adapter: type, sizes, base, metadata, versions."""
    with busy(f"reading {source}"):
        opened = open_source(source)
        about = opened.about(_only_name(opened, source) if name is None else name, version)
    if as_json:
        show_json(about)
    else:
        show_tree({key: value for key, value in about.items() if key != "base"})  # that is long, and means little


@app.command()
def export(
    source: SourceArgument,
    name: NameArgument,
    path: Annotated[Path, typer.Argument(help="The .pt to write.", metavar="FILE")],
    version: VersionOption = None,
    file_format: Annotated[Format | None, typer.Option("--format", help="Without, the one it has.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one adapter of SOURCE to a .pt of its own."""
    if path.suffix != ".pt":
        raise InputError(f"{path}: expected a name that ends with .pt")
    check_new(path, force)
    check_not_input(path, {"SOURCE": source})
    with busy(f"reading {source}"):
        opened = open_source(source)
        adapter = opened.get(name, version)
    if file_format == Format.ours and adapter.info is None:
        raise InputError(
            f"{source}: is in the format {opened.format!r}, which does not say for which base it was made; "
            f"import it into its base model, and export it from there"
        )
    write_adapters([adapter], path, file_format or opened.format)
    _say(f"{name} of {source} written to {path}", as_json, source=source, name=name, path=str(path))


@app.command("import")
def import_command(
    target: Annotated[str, typer.Argument(help="A .nemo or a store.", metavar="TARGET")],
    path: Annotated[Path, typer.Argument(help="The .pt with the adapter.", metavar="FILE")],
    adapter: Annotated[str | None, typer.Option(help="Which adapter, if FILE holds several.")] = None,
    name: Annotated[str | None, typer.Option("--as", help="Adapter name or user id; without, FILE's.")] = None,
    base: Annotated[Path | None, typer.Option(help="For stores: its base .nemo, if FILE does not say it.")] = None,
    any_base: Annotated[bool, typer.Option("--any-base", help="For a .nemo: also if made for another base.")] = False,
    create: Annotated[bool, typer.Option("--create", help="Make a store at TARGET if there is none.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put the adapter of a .pt into a model or a store."""
    _, adapters = look_into(path)
    if adapter is None and len(adapters) > 1:
        raise InputError(f"{path}: holds {', '.join(adapters)}: choose one with --adapter")
    chosen = find_adapter(adapters, adapter or next(iter(adapters)), path)
    with busy(f"writing {target}"):
        opened = open_source(target, create)
        if base is not None:
            with naming(path):
                chosen = _made_for(chosen, base)
        got = opened.take(chosen, str(path), name, any_base)
    _say(f"{chosen.name} of {path} imported into {target} as {got}", as_json, target=target, name=got)


@app.command()
def rename(source: SourceArgument, old: NameArgument, new: TargetArgument, as_json: JsonOption = False) -> None:
    """Give an adapter another name, or a user another id."""
    with busy(f"writing {source}"):
        open_source(source).rename(old, new)
    _say(f"{old} renamed to {new} in {source}", as_json, source=source, name=new)


@app.command()
def copy(source: SourceArgument, name: NameArgument, new: TargetArgument, as_json: JsonOption = False) -> None:
    """Copy an adapter, as the starting point of another one."""
    with busy(f"writing {source}"):
        open_source(source).average([name], new, None)
    _say(f"{name} copied to {new} in {source}", as_json, source=source, name=new)


@app.command()
def delete(
    source: SourceArgument,
    name: NameArgument,
    version: VersionOption = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Stores: everything of the person, also what is cached.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove an adapter, in a store with all its versions."""
    if erase and version is not None:
        raise InputError("--erase removes everything of a person: leave out --version")
    opened = open_source(source)
    what = name if version is None else f"version {version} of {name}"
    if not yes:
        typer.confirm(printable(f"Remove {what} from {source} for good?"), abort=True, err=True)
    found = True
    with busy(f"writing {source}"):
        if erase:
            found = opened.erase(name)
        else:
            opened.delete(name, version)
    message = f"{what} removed from {source}" if found else f"nothing of {what} was in {source}"
    _say(message, as_json, source=source, name=name)


@app.command()
def average(
    source: SourceArgument,
    names: Annotated[list[str], typer.Argument(help="Adapter names or user ids.", metavar="NAMES...")],
    into: Annotated[str, typer.Option(help="Name or user id of the mean.")],
    weight: Annotated[list[float] | None, typer.Option(help="One per name, in their order; without, equal.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the weighted mean of several adapters of one architecture."""
    with busy(f"writing {source}"):
        open_source(source).average(names, into, weight or None)
    _say(f"mean of {', '.join(names)} written to {into} in {source}", as_json, source=source, name=into)


@app.command()
def verify(
    sources: Annotated[list[str], typer.Argument(help=".nemo, .pt, and stores.", metavar="SOURCES...")],
    as_json: JsonOption = False,
) -> None:
    """Read and check all adapters; in a store also mend index and permissions. Exit code 1 if something is wrong."""
    findings = {}
    for source in sources:
        with progress(f"checking {source}") as on_progress:
            try:
                findings[source] = open_source(source).verify(on_progress)
            except NemoDs2Error as error:  # the other sources are checked all the same
                findings[source] = Findings(0, [], [str(error)])
    if as_json:
        show_json([{"source": source, **asdict(found)} for source, found in findings.items()])
    else:
        for source, found in findings.items():
            for line in found.repaired:
                say(f"{source}: mended {line}")
            for line in found.problems:
                say(f"PROBLEM {line if line.startswith(source) else f'{source}: {line}'}")
            say(f"{source}: {_count(found.checked, 'adapter')} checked, {_count(len(found.problems), 'problem')}")
    if any(found.problems for found in findings.values()):
        raise typer.Exit(1)


app.command()(words)
app.command()(lm)
app.command()(convert)
app.command()(export_onnx)
app.command(rich_help_panel="Training and recognition")(stream)
app.command(rich_help_panel="Training and recognition")(serve)
add_programs(app)


def _made_for(adapter: Adapter, base: Path) -> Adapter:
    """The adapter, which says for which base it is."""
    from nemo_ds2_adapters.adapters.attach import attach
    from nemo_ds2_adapters.adapters.attached import attached_adapter
    from nemo_ds2_adapters.formats.nemo_archive import restore_model

    model = restore_model(str(base), None)
    attached = attach(model, loaded(adapter), as_name="imported")  # its own name may not be legal, or be taken there
    return replace(attached_adapter(model, attached, adapter.metadata), name=adapter.name)


def _only_name(source: Source, label: str) -> str:
    rows = source.rows("", None)
    if len(rows) != 1:
        raise InputError(f"{label}: holds {len(rows)} adapters, say which one (ds2-adapters list {label})")
    return str(next(iter(rows[0].values())))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _say(message: str, as_json: bool, **values: Any) -> None:
    if as_json:
        show_json(values)
    else:
        say(message)
