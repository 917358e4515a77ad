"""Broken and hostile files: one clear error each, nothing executed, nothing allocated, the model as it was."""

import io
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.lifecycle import delete_adapter
from nemo_ds2_adapters.convert.checkpoint import MAGIC_NUMBER
from nemo_ds2_adapters.errors import AdapterFileError, InputError
from nemo_ds2_adapters.formats.file import load_adapter, save_adapter
from nemo_ds2_adapters.formats.reading import NAMES, inspect_adapter
from nemo_ds2_adapters.formats.safe_pickle.unpickle import unpickle
from tests.fixtures import LINEAR

MEGABYTE = 2**20


class Attack:
    """Pickled, it makes a directory when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def model(make_base):
    return make_base()


@pytest.fixture
def path(model, linear, train, tmp_path) -> Path:
    """A sound file of an adapter of one part, which the model does not have."""
    add_adapter(model, "user", linear | {"layers": "first"})
    train(model, "user")
    save_adapter(model, "user", tmp_path / "adapter.pt", {"user_id": "x"})
    delete_adapter(model, "user")
    return tmp_path / "adapter.pt"


@pytest.fixture
def refused(model, snapshot):
    """Check that a file is refused with a message, and that the model stays as it was."""

    def check(path: Path, message: str, strict_base: bool = False) -> None:
        before = snapshot(model)
        with pytest.raises(AdapterFileError, match=message) as caught:
            load_adapter(model, path, strict_base=strict_base)
        assert str(path) in str(caught.value) and str(caught.value).isprintable()
        assert snapshot(model) == before

    return check


def records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def with_pickle(path: Path, change) -> None:
    """Change a file's pickle; checksums fit."""
    contents = records(path)
    name = next(name for name in contents if name.endswith("data.pkl"))
    write_zip(path, {**contents, name: change(contents[name])})


