"""Sentences to read aloud."""

import random
from pathlib import Path

import httpx
import pytest
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.serving.prompts import SHIPPED, choose_prompts, read_prompts


def test_ten_chosen_have_more_sounds_than_ten_by_chance(model: EncDecCTCModel) -> None:
    prompts = read_prompts(SHIPPED, model)
    units = {one.text: one.units for one in prompts}
    assert len(units) == len(prompts) >= 50
    chosen, tests = choose_prompts(prompts, 10, 3, seed=0)
    assert len({*chosen, *tests}) == 13
    covered = len(set().union(*(units[text] for text in chosen)))
    by_chance = [random.Random(seed).sample(list(units.values()), 10) for seed in range(50)]
    assert covered > max(len(set().union(*some)) for some in by_chance)
    assert choose_prompts(prompts, 10, 3, seed=0) == (chosen, tests)
    assert choose_prompts(prompts, 10, 3, seed=1) != (chosen, tests)
    assert choose_prompts(prompts[:5], 10, 3, seed=0)[0]  # fewer than were asked for


def test_who_has_read_some_gets_others(model: EncDecCTCModel) -> None:
    prompts = read_prompts(SHIPPED, model)
    left = len(prompts) - 3
    rounds = [choose_prompts(prompts, 10, 3, 0, skip) for skip in range(0, left, 10)]
    assert all(tests == rounds[0][1] and len(chosen) == 10 for chosen, tests in rounds)
    read = [text for chosen, _ in rounds for text in chosen]
    assert len({*read[:left]}) == left  # each once, before it begins anew
    assert read[left:] == rounds[0][0][: len(read) - left]
    assert choose_prompts(prompts, 10, 3, 0, left) == rounds[0]
    assert choose_prompts(prompts[:3], 10, 3, 0, 7)[0] == []


def test_a_file_of_ones_own(model: EncDecCTCModel, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("say it\tS EH IH T\n\nnothing known\nÄpfel\n", "utf-8")
    prompts = read_prompts(path, model)
    assert [one.text for one in prompts] == ["say it", "nothing known"]  # what the model can write
    assert prompts[0].sounds == ("S", "EH", "IH", "T")
    assert prompts[1].sounds == tuple("nothing known")
    with pytest.raises(InputError, match="--prompts"):
        read_prompts(tmp_path / "nowhere", model)


def test_over_http(client: httpx.Client) -> None:
    found = client.get("/v1/prompts", params={"count": 4, "tests": 2}).json()
    assert (len(found["prompts"]), len(found["tests"])) == (4, 2)
    assert client.get("/v1/prompts", params={"count": 0}).status_code == 422
