"""Every row of a mixed batch equals what it gives alone."""

import random
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
from torch._dynamo.exc import Unsupported

from nemo_ds2_adapters import InputError, enabled_adapters
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.errors import AdapterFileError, AdapterNameError
from nemo_ds2_adapters.evaluation.recognised import base_and_personal
from nemo_ds2_adapters.modules import routing
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.transcribe import transcribe
from nemo_ds2_adapters.store.store import AdapterStore

TOLERANCE = 1e-5
ALL_KINDS = ("first", "last", "all", "listed", "replacing", "decoder", "both", "head", "own_head")


@pytest.fixture(params=["products where the weights lie", "gathered weights"])
def gathers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways of serving a batch, whichever this machine's device prefers."""
    gathers = request.param == "gathered weights"
    monkeypatch.setattr(routing, "gathers_weights", lambda device: gathers)
    return gathers


@pytest.mark.parametrize("users", [[None] * 3, ["kind_0"] * 3, ["kind_0", None, "kind_1"], ["kind_1", "kind_0", None]])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind(model, attach, solo, batch, kind: str, users: list[str | None], gathers: bool) -> None:
    attach(model, kind, each=2)
    users = [user and user.replace("kind", kind) for user in users]
    alone = {user: solo(model, user, batch) for user in (None, f"{kind}_0", f"{kind}_1")}
    for row in range(3):  # what would the test be worth otherwise
        outputs = [output[row, :10] for output in alone.values()]
        assert min((a - b).abs().max() for i, a in enumerate(outputs) for b in outputs[:i]) > 100 * TOLERANCE
    with torch.no_grad(), AdapterBank(model).route(users):
        mixed, lengths, _ = model(**batch)
    for row, (user, length) in enumerate(zip(users, lengths)):
        torch.testing.assert_close(mixed[row, :length], alone[user][row, :length], atol=TOLERANCE, rtol=0)


