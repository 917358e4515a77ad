"""What can be said of a cluster without one."""

import pytest

from nemo_ds2_adapters.cluster import settings
from nemo_ds2_adapters.cluster.settings import ClusterSettings
from nemo_ds2_adapters.configs import choices, shipped_config
from nemo_ds2_adapters.errors import InputError

LOCAL = {"engine": None, "address": None, "workers": None, "cores": 1}
RAY = {**LOCAL, "engine": "ray"}


def test_choices_have_the_same_keys() -> None:
    assert choices("cluster") == ["local", "ray"] and choices("model.adapter") == []
    assert shipped_config("asr_adapters/cluster/local") == LOCAL
    assert shipped_config("asr_adapters/cluster/ray") == RAY
    assert shipped_config("asr_adapters/speaker_adaptation").cluster == LOCAL


def test_none_unless_asked_for() -> None:
    assert ClusterSettings.of(LOCAL) is None
    assert ClusterSettings.of({**RAY, "workers": 3}) == ClusterSettings(workers=3)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({**LOCAL, "workers": 2}, "cluster.workers=2 is for a cluster: add cluster=ray"),
        ({**LOCAL, "address": "auto"}, "cluster.address=auto is for a cluster: add cluster=ray"),
        ({**LOCAL, "engine": "spark"}, "cluster.engine=spark: write cluster=ray"),
        ({**RAY, "workers": 0}, "cluster.workers=0: expected a whole number of at least 1"),
        ({**RAY, "workers": "two"}, "cluster.workers=two: expected a whole number"),
        ({**RAY, "cores": 0.5}, "cluster.cores=0.5: expected a whole number"),
        ({**RAY, "address": "head"}, "cluster.address=head: expected HOST:PORT of a running cluster, or auto"),
        ({**RAY, "address": "ray://head:10001"}, "cluster.address=ray://head:10001: expected HOST:PORT"),
        ({**RAY, "address": 7}, "cluster.address=7: expected HOST:PORT"),
    ],
)
def test_wrong_values(section: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClusterSettings.of(section)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None if name == "ray" else True)
    with pytest.raises(InputError, match=r"cluster=ray: ray missing; pip install 'nemo_ds2_adapters\[ray\]'"):
        ClusterSettings.of(RAY)
