"""Who is adapted together, wherever that is done."""

from collections.abc import Sequence

import pytest

from nemo_ds2_adapters.adaptation import plan
from nemo_ds2_adapters.adaptation.plan import MOST_SECONDS, Plan, population
from nemo_ds2_adapters.adaptation.settings import Settings
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.data.speakers import Speaker


def groups_of(users: Sequence[str], seconds: float, part_of: dict[str, int], at_once: int = 8) -> list[list[str]]:
    start = Adapter("start", {}, {})
    made = Plan(Settings({"name": "adamw"}), start, "base", "identity", part_of=part_of, users_at_once=at_once)
    return list(made.groups(users, lambda user: user, lambda user: seconds))


def test_groups_grow_and_nobody_is_left_out() -> None:
    users = [f"{number:02}" for number in range(30)]
    groups = groups_of(users, 10.0, {})
    assert [len(group) for group in groups] == [1, 2, 4, 8, 8, 7]
    assert [user for group in groups for user in group] == users
    assert groups_of([], 10.0, {}) == []


def test_long_recordings_make_small_groups() -> None:
    users = [f"{number:02}" for number in range(30)]
    groups = groups_of(users, MOST_SECONDS / 3, {})
    assert {len(group) for group in groups} == {1, 2, 3} and max(map(len, groups)) == 3
    assert [len(group) for group in groups_of(users[:4], 2 * MOST_SECONDS, {})] == [1, 1, 1, 1]


def test_who_shares_a_group_shares_a_prior() -> None:
    users = [f"{number:02}" for number in range(30)]
    part_of = {user: int(user) % 3 for user in users[:20]}  # the others have any, the first
    groups = groups_of(users, 10.0, part_of)
    assert all(len({part_of.get(user, 0) for user in group}) == 1 for group in groups)
    assert sorted(user for group in groups for user in group) == users


def test_priors_are_made_of_the_lowest_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST_SPEAKERS", 5)
    speakers = [Speaker(f"user {number}") for number in range(20)]
    chosen = population(speakers)
    assert {one.user_id for one in chosen} == {*sorted((one.user_id for one in speakers), key=user_hash)[:5]}
    assert chosen == [one for one in speakers if one in chosen]  # in their order
    assert population(speakers[:4]) == speakers[:4]