def test_random_batches(model, attach, solo, gathers: bool) -> None:
    kinds = ("first", "all", "own_head")
    users = attach(model, *kinds, each=14)[:40]
    chance = random.Random(0)
    lengths = torch.tensor([1600, 2000, 3300, 4800, 6400])  # samples
    signals = 0.1 * torch.randn(len(lengths), int(lengths.max()))
    alone = {}
    for number, length in enumerate(lengths):
        one = {"input_signal": signals[number : number + 1, :length], "input_signal_length": length[None]}
        alone |= {(user, number): solo(model, user, one)[0] for user in [None, *users]}
    bank = AdapterBank(model, capacity=40)
    for _ in range(50 if gathers else 200):
        present = chance.sample(users, chance.randint(0, 40))
        rows = [
            (chance.choice([None, *present]), chance.randrange(len(lengths))) for _ in range(chance.randint(1, 48))
        ]
        numbers = [number for _, number in rows]
        with torch.no_grad(), bank.route([user for user, _ in rows]):
            mixed = model(input_signal=signals[numbers], input_signal_length=lengths[numbers])[0]
        for output, key in zip(mixed, rows):
            expected = alone[key]
            torch.testing.assert_close(output[: len(expected)], expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", ["first", "all", "own_head"])
def test_rows_with_the_default(model, attach, solo, batch, tmp_path: Path, kind: str, gathers: bool) -> None:
    own, default = "last_0", f"{kind}_1"
    attach(model, "last")
    attach(model, kind, each=2)
    store = AdapterStore(tmp_path / "store")
    store.put("ann", model, own)
    bank = AdapterBank(model, store, attached_adapter(model, default))
    users = {"ann": own, "nobody": default, None: None}
    alone = {user: solo(model, name, batch) for user, name in users.items()}
    for order in (["nobody", "ann", None], ["ann", "nobody", "nobody"]):
        with torch.no_grad(), bank.route(order):
            mixed, lengths, _ = model(**batch)
        for row, (user, length) in enumerate(zip(order, lengths)):
            torch.testing.assert_close(mixed[row, :length], alone[user][row, :length], atol=TOLERANCE, rtol=0)
            assert user is None or (mixed[row, :length] - alone[None][row, :length]).abs().max() > 100 * TOLERANCE


def test_only_the_model_it_is_for(make_model, model, attach, batch) -> None:
    other = make_model()
    attach(model, "first")
    with torch.no_grad(), AdapterBank(model).route(["first_0"]):
        assert torch.equal(other(**batch)[0], make_model()(**batch)[0])  # three rows, and nobody minds


def test_an_inner_block_replaces_the_outer_one(model, attach, solo, batch) -> None:
    attach(model, "first")
    bank = AdapterBank(model)
    with torch.no_grad(), bank.route(["first_0"] * 3):
        with bank.route([None] * 3):
            inner = model(**batch)[0]
        outer = model(**batch)[0]
    assert torch.equal(inner, solo(model, None, batch))
    torch.testing.assert_close(outer[1], solo(model, "first_0", batch)[1], atol=TOLERANCE, rtol=0)
    assert routing.active_routing(model.encoder, 7) is None


class Computed(Exception):
    """Something was computed."""


def fail_on_computing(model: EncDecCTCModel) -> None:
    def hook(*_: object) -> None:
        raise Computed

    for module in (model.encoder.conv, model.encoder.layers[0], model.decoder.output):
        module.register_forward_pre_hook(hook)


@pytest.mark.parametrize("users", [["first_0"], [None] * 4, []])
def test_wrong_number_of_users(model, attach, batch, users: list[str | None]) -> None:
    attach(model, "first")
    encoded = torch.zeros(3, model.encoder.point_width(2), 9)
    fail_on_computing(model)
    with AdapterBank(model).route(users):
        for run in (lambda: model(**batch), lambda: model.decoder(encoder_output=encoded)):
            with pytest.raises(InputError, match=f"has 3 utterances, but the routing names adapters for {len(users)}"):
                run()


@pytest.mark.parametrize("kind", ["first", "head"])
def test_routed_and_enabled_at_once(model, attach, batch, kind: str) -> None:
    attach(model, kind)
    encoded = torch.zeros(3, model.encoder.point_width(2), 9)
    fail_on_computing(model)
    run = {"first": lambda: model(**batch), "head": lambda: model.decoder(encoder_output=encoded)}[kind]
    message = f"row by row, but {kind}_0 are enabled for all rows"
    with (
        AdapterBank(model).route([None] * 3),
        enabled_adapters(model, f"{kind}_0"),
        pytest.raises(InputError, match=message),
    ):
        run()
    with pytest.raises(Computed):
        run()


def test_training_mode(model, attach, batch) -> None:
    attach(model, "first")
    model.train()
    with AdapterBank(model).route([None] * 3), pytest.raises(InputError, match="training mode: call model.eval"):
        model(**batch)


def test_unknown_adapter(model, attach) -> None:
    attach(model, "first")
    with (
        pytest.raises(AdapterNameError, match="'first_1'.*did you mean 'first_0'"),
        AdapterBank(model).route(["first_1"]),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("users", ["first_0", [1], [["first_0"]]])
def test_users_that_are_no_list_of_names(model, attach, users: object) -> None:
    attach(model, "first")
    with pytest.raises(InputError, match="expected a list with a user"), AdapterBank(model).route(users):
        pytest.fail("the block must not run")


def test_model_that_cannot(make_model) -> None:
    with pytest.raises(InputError, match="has DeepSpeech2Encoder and .*: .* call model.replace_adapter_compat"):
        AdapterBank(make_model(adapters=False))


def test_bank_of_another_model(model, make_model, attach, batch) -> None:
    attach(model, "first")
    bank = AdapterBank(model)
    other = make_model()
    with pytest.raises(InputError, match="made for another model"):
        transcribe(other, batch["input_signal"][0], ["first_0"], bank, progress=False)
    with pytest.raises(InputError, match="made for another model"):
        base_and_personal(other, bank, *batch.values(), ["first_0"] * 3)
    model.decoder = other.decoder
    with pytest.raises(InputError, match="another encoder or decoder"), bank.route(["first_0"]):
        pytest.fail("the block must not run")


def test_adapter_that_cannot(model, attach) -> None:
    attach(model, "first")
    (module,) = model.encoder.adapter_points["0"].adapter_layer.values()
    module.adapter_strategy = torch.nn.Identity()
    with (
        pytest.raises(AdapterFileError, match="MLPAdapter with Identity cannot be mixed"),
        AdapterBank(model).route(["first_0"]),
    ):
        pytest.fail("the block must not run")


def test_compiled(model, attach, batch) -> None:
    """In one piece torch can compile neither packed sequences nor a routing; in pieces both work."""
    users = attach(model, "all", each=2)
    bank = AdapterBank(model)
    orders = [None] * 3, [users[0], None, users[1]], [users[1], users[1], None], [None] * 3

    def run(order: list[str | None]) -> torch.Tensor:
        with torch.no_grad(), bank.route(order):
            return model(**batch)[0]

    expected = [run(order) for order in orders]
    model.encoder.compile(backend="eager")
    model.decoder.compile(backend="eager")
    for order, output in zip(orders, expected):
        torch.testing.assert_close(run(order), output, atol=1e-6, rtol=0)
    torch.compiler.reset()  # it would take what it has
    model.encoder.compile(backend="eager", fullgraph=True)
    with pytest.raises(Unsupported):
        run(orders[1])


@pytest.mark.gpu
def test_on_a_gpu(model, attach, solo, batch) -> None:
    users = attach(model, "all", "own_head")
    model = model.cuda()
    batch = {key: value.cuda() for key, value in batch.items()}
    with torch.no_grad(), AdapterBank(model).route([*users, None]):
        mixed = model(**batch)[0]
    for row, user in enumerate([*users, None]):
        torch.testing.assert_close(mixed[row, :8], solo(model, user, batch)[row, :8], atol=TOLERANCE, rtol=0)