def with_content(path: Path, change) -> None:
    """Change what is in a file, and save it as torch does."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_sound_file_loads(model, path) -> None:
    assert load_adapter(model, path) == ["user"]


@pytest.mark.parametrize("form", ["zip", "bare", "config"])
def test_pickled_code_has_no_effect_though_it_could(refused, path, tmp_path, form) -> None:
    marker = tmp_path / "executed"
    attack = Attack(marker)
    if form == "zip":
        torch.save({"user": attack, "__cfg__": OmegaConf.create({})}, path)
    elif form == "bare":
        path.write_bytes(pickle.dumps(attack))
    else:
        content = torch.load(path, weights_only=True)
        content["__cfg__"] = {"user": OmegaConf.create({"x": attack}, flags={"allow_objects": True})}
        torch.save(content, path)
    refused(path, "bare pickle" if form == "bare" else r"posix\.mkdir.*nothing was executed")
    assert not marker.exists()
    if form == "bare":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists()  # so the attack was a real one


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"c__builtin__\ngetattr\n.",
        b"cnemo.utils\nConfig.__init__\n.",
        b"ctorch.jit\n_load_for_lite_interpreter\n.",
        b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x82\x01.",  # EXT1
        b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.",  # STACK_GLOBAL
        b"c__builtin__\ndict\n)R.",  # known, but not to be called
        b"comegaconf.dictconfig\nDictConfig\n)R.",
        b"c__builtin__\ndict\n)\x81.",  # known, but not to be made
        b"c__builtin__\ndict\n}X\x01\x00\x00\x00aK\x01sb.",  # nor to be given attributes
        b"comegaconf.dictconfig\nDictConfig\n)\x81)b.",
        b"r\xff\xff\xff\x7f.",  # memo without a value
        b"NN.",
        b".",
        b"]q\x00h\x01.",
        b"(((.",
        b"N(",
        b"\x85\x85.",
        b"}]K\x01s.",
        b"NK\x01a.",
        b"\x8c\x01",
        b"\xff.",
    ],
)
def test_pickle_instructions(program: bytes) -> None:
    with pytest.raises(AdapterFileError):
        unpickle(program, lambda key, size: bytearray(size), NAMES)


def test_truncated(refused, path) -> None:
    content = path.read_bytes()
    for size in (1, 3, 30, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        refused(path, "is not a file that torch.save wrote, or is damaged")


def test_flipped_byte_in_weights_and_in_structure(refused, path) -> None:
    content = path.read_bytes()
    for name, record in records(path).items():
        if name.endswith("data.pkl") or "/data/" in name:
            start = content.index(record)
            path.write_bytes(content[: start + 9] + bytes([content[start + 9] ^ 1]) + content[start + 10 :])
            refused(path, "or is damaged .Bad CRC")


def test_what_is_not_a_file_of_torch(refused, path, tmp_path) -> None:
    path.write_bytes(b"")
    refused(path, "is empty")
    path.write_text("weights: none")
    refused(path, "is not a file that torch.save wrote")
    refused(tmp_path, "is a directory")
    refused(tmp_path / "nowhere.pt", "No such file or directory")
    refused(Path("/dev/zero"), "a device")
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", "a device")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_not_finite(refused, path, value, dtype) -> None:
    def spoil(content) -> None:
        weight = content["user"][0]["user.module.1.weight"].to(dtype)
        weight[-1, -1] = value
        content["user"][0]["user.module.1.weight"] = weight

    with_content(path, spoil)
    refused(path, r"module\.1\.weight of adapter 'user' is not finite")


def test_weights_too_large_for_the_models_precision(model, refused, path) -> None:
    def enlarge(content) -> None:
        content["user"][0]["user.module.1.weight"] = torch.full((3, 8), 1e300, dtype=torch.float64)

    with_content(path, enlarge)
    refused(path, "not finite")


KEY = "user.module.1.weight"
CONTENTS = {
    "no config": (lambda c: c.pop("__cfg__"), "no section __cfg__"),
    "config of another": (lambda c: c["__cfg__"].pop("user"), "'user' has no config"),
    "no class": (lambda c: c["__cfg__"]["user"].pop("_target_"), "without _target_"),
    "enabled": (lambda c: c["__cfg__"]["user"].update(enabled={"a": 1}), "enabled="),
    "version": (lambda c: c["__nemo_ds2_adapters__"].update(format_version=2), "version 2.*update the package"),
    "info": (lambda c: c.update(__nemo_ds2_adapters__=[]), "version None"),
    "fingerprint": (lambda c: c["__nemo_ds2_adapters__"].pop("fingerprint"), "no proper entry 'fingerprint'"),
    "paths": (lambda c: c["__nemo_ds2_adapters__"]["paths"].update(user=[1]), "list of .*points"),
    "no adapter": (lambda c: c.pop("user"), "holds no adapter"),
    "no states": (lambda c: c.update(user=[]), "no list of weights"),
    "states": (lambda c: c.update(user=[3]), "no list of weights"),
    "empty state": (lambda c: c.update(user=[{}]), "has no weights"),
    "no tensors": (lambda c: c["user"][0].update({KEY: 1}), "no tensors"),
    "weights of others": (lambda c: c["user"][0].update({"er.x": torch.ones(1)}), "weights of others"),
    "a weight too many": (lambda c: c["user"][0].update({"user.x": torch.ones(1)}), "do not belong together"),
    "a weight missing": (lambda c: c["user"][0].pop(KEY), "do not belong together"),
    "shape": (lambda c: c["user"][0].update({KEY: torch.ones(8, 3)}), "do not belong together"),
    "whole numbers": (lambda c: c["user"][0].update({KEY: torch.ones(3, 8).long()}), "int64.*in the adapter"),
    "complex": (lambda c: c["user"][0].update({KEY: torch.ones(3, 8).cfloat()}), "ComplexFloatStorage"),
    "sparse": (lambda c: c["user"][0].update({KEY: torch.ones(3, 8).to_sparse()}), "_rebuild_sparse_tensor"),
    "twice": (lambda c: c.update({"decoder:user": c["user"]}), "two adapters called 'user'"),
    "name": (lambda c: _rename(c, "0"), "weight names.*as_name="),
    "module": (lambda c: _rename(c, "user", "joint:user"), "no module 'joint'"),
    "more parts": (lambda c: c["user"].append(c["user"][0]), "list of .*points"),
    "not loaded class": (lambda c: c["__cfg__"]["user"].update(_target_="antigravity.X"), "has not loaded"),
    "function": (lambda c: c["__cfg__"]["user"].update(_target_="os.system"), "os.system, which is no adapter"),
    "odd class": (lambda c: c["__cfg__"]["user"].update(_target_="torch.nn.Identity"), "is no adapter"),
    "class": (lambda c: c["__cfg__"]["user"].update(_target_="torch.nn.Linear"), "is no adapter"),
    "strategy": (lambda c: _strategy(c, "torch.nn.Linear"), "Linear, which is no adapter strategy"),
    "strategies": (lambda c: c["__cfg__"]["user"].update(adapter_strategy=[{"_target_": "x"}]), "where none belong"),
    "nested class": (lambda c: c["__cfg__"]["user"].update(dim={"_target_": "os.system"}), "where none belong"),
    "deep class": (lambda c: c["__cfg__"]["user"].update(layers=[[{"_target_": "x"}]]), "where none belong"),
    "hydra key": (lambda c: c["__cfg__"]["user"].update(_args_=[1]), "where none belong"),
    "interpolation": (lambda c: c["__cfg__"]["user"].update(activation="${oc.env:HOME}"), "interpolations"),
    "activation": (lambda c: c["__cfg__"]["user"].update(activation="nothing"), "cannot be built"),
    "unknown key": (lambda c: c["__cfg__"]["user"].update(size=3), "cannot be built"),
    "number as a key": (lambda c: c["__cfg__"]["user"].update({7: 1}), "has a key that is not text: 7"),
    "placement": (lambda c: c["__cfg__"]["user"].update(layers=[7]), "layer indices from 0 to 1"),
    "huge size": (lambda c: c["__cfg__"]["user"].update(dim=10**10), "do not belong together"),
    "huger size": (lambda c: c["__cfg__"]["user"].update(dim=10**30), "cannot be built"),
    "wrong size": (lambda c: c["__cfg__"]["user"].update(dim=4), "do not belong together"),
}


def _rename(content, name: str, key: str | None = None) -> None:
    content[key or name] = [{k.replace("user.", f"{name}."): v for k, v in s.items()} for s in content.pop("user")]
    content["__cfg__"][name] = content["__cfg__"].pop("user")


def _strategy(content, target: str) -> None:
    content["__cfg__"]["user"]["adapter_strategy"] = {"_target_": target}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_that_is_not_an_adapter(refused, path, name) -> None:
    change, message = CONTENTS[name]
    with_content(path, change)
    refused(path, message)
    assert "antigravity" not in sys.modules


def test_huge_declared_sizes(refused, path, tmp_path) -> None:
    """Of the first tensor, `[8]` with a storage of 8 numbers, in a file that torch wrote."""
    torch.save(torch.load(path, weights_only=True), path)
    original = path.read_bytes()
    huge = b"J\xff\xff\xff\x7f"
    for old, new, message in [
        (b"K\x08tq", huge + b"tq", "declares 8589934588 bytes of weights"),
        (b"K\x08\x85q", huge + b"\x85q", "declares a tensor of .2147483647. with 8 numbers"),
        (b"K\x01\x85q", huge + b"\x85q", "declares a tensor of .8. with 8 numbers"),
        (b"K\x01\x85q", b"\x8a\x10" + b"\xff" * 15 + b"\x0f\x85q", "sizes that are not numbers"),
        (b"K\x08\x85q", b"J\xff\xff\xff\xff\x85q", "sizes that are not numbers"),
        (b"K\x08\x85q", b"\x88\x85q", "sizes that are not numbers"),
        (b"K\x08\x85q", b"(" + b"K\x01" * 9 + b"tq", "tensor of 9 dimensions"),
    ]:
        path.write_bytes(original)
        with_pickle(path, lambda program, old=old, new=new: program.replace(old, new, 1))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused(path, message)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100 * 1024  # kilobytes


def test_repeated_values_of_a_tensor_are_not_multiplied(refused, path) -> None:
    with_content(path, lambda c: c["user"][0].update({KEY: torch.ones(1, 1).expand(3, 8)}))
    refused(path, "declares a tensor of .3, 8. with 1 numbers")


def test_zip_bombs(refused, path, tmp_path) -> None:
    contents = records(path)
    write_zip(path, contents, zipfile.ZIP_DEFLATED)
    refused(path, "is compressed")
    write_zip(path, {**contents, "archive/data/99": b"\0" * 50 * MEGABYTE}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < MEGABYTE
    refused(path, "is compressed")
    write_zip(path, {**contents, "archive/data.pkl": b"\x80\x02" + b"N" * 17 * MEGABYTE})
    refused(path, "17825794 bytes, at most")


def test_overlapping_entries(refused, path) -> None:
    write_zip(path, {"a/data.pkl": b"N.", "a/data/0": b"\0" * 100})
    with zipfile.ZipFile(path, "a") as archive:
        big = archive.getinfo("a/data/0")
        for i in range(50):
            copy = zipfile.ZipInfo(f"a/data/{i + 1}")
            for attribute in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(copy, attribute, getattr(big, attribute))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    refused(path, "overlap")


def test_duplicate_and_missing_records(refused, path) -> None:
    contents = records(path)
    root = next(iter(contents)).partition("/")[0]
    write_zip(path, {**contents, "other/data.pkl": b"N."})
    refused(path, "2 entries are called data.pkl")
    write_zip(path, {k: v for k, v in contents.items() if not k.endswith("data.pkl")})
    refused(path, "0 entries are called data.pkl")
    write_zip(path, {k: v for k, v in contents.items() if not k.endswith("data/1")})
    refused(path, "declares 32 bytes of weights '1', but holds no such entry")
    write_zip(path, {**contents, f"{root}/byteorder": b"big"})
    refused(path, "big-endian")
    write_zip(path, {**contents, f"{root}/data/1": b"\0" * 31})
    refused(path, "but holds 31 bytes")


@pytest.mark.parametrize("nested", ["often", "deeply", "in itself"])
def test_nested_lists(refused, path, nested) -> None:
    value: list[Any] = []
    for _ in range(60 if nested == "deeply" else 30):
        value = [value] if nested == "deeply" else [value, value]
    if nested == "in itself":
        value.append(value)
    with_content(path, lambda c: c["__nemo_ds2_adapters__"]["metadata"].update(x=value))
    assert path.stat().st_size < MEGABYTE
    refused(path, "holds more than .* values, or nests them deeper than 50")


NESTED_KEY = b"\x80\x02})" + b"\x85" * 150_000 + b"Ns."  # hashing it would take more stack than there is
SHARED_KEY = b"\x80\x02](" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"e}h\x00Ns\x86."  # hashing it, 2**60 steps
NUMBERS = [(i * (2**61 - 1)).to_bytes(12, "little") for i in range(40_000)]  # which all have one hash
COLLIDING_KEYS = b"\x80\x02}(" + b"".join(b"\x8a\x0c" + number + b"N" for number in NUMBERS) + b"u."


def in_ten_seconds(program: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that may hang or crash; of processor time, as others may keep the machine busy."""
    begin = (
        "import resource, sys, time, torch\n"
        "from pathlib import Path\n"
        "from nemo_ds2_adapters.convert.checkpoint import read_checkpoint\n"
        "from nemo_ds2_adapters.formats.reading import inspect_adapter\n"
        "resource.setrlimit(resource.RLIMIT_CPU, [int(time.process_time()) + 10] * 2)\n"
    )
    return subprocess.run([sys.executable, "-c", begin + program, *paths], capture_output=True, text=True)


