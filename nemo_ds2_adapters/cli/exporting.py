"""The command that writes a graph for onnxruntime."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nemo_ds2_adapters.cli.options import JsonOption, check_new
from nemo_ds2_adapters.cli.output import busy, say, show_json
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import check_not_input


class Adapters(StrEnum):
    """Where a row's weights come from, see `export_onnx`."""

    rows = "rows"
    bank = "bank"
    none = "none"


class Weights(StrEnum):
    """How the base's are stored, see `export_onnx`."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def export_onnx(
    model: Annotated[Path, typer.Argument(help="A DeepSpeech2 as .nemo.", metavar="MODEL.nemo")],
    out: Annotated[Path, typer.Argument(help="The graph to write.", metavar="OUT.onnx")],
    adapters: Annotated[
        Adapters, typer.Option(help="Inputs are weights per row, or a bank of them and slots per row; or none.")
    ] = Adapters.rows,
    store: Annotated[str | None, typer.Option(help="Its adapters fit; without, one hidden layer.")] = None,
    user: Annotated[str | None, typer.Option(help="Whose adapter of the store says the architecture.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Put out the likeliest unit of each frame too.")] = False,
    weights: Annotated[Weights, typer.Option(help="How the base's are stored.")] = Weights.fp32,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.onnx if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one ONNX graph for everybody, in which each row of a batch may have its own adapter."""
    check_new(out, force)
    if user is not None and store is None:
        raise InputError(f"--user {user}: give the store as well")
    check_not_input(out, {"MODEL": model, "--store": store})
    from nemo_ds2_adapters.store.store import AdapterStore

    like = None
    if store is not None:
        opened = AdapterStore(store, create=False)
        user = next(opened.list(), None) if user is None else user
        if user is None:
            raise InputError(f"{store}: holds no adapter that could say the architecture: leave out --store")
        like = opened.get(user)
    from nemo_ds2_adapters.formats.nemo_archive import restore_model
    from nemo_ds2_adapters.recognition import export

    with busy(f"writing {out}"):
        export.export_onnx(restore_model(str(model), None), out, adapters, like, greedy, weights)
    size = out.stat().st_size
    if as_json:
        show_json({"graph": str(out), "adapters": str(adapters), "bytes": size})
    else:
        say(f"{out}: {size / 1e6:.1f} MB, adapters={adapters}")
