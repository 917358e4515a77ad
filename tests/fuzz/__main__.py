"""`make fuzz`: every parser for some time, with coverage guidance (atheris). Exit code 1 if one let something through.

What is found lies below --findings, a file each; mended, it goes to tests/fuzz/found/<target>, which the tests read.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--findings", type=Path, default=Path("fuzz_findings"))
    parser.add_argument("--target", help="only this one, in this process")
    arguments = parser.parse_args()
    if arguments.target:
        fuzz(arguments.target, arguments.seconds, arguments.findings / arguments.target)
    failed = []
    for target in ("adapter_file", "manifest_line", "store_folder", "config_overrides"):
        command = [sys.executable, "-m", "tests.fuzz", "--target", target]
        command += ["--seconds", str(arguments.seconds), "--findings", str(arguments.findings)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        runs = [line for line in done.stdout.splitlines() if line.startswith("Done ")]
        print(f"{target}: {runs[-1] if done.returncode == 0 and runs else 'FAILED'}", flush=True)
        if done.returncode:
            failed.append(target)
            print(done.stdout[-5000:])
    sys.exit(1 if failed else 0)


def fuzz(target: str, seconds: int, findings: Path) -> None:
    """Run one target; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["nemo_ds2_adapters"]):
        from tests.fuzz.targets import TARGETS, folder, seeds

    corpus = folder() / "corpus"
    for place in (corpus, findings):
        place.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(seeds()[target]):
        (corpus / f"seed{i}").write_bytes(seed)
    settings = [f"-max_total_time={seconds}", f"-artifact_prefix={findings}/", "-timeout=20", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *settings, "-max_len=65536", "-verbosity=1", str(corpus)], TARGETS[target])
    atheris.Fuzz()


main()