def test_keys_that_cannot_be_hashed(tmp_path) -> None:
    paths = [tmp_path / f"{name}.pt" for name in ("nested", "shared", "colliding")]
    for path, program in zip(paths, (NESTED_KEY, SHARED_KEY, COLLIDING_KEYS)):
        write_zip(path, {"a/data.pkl": program})
    program = (
        "for path in sys.argv[1:]:\n"
        "    for read in inspect_adapter, read_checkpoint:\n"
        "        try:\n"
        "            read(path)\n"
        "        except Exception as error:\n"
        "            print(type(error).__name__, error)\n"
    )
    done = in_ten_seconds(program, *paths)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for i, line in enumerate(lines):
        kind = "int" if i >= 4 else "tuple"
        error = "InputError" if i % 2 else "AdapterFileError"
        assert line == f"{error} {paths[i // 2]}: has a {kind} as a key, where text is expected"
    assert len(lines) == 6


def test_numbered_states_of_an_optimiser_are_no_attack() -> None:
    program = pickle.dumps({"state": {0: 1, 2**31 - 1: 2}}, protocol=2)
    assert unpickle(program, lambda key, size: bytearray(size), NAMES) == {"state": {0: 1, 2**31 - 1: 2}}


def test_keys_of_the_old_format(tmp_path) -> None:
    """The list of weights at the end of a file of torch before 1.6."""
    path = tmp_path / "old.pt"
    heads = [pickle.dumps(value, protocol=2) for value in (MAGIC_NUMBER, 1001, {"little_endian": True}, {})]
    path.write_bytes(b"".join(heads) + b"\x80\x02](" + b")" + b"\x85" * 150_000 + b"e." + b"\0" * 100)
    done = in_ten_seconds("read_checkpoint(sys.argv[1])", path)
    assert done.returncode == 1 and "does not list its weights" in done.stderr


