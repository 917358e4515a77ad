"""Base and personal adapters on the same utterances."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

from nemo_ds2_adapters.data.recordings import open_recordings
from nemo_ds2_adapters.evaluation import report
from nemo_ds2_adapters.evaluation.comparison import compare
from nemo_ds2_adapters.evaluation.users import PairedScore, base_and_personal, score_users
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.transcribe import transcribe


def count_calls(module: torch.nn.Module) -> list[int]:
    """One entry per call of the module from now on."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(("kind", "conv", "first", "last"), [("first", 1, 2, 2), ("last", 1, 1, 1), ("head", 1, 1, 1)])
def test_what_both_share_runs_once(model, attach, solo, batch, kind: str, conv: int, first: int, last: int) -> None:
    attach(model, kind, each=2)
    users = [f"{kind}_0", f"{kind}_1", None]
    alone = {user: solo(model, user, batch) for user in users}
    modules = (model.encoder.conv, *model.encoder.layers)
    calls = [count_calls(module) for module in modules]
    with torch.no_grad():
        base, personal, lengths = base_and_personal(model, AdapterBank(model), *batch.values(), users)
    assert [len(counted) for counted in calls] == [conv, first, last]
    for row, (user, length) in enumerate(zip(users, lengths)):
        torch.testing.assert_close(base[row, :length], alone[None][row, :length], atol=1e-5, rtol=0)
        torch.testing.assert_close(personal[row, :length], alone[user][row, :length], atol=1e-5, rtol=0)


def test_scores(model, attach, manifest: Path) -> None:
    attach(model, "first", "own_head")
    for parameter in (*model.encoder.layers.parameters(), model.decoder.output.weight):
        torch.nn.init.normal_(parameter)
    model.train()
    users = ["first_0", "own_head_0", "first_0", "own_head_0"]
    recordings = list(open_recordings(manifest, 16000))
    references = ["ab", "yes", "no a", ""]
    scores = score_users(model, AdapterBank(model), recordings, users, references, batch_size=3, progress=False)
    assert [score.base_hypothesis for score in scores] == transcribe(model, manifest, [None] * 4, progress=False)
    assert [score.adapted_hypothesis for score in scores] == transcribe(model, manifest, users, progress=False)
    assert [(score.user, score.reference) for score in scores] == list(zip(users, references))
    assert [score.words for score in scores] == [1, 1, 2, 0] and scores[3].characters == 0
    assert scores[3].base_word_errors == len(scores[3].base_hypothesis.split())
    assert model.training and model.encoder.training


def score(user: str, words: int, base: int, adapted: int) -> PairedScore:
    return PairedScore(user, "a.wav", 1.0, "r", "b", "a", words, base, adapted, 5 * words, 2 * base, 2 * adapted)


def test_comparison_by_hand() -> None:
    scores = [
        *(score("better", 10, 4, 2) for _ in range(10)),
        *(score("slightly worse", 10, 1, 2) for _ in range(2)),
        score("much worse", 4, 0, 3),
        score("equal", 5, 1, 1),
        score("silent", 0, 0, 0),
    ]
    found = compare(scores)
    assert [user.user for user in found.users] == ["much worse", "slightly worse", "equal", "silent", "better"]
    assert [user.user for user in found.worse] == ["much worse", "slightly worse"]
    assert (found.utterances, found.words) == (15, 129)
    much, slightly, equal, silent, better = found.users
    assert (better.base_wer, better.adapted_wer, better.relative_change) == (0.4, 0.2, -0.5)
    assert (better.base_cer, better.utterances, better.words) == (pytest.approx(0.16), 10, 100)
    assert much.relative_change is None and silent.base_wer is None and equal.relative_change == 0
    assert slightly.relative_change == 1.0
    assert found.base_wer.value == pytest.approx(43 / 129) and found.adapted_wer.value == pytest.approx(28 / 129)
    assert found.wer_difference.value == pytest.approx(-15 / 129)
    for estimate in (found.base_wer, found.adapted_wer, found.wer_difference, found.base_cer, found.adapted_cer):
        assert estimate.low < estimate.value < estimate.high
    assert found.wer_difference.high < 0 and found.p_value < 0.05


def test_exact_significance() -> None:
    """With five utterances all signs can be tried: only 2 of 32 ways are as extreme as five improvements."""
    assert compare([score("a", 5, 3, 1)] * 5).p_value == pytest.approx(2 / 32)
    assert compare([score("a", 5, 3, 3)] * 5).p_value == 1.0


def test_interval_of_a_known_distribution() -> None:
    """Half of the utterances are all wrong: the standard error of the rate is sqrt(0.25 / n)."""
    found = compare([score("a", 10, 10 * (i % 2), 0) for i in range(400)])
    assert found.base_wer.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert found.base_wer.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)


def test_too_few_utterances() -> None:
    found = compare([score("a", 5, 3, 1)])
    assert found.base_wer.value == 0.6 and found.base_wer.low is None and found.p_value == 1.0
    assert compare([score("a", 0, 0, 0)] * 3).base_wer.value is None


def test_reports(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    scores = [score(f"사용자{i % 30}", 10, *generator.integers(0, 6, 2)) for i in range(120)]
    found = compare([*scores, score("x" * 60, 4, 0, 3), score("[red]\n", 4, 0, 4)])
    report.write_json(found, tmp_path / "r.json")
    report.write_csv(found, tmp_path / "r.csv")
    report.write_picture(found, tmp_path / "r.png")
    content = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert [user["user"] for user in content["users"][:2]] == ["[red]\n", "x" * 60] and content["users"][0][
        "relative_change"
    ] is None
    assert content["wer_difference"]["low"] < content["wer_difference"]["value"]
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["user"] for row in rows] == [user.user for user in found.users]
    assert float(rows[2]["base_wer"]) == found.users[2].base_wer
    assert imread(tmp_path / "r.png").std() > 0
    console = Console(width=100, record=True)
    console.print(report.table(found))
    shown = console.export_text()
    assert "... 12 more" in shown and "x" * 18 in shown and "'[red]\\n'" in shown and found.users[3].user in shown
    assert "32 users, 122 utterances, 1208 words" in report.summary(found)[0]
