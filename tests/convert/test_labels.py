"""Output units in NeMo's order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ds2_adapters import InputError
from nemo_ds2_adapters.convert.labels import output_units

LABELS = st.lists(st.characters(categories=["Ll", "Lo"]), unique=True, min_size=2, max_size=30)


@given(labels=LABELS, data=st.data())
def test_blank_goes_last_and_the_rest_stays_in_order(labels: list[str], data: st.DataObject) -> None:
    blank = data.draw(st.integers(0, len(labels) - 1))
    units = output_units(labels, len(labels), blank, default_blank=0, keep_case=True)
    assert units.order[-1] == blank and sorted(units.order) == list(range(len(labels)))
    assert units.vocabulary == [labels[row] for row in units.order[:-1]]
    without = output_units([*labels[:blank], *labels[blank + 1 :]], len(labels), blank, 0, keep_case=True)
    assert without == units


@pytest.mark.parametrize(
    ("labels", "default", "blank"),
    [("_ab", 2, 0), (["a", "<blank>", "_"], 0, 1), ("abc", 0, 0), ("abc", 2, 2)],
)
def test_where_the_blank_is(labels: list[str], default: int, blank: int) -> None:
    assert output_units(list(labels), 3, None, default, keep_case=False).order[-1] == blank


def test_case() -> None:
    assert output_units(["_", "A", "'"], 3, None, 0, keep_case=False).vocabulary == ["a", "'"]
    assert output_units(["_", "A", "b"], 3, None, 0, keep_case=False).vocabulary == ["A", "b"]
    with pytest.raises(InputError, match="'a' occurs more than once"):
        output_units(["_", "a", "a"], 3, None, 0, keep_case=False)