def test_many_adapters_that_view_one_tensor(refused, model, path) -> None:
    add_adapter(model, "view", {"_target_": LINEAR, "in_features": None, "dim": 500})
    model.save_adapters(str(path), "view")
    delete_adapter(model, "view")
    content = torch.load(path, weights_only=False)
    content["__cfg__"] = OmegaConf.to_container(content["__cfg__"])
    states, config = content.pop("view"), content["__cfg__"].pop("view")
    for i in range(300):
        content[f"view_{i}"] = [{k.replace("view", f"view_{i}"): v for k, v in state.items()} for state in states]
        content["__cfg__"][f"view_{i}"] = config
    torch.save(content, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, r"its adapters would take \d+ bytes of weights, of which it holds \d+")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 50 * 1024  # kilobytes


def test_text_that_is_no_unicode(model, path, refused) -> None:
    for metadata in ({"x": ["a", "\ud800"]}, {"\udcff": 1}):
        add_adapter(model, "user", {"_target_": LINEAR, "in_features": None, "dim": 3})
        with pytest.raises(InputError, match="the metadata cannot be written: .* no valid Unicode text"):
            save_adapter(model, "user", path, metadata)
        delete_adapter(model, "user")
        with_content(path, lambda c, m=metadata: c["__nemo_ds2_adapters__"].update(metadata=m))
        refused(path, "no valid Unicode text")


