"""`ds2-adapters` on a model, a file and a store: what it does, prints and refuses."""

import configparser
import importlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModel

from nemo_ds2_adapters.adapters.attach import add_adapter
from nemo_ds2_adapters.adapters.blocks import list_adapters
from nemo_ds2_adapters.adapters.users import adapter_name_for_user
from nemo_ds2_adapters.cli import main
from nemo_ds2_adapters.formats.file import save_adapter
from nemo_ds2_adapters.modules import MLPAdapterConfig
from nemo_ds2_adapters.store.store import AdapterStore
from tests.cli.conftest import Result

ADAPTER = MLPAdapterConfig(hidden_dims=[3], layers="last")
NAMES = ["user_john", "user_j"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A `.nemo` with two adapters, made once."""
    return {}


@pytest.fixture
def nemo(archive: dict[str, bytes], make_model, disturb, tmp_path: Path) -> Path:
    path = tmp_path / "ds2.nemo"
    if not archive:
        model = make_model(encoder={"n_layers": 1, "d_model": 4})
        for name in NAMES:
            add_adapter(model, name, ADAPTER)
            disturb(model, name)
        model.save_to(str(path))
        save_adapter(model, NAMES, tmp_path / "both.pt", {"language": "en"})
        archive["nemo"], archive["pt"] = path.read_bytes(), (tmp_path / "both.pt").read_bytes()
    path.write_bytes(archive["nemo"])
    return path


@pytest.fixture
def pt(nemo: Path, archive: dict[str, bytes], tmp_path: Path) -> Path:
    """A file with two adapters."""
    path = tmp_path / "both.pt"
    path.write_bytes(archive["pt"])
    return path


@pytest.fixture
def store(pt: Path, tmp_path: Path) -> Path:
    """A store with the same adapters, of users called `user_john` and `user_j`."""
    path = tmp_path / "store"
    for name in NAMES:
        AdapterStore(path).put(name, pt, name=name)
    return path


@pytest.fixture(params=["nemo", "pt", "store"])
def source(request: pytest.FixtureRequest) -> Path:
    """Each of the three things that have adapters in them."""
    return request.getfixturevalue(request.param)


def in_archive(files: dict[str, bytes]) -> bytes:
    """A tar of some files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(f"./{name}")
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return buffer.getvalue()


def names_in(run: Callable[..., Result], source: Path) -> set[str]:
    result = run("list", source, "--json")
    assert (result.code, result.err) == (0, "")
    return {row.get("name", row.get("user_id")) for row in json.loads(result.out)}


def test_list(run, source: Path) -> None:
    assert names_in(run, source) == set(NAMES)
    result = run("list", source)
    assert result.code == 0 and all(name in result.out for name in NAMES) and "MLPAdapter" in result.out
    assert max(map(len, result.out.splitlines())) <= 100
    assert run("list", source, "--prefix", "user_jo").out.count("user_j") == 1
    assert "no adapters" in run("list", source, "--prefix", "x").out
    assert run("list", source, "--prefix", "x", "--json").out == "[]\n"


def test_rows_are_not_folded_in_a_pipe(run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_id = "x" * 150
    AdapterStore(store).copy("user_john", user_id)
    assert user_id not in run("list", store).out
    monkeypatch.delenv("COLUMNS")
    assert any(user_id in line and "MLPAdapter" in line for line in run("list", store).out.splitlines())


def test_inspect(run, source: Path) -> None:
    result = run("inspect", source, "user_john")
    assert result.code == 0 and "config.hidden_dims" in result.out and "[3]" in result.out
    about = json.loads(run("inspect", source, "user_john", "--json").out)
    assert about["config"]["hidden_dims"] == [3] and len(about["fingerprint"]) == 64
    result = run("inspect", source)
    assert result.code == 1 and "holds 2 adapters, say which one" in result.err


def test_change_names(run, source: Path) -> None:
    assert run("rename", source, "user_john", "user_jon").code == 0
    assert names_in(run, source) == {"user_jon", "user_j"}
    assert run("copy", source, "user_jon", "user_jonas").code == 0
    assert run("average", source, "user_jon", "user_j", "--into", "mean", "--weight", "3", "--weight", "1").code == 0
    assert names_in(run, source) == {"user_jon", "user_j", "user_jonas", "mean"}
    result = run("delete", source, "user_j", "--yes", "--json")
    assert result.code == 0 and json.loads(result.out)["name"] == "user_j"
    assert names_in(run, source) == {"user_jon", "user_jonas", "mean"}
    assert run("verify", source).code == 0


def weights(path: Path) -> torch.Tensor:
    states = next(value for key, value in torch.load(path, weights_only=True).items() if not key.startswith("__"))
    return torch.cat([weight.reshape(-1) for state in states for weight in state.values()])


def test_average_is_the_same_everywhere(run, nemo: Path, pt: Path, store: Path, tmp_path: Path) -> None:
    means = []
    for source in (nemo, pt, store):
        run("average", source, *NAMES, "--into", "mean", "--weight", 3, "--weight", 1)
        run("export", source, "mean", tmp_path / "mean.pt", "--force")
        means.append(weights(tmp_path / "mean.pt"))
    assert torch.equal(means[0], means[1]) and torch.equal(means[0], means[2])
    for name in NAMES:
        run("export", pt, name, tmp_path / f"{name}.pt")
    expected = 0.75 * weights(tmp_path / "user_john.pt") + 0.25 * weights(tmp_path / "user_j.pt")
    torch.testing.assert_close(means[0], expected)


WRONG_NAMES = (
    ("rename", "user_jo", "x"),
    ("average", "user_john", "--into", "user_j"),
    ("inspect", "user_jo"),
    ("export", "user_jo", "out.pt"),
    ("rename", "user_john", "user_j"),
    ("copy", "user_jo", "x"),
    ("copy", "user_john", "user_j"),
    ("delete", "user_jo", "--yes"),
    ("average", "user_john", "user_jo", "--into", "x"),
    ("average", "user_john", "--into", "x", "--weight", 1, "--weight", 1),
)


def test_wrong_names_change_nothing(run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents_below(tmp_path)
    # A model takes long to restore: two commands show that nothing is saved after an error.
    for command, *arguments in WRONG_NAMES[: 2 if source.suffix == ".nemo" else None]:
        result = run(command, source, *arguments)
        assert result.code == 1, arguments
        assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
        assert result.out == ""
    assert contents_below(tmp_path) == before


def contents_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def adapter_state(model: ASRModel, name: str) -> dict[str, torch.Tensor]:
    return {key.replace(name, ""): value for key, value in model.state_dict().items() if f".{name}." in key}


def test_export_and_import_lose_nothing(run, source: Path, nemo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    assert run("export", source, "user_john", out).code == 0
    assert "exists already, pass --force" in run("export", source, "user_john", out).err
    assert run("import", nemo, out, "--as", "again").code == 0
    model = ASRModel.restore_from(str(nemo))
    assert list_adapters(model) == [*NAMES, "again"]
    assert set(model.get_enabled_adapters()) == set(NAMES)  # as before
    assert adapter_state(model, "again").keys() == adapter_state(model, "user_john").keys() != set()
    for key, value in adapter_state(model, "again").items():
        assert torch.equal(value, adapter_state(model, "user_john")[key])


def test_exports_load_with_stock_nemo(run, store: Path, nemo: Path, tmp_path: Path) -> None:
    for file_format in ("nemo_ds2_adapters", "nemo"):
        out = tmp_path / f"{file_format}.pt"
        assert run("export", store, "user_john", out, "--format", file_format).code == 0
        model = ASRModel.restore_from(str(nemo))
        model.load_adapters(str(out))
        assert adapter_name_for_user("user_john") in list_adapters(model)


def test_import_into_a_store(run, pt: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "new", tmp_path / "out.pt"
    run("export", pt, "user_john", out)
    assert "no such file or store" in run("import", store, out, "--as", "홍길동").err
    result = run("import", store, out, "--create")
    assert result.code == 1 and "does not say whose it is, give the user id with --as" in result.err
    assert run("import", store, out, "--as", "홍길동").code == 0
    assert "choose one with --adapter" in run("import", store, pt, "--as", "홍길동").err
    assert run("import", store, pt, "--adapter", "user_j", "--as", "홍길동").code == 0
    assert names_in(run, store) == {"홍길동"}
    about = json.loads(run("inspect", store, "--json").out)
    assert about["metadata"] == {"language": "en", "user_id": "홍길동"} and about["user_id"] == "홍길동"
    assert [version["version"] for version in about["stored"]] == [1, 2]
    assert run("export", store, "홍길동", out, "--version", 1, "--force").code == 0
    assert "no version 3" in run("export", store, "홍길동", out, "--version", 3, "--force").err
    assert run("delete", store, "홍길동", "--version", 2, "--yes").code == 0
    assert run("import", tmp_path / "copy", out, "--create").code == 0
    assert names_in(run, tmp_path / "copy") == {"홍길동"}  # the file says whose it is
    assert "홍길동" in run("list", store).out


def test_import_of_a_file_that_does_not_say_its_base(run, nemo: Path, pt: Path, store: Path, tmp_path: Path) -> None:
    stock = tmp_path / "stock.pt"
    run("export", pt, "user_john", stock, "--format", "nemo")
    result = run("import", store, stock, "--as", "eve")
    assert result.code == 1 and "does not say for which base it was made: give its base with --base" in result.err
    assert run("import", store, stock, "--as", "eve", "--base", nemo).code == 0
    assert AdapterStore(store).get("eve").info.fingerprint == AdapterStore(store).get("user_j").info.fingerprint
    assert (
        "import it into its base"
        in run("export", stock, "user_john", tmp_path / "x.pt", "--format", "nemo_ds2_adapters").err
    )


def test_import_into_another_base(run, make_model, pt: Path, tmp_path: Path) -> None:
    other = make_model(encoder={"n_layers": 1, "d_model": 4})
    with torch.no_grad():
        next(other.decoder.parameters()).add_(1)
    other.save_to(str(tmp_path / "other.nemo"))
    result = run("import", tmp_path / "other.nemo", pt, "--adapter", "user_j")
    assert result.code == 1 and "was made for another base model" in result.err and "--any-base" in result.err
    assert run("import", tmp_path / "other.nemo", pt, "--adapter", "user_j", "--any-base").code == 0


def test_original_format(run, pt: Path, tmp_path: Path) -> None:
    original = tmp_path / "john_adapter.pt"
    state = {
        "0.weight": torch.ones(3, 4),
        "0.bias": torch.ones(3),
        "2.weight": torch.ones(5, 3),
        "2.bias": torch.ones(5),
    }
    torch.save(
        {"adapter_state_dict": state, "input_dim": 4, "hidden_dims": [3], "output_dim": 5, "adapter_name": "john"},
        original,
    )
    assert run("rename", original, "john", "jon").code == 0
    assert torch.load(original, weights_only=True)["adapter_name"] == "jon"
    assert "the original's format holds one adapter" in run("copy", original, "jon", "jonas").err
    assert "only heads that replace" in run("export", pt, "user_j", tmp_path / "x.pt", "--format", "original").err
    assert "the only adapter in it, remove the file instead" in run("delete", original, "jon", "--yes").err


def test_erase(run, store: Path, pt: Path) -> None:
    cache = AdapterStore(store).cache_folder("user_j")
    assert run("delete", store, "user_j", "--erase", "--yes").code == 0
    assert not cache.exists() and names_in(run, store) == {"user_john"}
    assert run("delete", store, "user_j", "--erase", "--yes").out == f"nothing of user_j was in {store}\n"
    assert "--erase is for stores" in run("delete", pt, "user_j", "--erase", "--yes").err


def test_deleting_asks(run, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    result = run("delete", source, "user_j")
    assert result.code == 1 and "Remove user_j from" in result.err and "stopped, nothing was changed" in result.err
    assert names_in(run, source) == set(NAMES)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run("delete", source, "user_j").code == 0
    assert names_in(run, source) == {"user_john"}


def test_verify(run, pt: Path, store: Path) -> None:
    result = run("verify", pt, store)
    assert result.code == 0 and result.out.count("2 adapters checked, 0 problems") == 2
    path = next(store.glob("users/*/*/*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    pt.write_bytes(b"PK")
    result = run("verify", pt, store)
    assert result.code == 1 and result.out.count("PROBLEM") == 2 and "is damaged" in result.out
    findings = json.loads(run("verify", pt, "nowhere", store, "--json").out)
    assert [len(found["problems"]) for found in findings] == [1, 1, 1]


def test_verify_goes_on_after_what_it_cannot_read(run, nemo: Path, pt: Path, store: Path, tmp_path: Path) -> None:
    archive = nemo.read_bytes()
    bad = {
        "text.nemo": b"no archive",
        "empty.nemo": b"",
        "half.nemo": archive[: len(archive) // 2],
        "pickle.nemo": pickle.dumps({"a": 1}),
        "yaml.nemo": in_archive({"model_config.yaml": b"a: [", "model_weights.ckpt": b""}),
        "no_weights.nemo": in_archive({"model_config.yaml": b"target: nemo.core.ModelPT"}),
        "foreign.nemo": in_archive({"model_config.yaml": b"target: os.system", "model_weights.ckpt": b"x"}),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in bad]
    result = run("verify", *paths, pt, store, nemo)
    assert result.code == 1 and result.err == ""
    assert result.out.count("PROBLEM") == len(bad) and result.out.count("2 adapters checked, 0 problems") == 3
    assert all(f"{path}: 0 adapters checked, 1 problem" in result.out for path in paths)


def test_verify_goes_on_after_a_store_that_it_may_not_read(run, pt: Path, store: Path, monkeypatch) -> None:
    def refused(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(store))

    monkeypatch.setattr("os.scandir", refused)  # root may read everything
    monkeypatch.setattr("os.listdir", refused)
    result = run("verify", store, pt)
    assert result.code == 1 and result.out.count("PROBLEM") == 1 and "Permission denied" in result.out
    assert "2 adapters checked, 0 problems" in result.out


ESCAPES = "\x1b[31mred\x07 \u202etxt\u2069\x9b1m"


def test_what_came_from_data_does_not_reach_the_terminal_raw(run, store: Path, pt: Path, tmp_path: Path) -> None:
    other, path = "b" + ESCAPES, tmp_path / f"{ESCAPES}.pt"
    calls = [
        ("rename", store, "user_j", ESCAPES),
        ("list", store),
        ("list", store, "--json"),
        ("inspect", store, ESCAPES),
        ("inspect", store, ESCAPES, "--json"),
        ("copy", store, ESCAPES, other),
        ("export", store, ESCAPES, path),
        ("import", store, path, "--as", ESCAPES),
        ("list", path),
        ("inspect", path),
        ("verify", path, store),
        ("average", store, ESCAPES, other, "--into", "d" + ESCAPES),
        ("delete", store, other, "--yes"),
        ("delete", store, other, "--yes"),
        ("list", f"no{ESCAPES}where"),
        ("list", path, f"--{ESCAPES}"),
    ]
    codes = []
    for call in calls:
        result = run(*call)
        codes.append(result.code)
        assert all(c == "\n" or c.isprintable() for c in result.out + result.err), call
    assert codes == [0] * 13 + [1, 1, 2]
    assert r"\x1b[31mred" in run("list", store).out


def test_verify_a_model(run, nemo: Path) -> None:
    model: EncDecCTCModel = ASRModel.restore_from(str(nemo))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if ".user_j." in key:
                parameter.fill_(float("nan"))
    model.save_to(str(nemo))
    result = run("verify", nemo)
    assert result.code == 1 and "'user_j' is not finite" in result.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["list", "nowhere"], 1, "nowhere: no such file or store"),
        (["list", "."], 1, "there is no adapter store"),
        (["list", "photo.jpg"], 1, "expected a .nemo, a .pt, or the directory of a store"),
        (["list", "broken.nemo"], 1, "broken.nemo"),
        (["list", "broken.pt"], 1, "broken.pt"),
        (["list", "nosuch://bucket"], 1, "nosuch"),
        (["list", ""], 1, "the SOURCE is empty"),
        (["export", "both.pt", "user_j", "x.txt"], 1, "ends with .pt"),
        (["list", "both.pt", "--since", "2026-01-01"], 1, "only stores know"),
        (["export", "both.pt", "user_j", "x.pt", "--version", "1"], 1, "only stores keep versions"),
        (["export", "both.pt", "user_j", "no/such/folder/x.pt"], 1, "no/such/folder"),
        (["import", "both.pt", "both.pt", "--adapter", "user_j"], 1, "imported into a .nemo or a store"),
        (["import", "store", "nowhere.pt", "--as", "x"], 1, "nowhere.pt"),
        (["inspect", "store", ""], 1, "the user id is empty"),
        (["inspect", "store", "x" * 201], 1, "at most 200"),
        (["list"], 2, "SOURCE"),
        (["lst", "x"], 2, "lst"),
        (["list", "both.pt", "--jason"], 2, "--jason"),
        (["list", "store", "--since", "yesterday"], 2, "--since"),
        (["export", "both.pt", "user_j", "x.pt", "--format", "onnx"], 2, "onnx"),
        (["average", "both.pt", "user_j"], 2, "--into"),
    ],
)
def test_wrong_input_is_one_line(
    run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "broken.nemo", "broken.pt"):
        Path(name).write_bytes(b"\x00" * 1000)
    result = run(*arguments)
    assert result.code == code
    assert message in result.err
    assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert result.out == ""


def test_commands_of_the_page(run, nemo: Path, pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nemo.rename("adapted.nemo")
    for user_id in ("anna", "bert", "carl"):
        AdapterStore("adapters").put(user_id, pt, name="user_j")
    page = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
    calls = [line.split()[1:] for line in page.splitlines() if line.startswith("ds2-adapters ")]
    assert len(calls) >= 4
    for call in calls:
        assert run(*call).code == 0, call
    assert names_in(run, Path("adapters")) == {"john.doe@example.com", "anna", "bert", "carl", "starting-point"}


def test_help_names_all_commands(run) -> None:
    result = run("--help")
    assert result.code == 0
    for command in ("list", "inspect", "export", "import", "rename", "copy", "delete", "average", "verify"):
        assert command in result.out
        assert run(command, "--help").code == 0


def test_it_is_installed_under_its_name() -> None:
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    (line,) = config["options.entry_points"]["console_scripts"].split("\n")[1:]
    name, _, target = line.partition(" = ")
    module, _, function = target.partition(":")
    assert name == "ds2-adapters" and getattr(importlib.import_module(module), function) is main
