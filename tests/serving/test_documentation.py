"""docs/service.md: its curl lines and its Python client, as they stand there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import soundfile

from nemo_ds2_adapters.serving import metrics
from nemo_ds2_adapters.serving.http import live, problems
from tests.serving.conftest import ALL, CHECKOUT, Person, Served, left_of, path_of, record

PAGE = (CHECKOUT / "docs" / "service.md").read_text("utf-8")
SOURCES = [path.read_text("utf-8") for path in (CHECKOUT / "nemo_ds2_adapters" / "serving").rglob("*.py")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_lines(served: Served, client: httpx.Client, people: list[Person], tmp_path: Path) -> None:
    (lines,) = blocks("sh")
    before = left_of(served.store)
    person = people[0]
    for name, (path, _) in {"speech": person.test[0], "sentence": person.train[0]}.items():
        samples, rate = soundfile.read(path)
        soundfile.write(tmp_path / f"{name}.wav", samples, rate)
    said: list = []
    authorised = f"curl -sSf -H 'Authorization: Bearer {ALL}' "
    for line in lines.splitlines():
        line = line.replace("http://127.0.0.1:8000", served.url).replace("curl ", authorised)
        if "recordings" in line:
            line = line.replace("'enter one two three'", f"'{person.train[0][1]}'")
            record(client, "ann@example.com", person.train[1:])
        environment = {
            **os.environ,
            "JOB": next((one["id"] for one in said if isinstance(one, dict) and "stage" in one), ""),
        }
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        said.append(json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout)
    transcription, recording, _, events, about, _, erased = said
    assert isinstance(transcription["text"], str)
    assert recording["text"] == person.train[0][1]
    assert '"state":"done"' in events
    assert about["adapter"]["kind"] == about["job"]["result"]["kind"]
    assert (tmp_path / "adapter.pt").stat().st_size > 10_000
    assert erased == {"erased": True}
    assert left_of(served.store) == before


@pytest.mark.slow
def test_python_client(served: Served, client: httpx.Client, people: list[Person], tmp_path: Path) -> None:
    program = blocks("python")[-1]
    assert len(program.splitlines()) <= 25
    person = people[1]
    lines = [json.dumps({"audio_filepath": str(path), "text": text}) for path, text in person.train]
    (tmp_path / "client.py").write_text(program)
    (tmp_path / "train.json").write_text("\n".join(lines))
    arguments = [served.url, ALL, "bob@example.com", "train.json", str(person.test[0][0])]
    done = subprocess.run(
        [sys.executable, "client.py", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    *states, last = done.stdout.splitlines()
    assert states[-1] == "done 1.0"
    assert last.startswith("own ")
    client.delete(path_of("bob@example.com"))


def test_every_code_is_on_the_page() -> None:
    found = {code for source in SOURCES for code in re.findall(r'Refusal\(\s*\d+,\s*"(\w+)"', source)}
    assert len(found) >= 10
    assert {code for code in found if f"`{code}`" not in PAGE} == {"worker"}  # of jobs, not of answers


def test_every_metric_is_on_the_page() -> None:
    text = metrics.Metrics().text(metrics.RecognitionMetrics().collect(metrics.BankStatistics())).decode()
    names = re.findall(r"^# TYPE ds2_adapters_(\w+) ", text, re.MULTILINE)
    assert {name for name in names if not name.endswith("_created") and name not in PAGE} == set()


def test_every_call_and_option_is_on_the_page(served: Served) -> None:
    with served.client() as nobody:
        paths = nobody.get("/openapi.json").json()["paths"]
    plain = re.sub(r"\{recording\}", "{number}", " ".join(paths))
    assert [path for path in plain.split() if path not in PAGE] == []
    assert live.PROTOCOL in PAGE and problems.MEDIA_TYPE in PAGE


def test_the_problem_on_the_page_is_one() -> None:
    (example, *_) = [json.loads(block) for block in blocks("json") if "about:blank" in block]
    assert problems.Problem(**example).model_dump() == example
