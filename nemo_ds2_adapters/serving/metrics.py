"""What Prometheus is told."""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from nemo_ds2_adapters.recognition.residents import BankStatistics

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class RecognitionMetrics:
    """The counters of one process that recognises; what they are about is never who."""

    def __init__(self) -> None:
        self._registry, own = _registry()
        self.batch_size = Histogram("batch_size", "Recordings per batch.", buckets=BATCH_SIZES, **own)
        self.batch_seconds = Histogram("batch_seconds", "Of a batch in the model.", buckets=SECONDS, **own)
        self.waiting = Gauge("waiting_recordings", "Recordings that wait for the model.", **own)
        self.speech = Counter("speech_seconds", "Of recognised speech, by whose adapter.", ["adapter"], **own)
        self._bank = {
            name: Gauge(f"bank_{name}", about, **own)
            for name, about in {
                "requests": "Users with an adapter, each once per batch, since the start.",
                "hits": "Of these, whose adapter was in memory.",
                "loads": "Adapters that were read.",
                "resident": "Users whose adapter is in memory.",
            }.items()
        }

    def collect(self, bank: BankStatistics) -> Sequence[Metric]:
        """All of them at this moment, as plain values."""
        for name, gauge in self._bank.items():
            gauge.set(getattr(bank, name))
        return list(self._registry.collect())


class Metrics:
    """The counters of one service, in the process that is called."""

    def __init__(self) -> None:
        self._registry, own = _registry()
        self.requests = Counter("requests", "Requests.", ["route", "method", "status"], **own)
        self.latency = Histogram("request_seconds", "From request to answer.", ["route"], buckets=SECONDS, **own)
        self.jobs = Counter("jobs", "Trainings, by how they ended.", ["state"], **own)
        self.waiting_jobs = Gauge("waiting_jobs", "Trainings that are queued or running.", **own)

    def text(self, others: Iterable[Metric]) -> bytes:
        """All of them, and what recognition says of itself, as Prometheus reads them."""
        everything = [*self._registry.collect(), *others]
        return generate_latest(SimpleNamespace(collect=lambda: everything))


def _registry() -> tuple[CollectorRegistry, dict[str, Any]]:
    """One of its own, and what every metric in it takes."""
    registry = CollectorRegistry()
    return registry, {"registry": registry, "namespace": "ds2_adapters"}
