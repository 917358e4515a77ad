"""The command that makes a NeMo model of another toolkit's DeepSpeech2."""

import re
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from nemo_ds2_adapters.cli.options import JsonOption, check_new
from nemo_ds2_adapters.cli.output import busy, say, show_json
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.atomic import check_not_input


def convert(
    checkpoint: Annotated[Path, typer.Argument(help=".ckpt, .pth or a state dict.", metavar="CHECKPOINT")],
    out: Annotated[Path, typer.Argument(help="The .nemo to write.", metavar="OUT.nemo")],
    labels: Annotated[Path | None, typer.Option(help="labels.json, or KoSpeech's vocabulary .csv.")] = None,
    blank_index: Annotated[int | None, typer.Option(help="The blank's place among the original's classes.")] = None,
    input_dim: Annotated[int | None, typer.Option(help="Values per input frame.")] = None,
    feature: Annotated[
        list[str] | None, typer.Option(help="A setting of the features, KEY=VALUE; repeatable.")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="hardtanh, relu, elu, leaky_relu, gelu or swish.")] = None,
    rnn_type: Annotated[str | None, typer.Option(help="gru, lstm or rnn, to check it.")] = None,
    bidirectional: Annotated[bool | None, typer.Option("--bidirectional/--forward-only", help="To check it.")] = None,
    keep_case: Annotated[bool, typer.Option("--keep-case", help="Leave upper-case labels upper case.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.nemo if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a .nemo of a deepspeech.pytorch or KoSpeech checkpoint. Nothing in it is executed."""
    check_new(out, force)
    check_not_input(out, {"CHECKPOINT": checkpoint, "--labels": labels})
    from nemo_ds2_adapters.convert import convert_checkpoint

    with busy(f"converting {checkpoint}"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message=re.escape(f"{checkpoint}: "), category=UserWarning)
        model = convert_checkpoint(
            checkpoint,
            out,
            rnn_type=rnn_type,
            bidirectional=bidirectional,
            activation=activation,
            labels=labels,
            blank_index=blank_index,
            input_dim=input_dim,
            features=_settings(feature),
            keep_case=keep_case,
        )
    notes = [str(warning.message) for warning in caught]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    encoder = model.cfg.encoder
    about: dict[str, Any] = {
        "parameters": parameters,
        "layers": encoder.n_layers,
        "rnn_type": encoder.rnn_type,
        "bidirectional": encoder.bidirectional,
        "units": len(model.decoder.vocabulary),
        "preprocessor": model.cfg.preprocessor._target_.rpartition(".")[2],
    }
    if as_json:
        show_json({"model": str(out), **about, "notes": notes})
        return
    say(f"{out}: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    for note in notes:
        say(f"note: {note}", err=True)


def _settings(assignments: list[str] | None) -> dict[str, Any] | None:
    if not assignments:
        return None
    for assignment in assignments:
        if "=" not in assignment:
            raise InputError(f"--feature {assignment}: expected KEY=VALUE")
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist(assignments))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise InputError(f"--feature {' '.join(assignments)}: expected KEY=VALUE ({error})") from error
