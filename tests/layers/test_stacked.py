"""Adapters of many users in one module: what eager code, a compiled and an exported graph make of it."""

import pytest
import torch
from torch import Tensor, nn

from nemo_ds2_adapters.layers import Branch, StackedAdapters

POINTS = ("first", "second")
NETWORKS = {
    "norm_first": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4), nn.GELU(), nn.Dropout(0.5), nn.Linear(4, 6)),
    "norm_last": lambda: nn.Sequential(nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 6), nn.LayerNorm(6)),
}


@pytest.fixture(params=NETWORKS)
def users(request: pytest.FixtureRequest) -> list[dict[str, nn.Sequential]]:
    """Three users' networks at two points."""
    users = [{point: NETWORKS[request.param]().eval() for point in POINTS} for _ in range(3)]
    for network in (network for user in users for network in user.values()):
        for parameter in network.parameters():
            nn.init.normal_(parameter)
    return users


@pytest.fixture
def stacked(users: list[dict[str, nn.Sequential]]) -> StackedAdapters:
    branches = [Branch(point, True, network) for point, network in users[0].items()]
    adapters = StackedAdapters(branches, 4, torch.device("cpu"), torch.float32)
    for slot, user in enumerate(users, start=1):
        adapters.write(slot, [network.state_dict() for network in user.values()])
    return adapters


def alone(users: list[dict[str, nn.Sequential]], x: Tensor, slots: Tensor, point: str) -> Tensor:
    """Each row with its user's own modules."""
    with torch.no_grad():
        rows = [row + users[slot - 1][point](row) if slot else row for row, slot in zip(x, slots.tolist())]
    return torch.stack(rows)


@pytest.mark.parametrize("point", POINTS)
def test_every_row_has_its_own(users, stacked: StackedAdapters, point: str) -> None:
    x, slots = torch.randn(5, 7, 6), torch.tensor([2, 0, 1, 3, 2])
    found = stacked(x, slots, point)
    torch.testing.assert_close(found, alone(users, x, slots, point), atol=1e-5, rtol=0)
    assert torch.equal(found[1], x[1])
    one_for_all = stacked.branches[point](x, x, stacked.weights(2)[point])
    torch.testing.assert_close(one_for_all, alone(users, x, torch.full((5,), 2), point), atol=1e-5, rtol=0)


def test_weights_of_one_user_are_not_copied(stacked: StackedAdapters) -> None:
    memory = stacked.numbers.untyped_storage().data_ptr()
    weights = [weight for weights in stacked.weights(2).values() for weight in weights.values()]
    assert {weight.untyped_storage().data_ptr() for weight in weights} == {memory}


def test_weights_of_a_batch_are_gathered_once(stacked: StackedAdapters) -> None:
    weights = [weight for weights in stacked.weights(torch.tensor([1, 2])).values() for weight in weights.values()]
    (memory,) = {weight.untyped_storage().data_ptr() for weight in weights}
    assert memory != stacked.numbers.untyped_storage().data_ptr()


def test_exported_graph_takes_any_users(users, stacked: StackedAdapters) -> None:
    batch, frames = torch.export.Dim("batch", min=2), torch.export.Dim("frames", min=2)
    example = (torch.randn(3, 7, 6), torch.tensor([1, 0, 2]), "second")
    shapes = {"x": {0: batch, 1: frames}, "slots": {0: batch}, "point": None}
    graph = torch.export.export(stacked, example, dynamic_shapes=shapes).module()
    x, slots = torch.randn(5, 9, 6), torch.tensor([3, 3, 0, 1, 2])
    torch.testing.assert_close(graph(x, slots, "second"), alone(users, x, slots, "second"), atol=1e-5, rtol=0)


def test_compiled_without_a_break(users, stacked: StackedAdapters) -> None:
    compiled = torch.compile(stacked, backend="eager", fullgraph=True)
    x = torch.randn(4, 7, 6)
    for slots in (torch.tensor([1, 0, 2, 3]), torch.tensor([3, 3, 0, 0])):
        torch.testing.assert_close(compiled(x, slots, "first"), alone(users, x, slots, "first"), atol=1e-5, rtol=0)


@pytest.mark.parametrize("slot", [0, 1])
def test_what_cannot_be_written(stacked: StackedAdapters, slot: int) -> None:
    with pytest.raises(ValueError, match=f"slot {slot} with .*: expected slot 1 or more and"):
        stacked.write(slot, [{"0.weight": torch.zeros(6)}] * 2)
    assert not stacked.numbers[0].any()


def test_network_that_cannot_be_stacked() -> None:
    branch = Branch("first", True, nn.Sequential(nn.Conv1d(2, 2, 1)))
    with pytest.raises(ValueError, match="cannot stack a Conv1d.*expected Linear"):
        StackedAdapters([branch], 2, torch.device("cpu"), torch.float32)
