"""Recognising with an exported graph: onnxruntime and NumPy, neither torch nor NeMo."""

import json
import os
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from threading import Lock

import numpy as np
import onnxruntime

from nemo_ds2_adapters.checks import check_whole
from nemo_ds2_adapters.data.recordings import AudioSource
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.recognition.batches import Failures, OnError, run_batches, usable_users
from nemo_ds2_adapters.recognition.graph import METADATA, Arrays, Graph, check_batch
from nemo_ds2_adapters.recognition.users import asked_for
from nemo_ds2_adapters.recognition.windows import check_window_seconds
from nemo_ds2_adapters.store.store import AdapterStore

BASE: Arrays = {}


class OnnxRecogniser:
    """A graph that `export_onnx` wrote, and the adapters of a store. Any number of threads may use it.

    Args:
        path: of the graph.
        store: the users' adapters; None for the base alone.
        capacity: users whose weights stay in memory; who was not asked for longest leaves.
        threads: of a computation; None leaves it to onnxruntime.
        providers: onnxruntime's execution providers, in the order of preference.

    Raises:
        InputError: the file is no such graph, there is no store, or there is one and the graph takes no adapters.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        store: AdapterStore | str | os.PathLike[str] | None = None,
        capacity: int = 256,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        if capacity < 1:
            raise InputError(f"capacity={capacity}: expected room for at least 1 user")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3  # not that weights are inputs, which is what they are for
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=list(providers))
        except Exception as error:  # of onnxruntime, whose errors have no common type
            raise InputError(f"{path}: onnxruntime cannot open it as a graph ({error})") from error
        self.graph = _graph(self._session.get_modelmeta().custom_metadata_map.get(METADATA), path)
        if store is not None and self.graph.adapters == "none":
            raise InputError(f"{path}: takes no adapters: leave out the store, or export with rows or bank")
        self._store = store if isinstance(store, AdapterStore | None) else AdapterStore(store, create=False)
        self._capacity = capacity
        self._known: OrderedDict[str, tuple[Hashable, Arrays]] = OrderedDict()  # least recently used first
        self._bank: tuple[list[Arrays], dict[str, np.ndarray]] = ([], {})  # whose it is, the base's left out; inputs
        self._changing = Lock()

    def transcribe(
        self,
        audio: "AudioSource | Sequence[AudioSource]",
        adapters: Sequence[str | None] | None = None,
        batch_size: int = 16,
        *,
        adapter_key: str | None = None,
        max_seconds: float = 40.0,
        overlap_seconds: float = 4.0,
        progress: bool = True,
        on_error: OnError | None = None,
    ) -> list[str | None]:
        """What `nemo_ds2_adapters.transcribe` does with a store, greedily decoded; arguments and errors are its own.

        Returns:
            texts, in the order of the input.
        """
        check_whole("batch_size", batch_size, 1)
        check_window_seconds(max_seconds, overlap_seconds)
        failures, graph = Failures(on_error), self.graph
        count, utterances, users = asked_for(
            audio, graph.sample_rate, adapters, adapter_key, self._store is not None, failures
        )

        def run(signals: np.ndarray, lengths: np.ndarray, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
            features, frames = graph.features([row[:length] for row, length in zip(signals, lengths)])
            return self(features, frames, [None if users is None else users[number] for number in numbers])

        texts: list[str | None] = [None] * count
        for outputs in run_batches(
            graph.sample_rate,
            run,
            utterances,
            graph.frame_seconds,
            batch_size,
            failures,
            progress,
            max_seconds,
            overlap_seconds,
            usable_users(self.check_user, users, failures),
        ):
            for number, log_probs in outputs.items():
                texts[number] = graph.text(log_probs.argmax(axis=1))
        return texts

    def __call__(
        self, features: np.ndarray, lengths: np.ndarray, users: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run a batch, each row with its user's adapter.

        Args:
            features: float32 `[B, D, T]`, as `graph.features` computes them.
            lengths: int64 `[B]`, real frames.
            users: of each row, None for the base.

        Returns:
            log probabilities `[B, T', V]`, blank last, and `[B]` real frames of them.

        Raises:
            InputError: the arrays have other shapes or types, or a length lies beyond the features.
            UnknownUserError: a user has no adapter.
            BaseMismatchError: an adapter was made for another base.
            AdapterFileError: an adapter is damaged, or does not fit the graph.
        """
        check_batch(features, lengths, self.graph.features.width, len(users))
        inputs = {"audio_signal": features, "length": lengths, **self._adapters(users)}
        log_probs, frames, *_ = self._session.run(None, inputs)
        return log_probs, frames

    def check_user(self, user: str) -> None:
        """Load a user's adapter. Raises what a batch with this user does."""
        self._adapters([user])

    def _adapters(self, users: Sequence[str | None]) -> dict[str, np.ndarray]:
        """The graph's inputs for the rows' users; none if all rows are the base's."""
        with self._changing:
            known = {user: self._weights(user) for user in {user for user in users if user is not None}}
            while len(self._known) > max(self._capacity, len(known)):
                self._known.popitem(last=False)
            if not known:
                return {}
            if self.graph.adapters == "rows":
                distinct = [*known.values()] if None not in users and len(known) == 1 else None
                return self.graph.stacked(distinct or [BASE if user is None else known[user] for user in users])
            resident = [weights for _, weights in self._known.values()]
            if {*map(id, resident)} != {*map(id, self._bank[0])}:
                self._bank = resident, self.graph.stacked([BASE, *resident])
            slots = {id(weights): slot for slot, weights in enumerate(self._bank[0], start=1)}
            chosen = [0 if user is None else slots[id(known[user])] for user in users]
            return {**self._bank[1], "slots": np.array(chosen)}

    def _weights(self, user: str) -> Arrays:
        if self._store is None:
            raise InputError(f"user {user!r}: there is no store: OnnxRecogniser(..., store=)")
        known = self._known.get(user)
        versions = self._store.versions(user)
        if known is None or not versions or known[0] != versions[-1]:
            self._known.pop(user, None)
            version, adapter = self._store.look_into(user)
            known = version, self.graph.weights(adapter, f"{self._store}, user {user!r}")
            self._known[user] = known
        self._known.move_to_end(user)
        return known[1]


def _graph(text: str | None, path: object) -> Graph:
    if text is None:
        raise InputError(f"{path}: was not written by export_onnx, it does not say how features are computed")
    try:
        return Graph.of_plain(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: is of another version of nemo_ds2_adapters ({error}): export it again") from error
