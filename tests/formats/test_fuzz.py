"""Thousands of damaged files of every format: each loads or raises `AdapterFileError`, and nothing else happens."""

import random
import zipfile
from pathlib import Path

import pytest
import torch
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig

from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter
from nemo_ds2_adapters.errors import AdapterFileError
from nemo_ds2_adapters.formats.file import load_adapter, save_adapter
from nemo_ds2_adapters.formats.reading import inspect_adapter

FILES = 2400  # in all; each in one of the ways below
SEED = 7


def damaged_bytes(content: bytes, dice: random.Random) -> bytes:
    """A few bytes changed, cut out or put in, or the end cut off, anywhere in a file."""
    data = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 8])):
        place = dice.randrange(len(data))
        kind = dice.randrange(5)
        if kind < 2:
            data[place] = dice.randrange(256)
        elif kind == 2:
            del data[place : place + dice.choice([1, 4, 100])]
        elif kind == 3:
            data[place:place] = dice.randbytes(dice.choice([1, 4, 100]))
        else:
            del data[max(1, place) :]
        if not data:
            break
    return bytes(data)


def damaged_record(content: bytes, dice: random.Random) -> bytes:
    """A few bytes of the pickle, or all of a record, changed; the archive is whole and its checksums fit."""
    data = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 4])):
        place = dice.randrange(len(data))
        if dice.random() < 0.5:
            data[place] = dice.randrange(256)
        else:  # an instruction or a length more likely means something than noise
            data[place] = dice.choice(b"().]}NRbc\x81\x85\x86\x88tuesaQqrKMJXh\x00\x01\x02\xff")
    return bytes(data)


def written(path: Path, records: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def originals(model, tmp_path) -> list[Path]:
    """One sound file of each format."""
    model.add_adapter("user_j", LinearAdapterConfig(0, dim=2))
    model.add_adapter("user_john", LinearAdapterConfig(0, dim=2))
    save_adapter(model, ["user_j", "user_john"], tmp_path / "ours.pt", {"user_id": "x", "wer": 0.5})
    model.save_adapters(str(tmp_path / "nemo.pt"))
    state = {
        "0.weight": torch.ones(2, 3),
        "0.bias": torch.ones(2),
        "3.weight": torch.ones(4, 2),
        "3.bias": torch.ones(4),
    }
    sizes = {"input_dim": 3, "hidden_dims": [2], "output_dim": 4, "adapter_name": "user"}
    torch.save({"adapter_state_dict": state, **sizes}, tmp_path / "original.pt")
    for name in list_adapters(model):
        delete_adapter(model, name)
    return sorted(tmp_path.glob("*.pt"))


def test_damaged_files(model, originals, snapshot, tmp_path) -> None:
    dice = random.Random(SEED)
    before = snapshot(model)
    names = list(model.state_dict())
    path = tmp_path / "damaged.pt"
    outcomes = {"loaded": 0, "refused": 0}
    contents = {original: original.read_bytes() for original in originals}
    records = {}
    for original in originals:
        with zipfile.ZipFile(original) as archive:
            records[original] = {name: archive.read(name) for name in archive.namelist()}
    for i in range(FILES):
        original = originals[i % len(originals)]
        if i % 2:
            path.write_bytes(damaged_bytes(contents[original], dice))
        else:
            changed = dict(records[original])
            # Mostly the pickle, which is where programs go wrong.
            chosen = next(iter(changed)) if dice.random() < 0.9 else dice.choice(list(changed))
            changed[chosen] = damaged_record(changed[chosen], dice)
            written(path, changed)
        try:
            inspect_adapter(path)
            load_adapter(model, path, strict_base=False)
            outcomes["loaded"] += 1
        except AdapterFileError:
            outcomes["refused"] += 1
            assert list(model.state_dict()) == names
        for name in list_adapters(model):
            delete_adapter(model, name)
    assert snapshot(model) == before
    assert min(outcomes.values()) > FILES / 50, outcomes  # both happen, or the damage is too great or too small