def test_tensors_belong_among_the_weights(path, refused) -> None:
    content = path.read_bytes()
    for change in (
        lambda c: c["__nemo_ds2_adapters__"]["metadata"].update(x=torch.ones(3)),
        lambda c: c["__cfg__"]["user"].update(dim=torch.ones(3)),
    ):
        path.write_bytes(content)
        with_content(path, change)
        refused(path, "is a StoredTensor, not a plain value")


def test_tables_that_a_class_makes_up_itself(make_base, tmp_path, snapshot) -> None:
    model = make_base("conformer")
    where = "nemo.collections.asr.parts.submodules.adapters.multi_head_attention_adapter_module."
    cfg = {"_target_": where + "RelPositionMultiHeadAttentionAdapter", "n_head": 2, "n_feat": 8, "dropout_rate": 0.0}
    add_adapter(model, "user", cfg)
    save_adapter(model, "user", tmp_path / "a.pt")
    table = {"_target_": where + "RelPositionalEncodingAdapter", "d_model": 8, "max_len": 2**30, "xscale": 1.0}

    def change(content) -> None:
        content["__cfg__"]["user"] = table

    with_content(tmp_path / "a.pt", change)
    other = make_base("conformer")
    before = snapshot(other)
    with pytest.raises(AdapterFileError):
        load_adapter(other, tmp_path / "a.pt")
    assert snapshot(other) == before


def test_metadata_are_only_data(path) -> None:
    with_content(
        path, lambda c: c["__nemo_ds2_adapters__"]["metadata"].update(x="${oc.env:HOME}", _target_="os.system")
    )
    assert inspect_adapter(path)["metadata"] == {"user_id": "x", "x": "${oc.env:HOME}", "_target_": "os.system"}


def test_old_torch_format_is_named(refused, path) -> None:
    buffer = io.BytesIO()
    torch.save({"user": torch.ones(1)}, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue())
    refused(path, "save it again with torch.save")
