"""Words that a person uses, and text that teaches a language model."""

from pathlib import Path
from typing import Annotated

import typer

from nemo_ds2_adapters.cli.options import JsonOption
from nemo_ds2_adapters.cli.output import busy, say, show_json
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import check_not_input
from nemo_ds2_adapters.store.store import AdapterStore
from nemo_ds2_adapters.store.words import checked_words


def words(
    store: Annotated[str, typer.Argument(help="A store: directory or URL.", metavar="STORE")],
    user: Annotated[str, typer.Argument(help="User id.", metavar="USER")],
    add: Annotated[list[str] | None, typer.Option(help="A name or phrase; may be given again.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="One of those that are there.")] = None,
    file: Annotated[Path | None, typer.Option("--set", help="Replace all by the lines of this file.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show or change the words that decoding favours for USER: names, places, terms."""
    if (file is not None) + clear + bool(add or remove) > 1:
        raise InputError("--set, --clear and --add or --remove exclude each other")
    opened = AdapterStore(store, create=False)
    kept = opened.words(user)
    if unknown := set(remove or ()) - set(kept):
        raise InputError(f"{store}: {min(unknown)!r} is none of the words of user {user!r}")
    if file is not None:
        kept = opened.put_words(user, read_words(file))
    elif clear or add or remove:
        wanted = () if clear else [*(word for word in kept if word not in (remove or ())), *(add or ())]
        kept = opened.put_words(user, wanted)
    if as_json:
        show_json({"user_id": user, "words": list(kept)})
    else:
        for word in kept:
            say(word)


def lm(
    text: Annotated[
        Path, typer.Argument(help="Sentences, one per line, spelled as the model writes.", metavar="TEXT")
    ],
    output: Annotated[Path, typer.Argument(help="The ARPA file to write.", metavar="FILE")],
    order: Annotated[int, typer.Option(help="Words of the longest n-grams.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Make a language model of a text: n-grams with modified Kneser-Ney smoothing."""
    from nemo_ds2_adapters.decoding.kneser_ney import write_language_model

    check_not_input(output, {"TEXT": text})
    with busy(f"reading {text}"):
        model = write_language_model(text, output, order)
    counts = [len(grams) for grams in model.probabilities]
    if as_json:
        show_json({"path": str(output), "ngrams": counts})
    else:
        say(f"{', '.join(f'{count} {n}-grams' for n, count in enumerate(counts, 1))} written to {output}")


def read_words(path: Path) -> tuple[str, ...]:
    """The lines of a file that are not empty. Raises InputError: it cannot be read, or a line is no word."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    try:
        return checked_words(line for line in lines if line.strip())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
