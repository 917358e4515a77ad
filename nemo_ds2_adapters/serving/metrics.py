"""What Prometheus is told."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from nemo_ds2_adapters.recognition.residents import BankStatistics

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one service; what they are about is never who."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: Any = {"registry": self._registry, "namespace": "ds2_adapters"}
        self.requests = Counter("requests", "Requests.", ["route", "method", "status"], **own)
        self.latency = Histogram("request_seconds", "From request to answer.", ["route"], buckets=SECONDS, **own)
        self.batch_size = Histogram("batch_size", "Recordings per batch.", buckets=BATCH_SIZES, **own)
        self.batch_seconds = Histogram("batch_seconds", "Of a batch in the model.", buckets=SECONDS, **own)
        self.waiting = Gauge("waiting_recordings", "Recordings that wait for the model.", **own)
        self.speech = Counter("speech_seconds", "Of recognised speech, by whose adapter.", ["adapter"], **own)
        self.jobs = Counter("jobs", "Trainings, by how they ended.", ["state"], **own)
        self.waiting_jobs = Gauge("waiting_jobs", "Trainings that are queued or running.", **own)
        self._bank = {
            name: Gauge(f"bank_{name}", about, **own)
            for name, about in {
                "requests": "Users with an adapter, each once per batch, since the start.",
                "hits": "Of these, whose adapter was in memory.",
                "loads": "Adapters that were read.",
                "resident": "Users whose adapter is in memory.",
            }.items()
        }

    def text(self, bank: BankStatistics) -> bytes:
        """All of them, as Prometheus reads them."""
        for name, gauge in self._bank.items():
            gauge.set(getattr(bank, name))
        return generate_latest(self._registry)
