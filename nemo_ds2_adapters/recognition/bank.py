"""The adapters of many users, each for its rows of a batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nemo.core import ModelPT

from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.modules.routing import Routing, routed, routed_rows
from nemo_ds2_adapters.recognition.loading import Architectures, AttachedAdapters, StoredAdapters
from nemo_ds2_adapters.recognition.residency import Residency
from nemo_ds2_adapters.recognition.residents import Resident
from nemo_ds2_adapters.store.store import AdapterStore


class AdapterBank(Residency):
    """The adapters of up to `capacity` users, stacked, and the rest in a store.

    A user who is not resident is loaded when first asked for; whoever was not asked for longest leaves, unless pinned
    or in use by a running batch. A new version in the store is picked up, and erasing a user is noticed, at the next
    request after `check_seconds`. Any number of threads may use a bank at the same time: a user that several of them
    ask for is loaded once, and loading touches no slot that a batch reads.

    Args:
        model: a DeepSpeech2 whose modules take adapters, in eval mode, with no adapter enabled.
        store: where the adapters lie, by user id; None for the adapters that are attached to the model, by name.
        default: what people without an adapter get, the erased among them; None refuses them.
        capacity: most users resident at the same time. Each architecture reserves memory for that many.
        check_seconds: how long a resident user is taken for current without asking the store.
        wait_seconds: how long to wait for running batches to release slots, if all are in use.

    Raises:
        InputError: the model is no such model, or the capacity is below 1.
        BaseMismatchError: the default was made for another base.
        AdapterFileError: the default does not fit the model, or is of a kind that cannot be mixed.
    """

    def __init__(
        self,
        model: ModelPT,
        store: AdapterStore | None = None,
        default: Adapter | None = None,
        capacity: int = 256,
        check_seconds: float = 1.0,
        wait_seconds: float = 60.0,
    ) -> None:
        if capacity < 1:
            raise InputError(f"capacity={capacity}: expected room for at least 1 user")
        architectures = Architectures(model)
        source = AttachedAdapters(model) if store is None else StoredAdapters(architectures, store)
        super().__init__(source, next(model.encoder.parameters()), capacity, check_seconds, wait_seconds)
        self._model = model
        self._modules = (model.encoder, model.decoder)
        if default is not None:
            self._keep_default(architectures.branches(default, "the default"), default.weights)

    def check_model(self, model: ModelPT) -> None:
        """Make sure that the bank is for this model, and that its modules are those it had.

        Raises InputError: adapters would silently not run.
        """
        if model is not self._model or not all(a is b for a, b in zip((model.encoder, model.decoder), self._modules)):
            raise InputError(
                "the bank was made for another model, or another encoder or decoder: make a new AdapterBank"
            )

    @contextmanager
    def route(self, users: Sequence[str | None]) -> Iterator[Routing]:
        """Let the model serve a batch in this block, row by row: `with bank.route(["ann", None, "bob"]): model(...)`.

        Args:
            users: of each utterance of the batch; None for the base.

        Raises:
            UnknownUserError: a user has no adapter (AdapterNameError for an attached one), and there is no default;
                nothing was computed.
            BaseMismatchError: an adapter was made for another base.
            AdapterFileError: an adapter is damaged, or does not fit the model.
            InputError: more users than the bank holds, all slots stay in use for too long, or the model's encoder or
                decoder is another one by now.
        """
        self.check_model(self._model)
        if isinstance(users, str) or not all(user is None or isinstance(user, str) for user in users):
            raise InputError(f"users={users!r}: expected a list with a user, or None for the base, per utterance")
        residents = self._acquire({user for user in users if user is not None})
        try:
            with self.route_held([None if user is None else residents[user] for user in users]) as routing:
                yield routing
        finally:
            self._release(residents.values())

    @contextmanager
    def route_held(self, residents: Sequence[Resident | None]) -> Iterator[Routing]:
        """As `route`, of what the caller holds: nothing is loaded, and nothing compared with the store."""
        parts = []
        for stack in {id(r.stack): r.stack for r in residents if r is not None and r.stack is not None}.values():
            slots = [0 if resident is None or resident.stack is not stack else resident.slot for resident in residents]
            parts += routed_rows(stack.adapters, slots)
        routing = Routing(self._modules, len(residents), parts)
        with routed(routing):
            yield routing

    def hold(self, user: str) -> Resident:
        """A user's adapter as it is now, which neither a new version nor others take away until it is let go.

        Raises what `route` does.
        """
        self.check_model(self._model)
        return self._acquire({user})[user]

    def let_go(self, resident: Resident) -> None:
        """Undo `hold`."""
        self._release([resident])

    def words(self, user: str) -> tuple[str, ...]:
        """A user's personal words, as the store has them at this moment; none for adapters attached to a model."""
        return self._source.words(user)

    def check_user(self, user: str) -> None:
        """Load a user, if need be. Raises what `route` does."""
        self.let_go(self.hold(user))
