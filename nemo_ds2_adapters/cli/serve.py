"""The command that starts the service."""

import os
from dataclasses import fields
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from nemo_ds2_adapters.cli.output import busy, say
from nemo_ds2_adapters.errors import InputError

DEMO = Path(__file__).parents[2] / "demo"  # of a checkout; no wheel has it
NEEDED = ("fastapi", "limits", "multipart", "prometheus_client", "uvicorn", "websockets")
REPLICAS = 2  # of a cluster, by default


class Cluster(StrEnum):
    """Engines that run replicas."""

    RAY = "ray"


def serve(
    model: Annotated[
        Path | None, typer.Argument(help="The base, a .nemo; without, the demo's.", metavar="[MODEL.nemo]")
    ] = None,
    store: Annotated[str, typer.Option(help="Folder of the adapters, made if it is not there.")] = "adapters",
    prior: Annotated[Path | None, typer.Option(help="A voice prior of the base; the demo's with its base.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="Lines with TOKEN, or TOKEN USER; or in $DS2_ADAPTERS_TOKENS.")
    ] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(help="Of other web pages that may call.")] = None,
    keep_recordings: Annotated[
        float, typer.Option(help="Days; 0: until an adapter was trained of them, a day at most; inf: for good.")
    ] = 0.0,
    lm: Annotated[Path | None, typer.Option(help="A word language model, ARPA.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Sentences to be read aloud, one per line.")] = None,
    max_upload_mb: Annotated[float, typer.Option(help="Of a request.")] = 25.0,
    max_seconds: Annotated[float, typer.Option(help="Of a recording.")] = 600.0,
    upload_seconds: Annotated[float, typer.Option(help="In which a request must have arrived.")] = 30.0,
    requests_per_minute: Annotated[int, typer.Option(help="Of one token; without tokens, of one address.")] = 600,
    batch_size: Annotated[int, typer.Option(help="Recordings recognised together.")] = 16,
    wait_ms: Annotated[float, typer.Option(help="That a recording waits for others to share its batch.")] = 5.0,
    queue_size: Annotated[int, typer.Option(help="Recordings that wait; more are refused.")] = 256,
    resident: Annotated[int, typer.Option(help="Users whose adapters are in memory.")] = 256,
    training_threads: Annotated[int, typer.Option(help="Of the process that trains.")] = 1,
    training_niceness: Annotated[int, typer.Option(help="Of the same; 19 gives way to everything else.")] = 19,
    cluster: Annotated[Cluster | None, typer.Option(help="Recognise in replicas that this engine runs.")] = None,
    cluster_address: Annotated[
        str | None, typer.Option(help="Of a running cluster, or auto; without, one is started on this machine.")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help=f"Of a cluster, each with a core, the base and adapters; {REPLICAS}.")
    ] = None,
) -> None:
    """Serve recognition with everybody's adapter, and the training of adapters, over HTTP, with a page to try it."""
    options = dict(locals())  # by name, as the settings have them too
    needed = {name: "serve" for name in NEEDED} | ({"ray": "ray"} if cluster else {})
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({needed[name] for name in missing}))
        raise InputError(f"{', '.join(missing)} is missing: pip install 'nemo_ds2_adapters[{extras}]'")
    if cluster is None and (cluster_address is not None or replicas is not None):
        raise InputError("--cluster-address and --replicas go with --cluster ray")
    replicas, cores = REPLICAS if replicas is None else replicas, os.cpu_count() or 1
    if replicas < 1:
        raise InputError(f"--replicas {replicas}: expected at least 1")
    if cluster and cluster_address is None and replicas > cores:
        raise InputError(f"--replicas {replicas}: this machine has {cores} cores, and each replica needs one")
    if cluster and cluster_address is not None:
        from nemo_ds2_adapters.cluster.settings import check_address, check_reachable

        check_address(cluster_address, shown := f"--cluster-address {cluster_address}")
        check_reachable(cluster_address, shown)  # before a model is loaded
    if model is None:
        model, prior = DEMO / "base.nemo", prior or DEMO / "prior.pt"
        if not model.is_file():
            raise InputError("give MODEL.nemo: the demo's base is in a checkout only, not in an installed package")
    if "://" in store:
        raise InputError(f"--store {store}: recordings lie beside the adapters, so give a local folder")
    from nemo_ds2_adapters.serving.auth import read_tokens
    from nemo_ds2_adapters.serving.settings import ServiceSettings

    options |= {"model": model, "store": Path(store), "prior": prior, "allow_origin": tuple(allow_origin or ())}
    settings = ServiceSettings(**{field.name: options[field.name] for field in fields(ServiceSettings)})
    tokens = read_tokens(token_file)
    from nemo_ds2_adapters.serving.base import ServedBase
    from nemo_ds2_adapters.serving.http import server
    from nemo_ds2_adapters.serving.recognition import LocalRecognition, Recognition

    server.check_exposure(settings, tokens)
    bound = server.bind(settings)
    with busy(f"loading {model}"):
        base = ServedBase(settings)
        recognition: Recognition
        if cluster is None:
            recognition = LocalRecognition(base)
        else:
            from nemo_ds2_adapters.cluster.serve import ClusterRecognition

            recognition = ClusterRecognition(settings, replicas, cluster_address)
        service = server.Service(base, recognition, tokens)
    name = f"[{host}]" if ":" in host else host
    say(f"http://{name}:{bound.getsockname()[1]}  (model {model}, store {store})")
    if not tokens:
        say("no tokens: whoever is at this machine may do everything")
    server.run(service, bound)
