"""Many users' adapters in one place."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ds2_adapters.adapters.adapter import Adapter, loaded, mean
from nemo_ds2_adapters.adapters.names import missing_adapter
from nemo_ds2_adapters.adapters.users import adapter_name_for_user, user_hash
from nemo_ds2_adapters.errors import AdapterFileError, AdapterNameError, InputError, naming
from nemo_ds2_adapters.formats.file import write_adapters
from nemo_ds2_adapters.formats.reading import find_adapter, look_into
from nemo_ds2_adapters.formats.safetensors_file import Header, to_bytes
from nemo_ds2_adapters.formats.scratch import sweep_scratch
from nemo_ds2_adapters.store import words as word_files
from nemo_ds2_adapters.store.check import StoreReport, check_store
from nemo_ds2_adapters.store.opening import open_folder
from nemo_ds2_adapters.store.shelf import OnError, Shelf
from nemo_ds2_adapters.store.version import Entry, Version, checksum, owned, personal

if TYPE_CHECKING:
    from nemo.core import ModelPT

# Nobody's user id: under it a store keeps its voice prior, with versions as any adapter has them. No list shows it.
PRIOR = "nemo_ds2_adapters:voice_prior"


class AdapterStore:
    """Adapters by user id, with their earlier versions, in a local directory or an object store.

    Any number of processes and threads may read and write at the same time. In a local directory a put that is killed
    at any instant leaves the old version or the new one, concurrent puts are all kept, and files are readable by their
    owner only; docs/store.md says what other places guarantee.

    A user is any text of 1 to 200 characters, or it is a `UserIdError`. A `version` is a number; None is the current
    one. Who asks for an adapter that is not there gets an `UnknownUserError`; a file that is damaged is an
    `AdapterFileError`, a place that cannot be read or written a `StoreAccessError`, another process that writes and
    does not end a `StoreBusyError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        create: bool = True,
        keep_versions: int | None = None,
        lock_timeout: float = 60.0,
    ) -> None:
        """Open a store.

        Args:
            path: directory, or URL such as `s3://bucket/adapters`.
            create: make a store if there is none.
            keep_versions: at each put, remove a user's oldest versions beyond this number; None keeps all.
            lock_timeout: seconds to wait for another process that writes.

        Raises:
            InputError: there is no store and `create` is false, or something else lies at `path`.
        """
        if keep_versions is not None and keep_versions < 1:
            raise InputError(f"keep_versions={keep_versions}: expected at least 1, or None to keep all")
        self._shelf = Shelf(open_folder(path, create, lock_timeout), keep_versions)

    def __repr__(self) -> str:
        return f"AdapterStore({str(self._shelf.folder)!r})"

    def check_writable(self) -> None:
        """Make sure that adapters can be stored: to be called before they are trained for hours."""
        self._shelf.folder.check_writable()

    def put(
        self,
        user_id: str,
        source: "Adapter | ModelPT | str | os.PathLike[str]",
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Version:
        """Store a new version of a user's adapter, which becomes the current one.

        Args:
            user_id: whose it is.
            source: an adapter, a model, or an adapter file in this package's format.
            name: which adapter of a model or file; None takes of a model the one that is called after the user id,
                of a file the only one.
            metadata: plain values, added to its own.

        Raises:
            AdapterNameError: the model or file has no such adapter.
            InputError: the adapter is another user's, or does not say for which base it was made; the file holds
                several; or the metadata are not plain values.
            AdapterFileError: the file is damaged, or a weight is not finite.
        """
        adapter, label = _taken(source, user_id, name)
        data = to_bytes(personal(adapter, user_id, metadata or {}, label))  # before the lock: it takes longer
        with self._shelf.lock(user_id):
            return self._shelf.append(user_id, data)

    def get(self, user_id: str, version: int | None = None) -> Adapter:
        """A user's adapter, checksum compared and content checked."""
        return self.read(user_id, version)[1]

    def read(self, user_id: str, version: int | None = None) -> tuple[Version, Adapter]:
        """As `get`, and which version it is."""
        found, adapter = self.look_into(user_id, version)
        return found, loaded(adapter)

    def look_into(self, user_id: str, version: int | None = None) -> tuple[Version, Adapter]:
        """As `read`, but without PyTorch: the adapter has `StoredTensor`s for weights."""
        found, _, adapter = self._shelf.read(user_id, version)
        return found, adapter

    def header(self, user_id: str, version: int | None = None) -> Header:
        """Name, config, info with metadata, and number of parameters of a user's adapter; its weights are not read."""
        return self._shelf.header(user_id, version)

    def export(self, user_id: str, path: str | os.PathLike[str], version: int | None = None) -> None:
        """Write a user's adapter as a `.pt` that `load_adapter` and NeMo's `load_adapters` read."""
        write_adapters([self.look_into(user_id, version)[1]], path)

    def load_into(
        self,
        model: "ModelPT",
        user_id: str,
        version: int | None = None,
        as_name: str | None = None,
        strict_base: bool = True,
    ) -> str:
        """Attach a user's adapter to a model, and return its name there.

        Args:
            model: where to attach it; on any error it is as it was.
            user_id: whose.
            version: which.
            as_name: adapter name; None for `adapter_name_for_user(user_id)`.
            strict_base: refuse an adapter that was made for another base.

        Raises:
            AdapterNameError: the model has an adapter of that name.
            BaseMismatchError: the adapter was made for another base.
            AdapterFileError: the file is damaged, or does not fit the model.
        """
        from nemo_ds2_adapters.adapters.attach import attach

        adapter = self.get(user_id, version)
        with naming(f"{self._shelf.folder}, user {user_id!r}"):
            return attach(model, adapter, as_name, strict_base)

    def put_words(self, user_id: str, words: Iterable[str]) -> tuple[str, ...]:
        """Replace the words that decoding favours for a user, who need not have an adapter; none removes them.

        Args:
            user_id: whose.
            words: names, terms, phrases, as they are written.

        Returns:
            them as they are kept: each once, with single spaces.

        Raises:
            InputError: names the word that is empty, too long or not printable; or there are too many.
        """
        kept = word_files.checked_words(words)
        with self._shelf.lock(user_id):
            self._shelf.keep_words(user_id, word_files.to_bytes(user_id, kept) if kept else None)
        return kept

    def words(self, user_id: str) -> tuple[str, ...]:
        """A user's words, in their order; none for whom nobody put any."""
        return self._shelf.words(user_id)

    def has(self, user_id: str) -> bool:
        """Whether the user has an adapter."""
        return bool(self._shelf.versions(user_id))

    def list(self, prefix: str = "", since: datetime | None = None, on_error: OnError | None = None) -> Iterator[str]:
        """User ids, one after the other as they are found, in no particular order.

        Args:
            prefix: only ids that begin with it.
            since: only users whose current version was stored then or later; local time unless it has a time zone.
            on_error: called with why a user's adapter cannot be read, and the others go on. Without it, the first
                such adapter raises.
        """
        return (entry.user_id for entry in self.entries(prefix, since, on_error))

    def entries(
        self, prefix: str = "", since: datetime | None = None, on_error: OnError | None = None
    ) -> Iterator[Entry]:
        """As `list`, with version, times, base, type and size of each user's current adapter."""
        stored = self._shelf.entries(since.astimezone() if since else None, on_error)
        return (entry for entry in stored if entry.user_id.startswith(prefix) and entry.user_id != PRIOR)

    def stale(self, model: "ModelPT", on_error: OnError | None = None) -> Iterator[str]:
        """As `list`, users whose adapter was made for another base than this model's: they need training anew."""
        from nemo_ds2_adapters.adapters.fingerprint import fingerprint

        base = fingerprint(model)
        return (entry.user_id for entry in self.entries(on_error=on_error) if entry.fingerprint != base)

    def versions(self, user_id: str) -> Sequence[Version]:
        """A user's versions, oldest first; none if the store does not know the user."""
        return self._shelf.versions(user_id)

    def rollback(self, user_id: str, version: int | None = None) -> Version:
        """Store an older version once more, as the newest; nothing is lost.

        None is the version before the current one. Rolling back twice goes back two versions.
        """
        with self._shelf.lock(user_id):
            number = self._shelf.before_current(user_id).number if version is None else version
            found, data, _ = self._shelf.read(user_id, number)
            return self._shelf.append(user_id, bytes(data), found.suffix)

    def copy(self, source: str, target: str) -> Version:
        """Give `target`, who must have none (InputError), a copy of `source`'s current adapter as a start.

        It is without the metadata, which are personal.
        """
        return self.average([source], target)

    def average(self, sources: Sequence[str], target: str, weights: Sequence[float] | None = None) -> Version:
        """Give `target` the weighted mean of several users' current adapters, without metadata.

        Args:
            sources: users whose adapters have the same architecture, and were made for the same base.
            target: a user who has none yet.
            weights: one per source, at least 0, any scale; None weighs them equally.

        Raises:
            InputError: no sources, unsuitable weights, adapters that differ, or `target` has one.
        """
        combined = mean([self.look_into(source)[1] for source in sources], weights)
        data = to_bytes(owned(combined, target, {}))
        with self._shelf.lock(target):
            self._check_free(target)
            return self._shelf.append(target, data)

    def rename(self, old: str, new: str) -> None:
        """Move all of a user's versions to another id, with their numbers and times, and their words; the cache folder
        is removed.

        A process that is killed meanwhile leaves them under the old id, and perhaps some under the new one. If a
        version is damaged, or `new` has an adapter or words (InputError), nothing is changed.
        """
        with self._shelf.lock(old, new):
            self._shelf.find(old)
            self._check_free(new)
            words = self.words(old)
            if self.words(new):
                raise InputError(
                    f"{self._shelf.folder}: user {new!r} has words already: remove them, or choose another"
                )
            versions = [self.look_into(old, version.number) for version in self._shelf.versions(old)]
            moved = [(version, to_bytes(owned(adapter, new, adapter.metadata))) for version, adapter in versions]
            try:
                for version, data in moved:
                    self._shelf.keep(new, data, Version(version.number, version.stored, checksum(data)))
                if words:
                    self._shelf.keep_words(new, word_files.to_bytes(new, words))
            except AdapterFileError:
                self._shelf.folder.remove_user(user_hash(new))
                raise
            self._shelf.folder.remove_user(user_hash(old))

    def delete(self, user_id: str, version: int | None = None) -> None:
        """Remove a user's adapter, all versions of it; or one version, the newest remaining one being current then.

        Words stay: `put_words` removes them, `erase` removes everything.
        """
        with self._shelf.lock(user_id):
            self._shelf.find(user_id, version)
            self._shelf.remove(user_id, [v for v in self._shelf.versions(user_id) if version in (None, v.number)])

    def erase(self, user_id: str) -> bool:
        """Forget a person: all versions, metadata, words, what interrupted writes left, and `cache_folder`; whether
        there was any.

        Afterwards neither the id nor its hash is left in the store; to do it again does no harm.
        """
        sweep_scratch()
        with self._shelf.lock(user_id):
            return self._shelf.folder.remove_user(user_hash(user_id))

    def cached(self, name: str) -> Iterator[Path]:
        """Files and folders of this name in everybody's cache folders."""
        return self._shelf.folder.cached(name)

    def cache_folder(self, user_id: str, create: bool = True) -> Path:
        """A directory for whatever else is kept about a person, such as cached activations; `erase` removes it.

        Files in it whose names end with `.tmp` are removed by `verify` a day after they were last written. Only a
        store in a local directory has it (InputError). With `create=False` it may not be there.
        """
        with self._shelf.lock(user_id):
            return self._shelf.folder.cache_folder(user_hash(user_id), create)

    def verify(self, on_progress: Callable[[float], None] = lambda _: None) -> StoreReport:
        """Read and check every version of every user; remove what interrupted writes left, take from others the right
        to
        read. Damaged adapters are reported and left as they are.

        `on_progress` is called with the share that is done, 0 to 1, again and again.
        """
        return check_store(self._shelf.folder, on_progress)

    def _check_free(self, user_id: str) -> None:
        if self._shelf.versions(user_id):
            raise InputError(
                f"{self._shelf.folder}: user {user_id!r} has an adapter already: delete it, or choose another id"
            )


def _taken(source: Any, user_id: str, name: str | None) -> tuple[Adapter, str]:
    """The adapter that a source holds, and what to call the source in messages."""
    if isinstance(source, Adapter):
        return find_adapter({source.name: source}, name or source.name, "the adapter"), "the adapter"
    if isinstance(source, str | os.PathLike):
        adapters = look_into(source)[1]
        if name is None and len(adapters) != 1:
            raise InputError(f"{source}: holds {len(adapters)} adapters: choose one with name=")
        return find_adapter(adapters, name or next(iter(adapters)), source), str(source)
    from nemo_ds2_adapters.adapters.attached import attached_adapter
    from nemo_ds2_adapters.adapters.blocks import list_adapters

    if name is None:
        name = adapter_name_for_user(user_id)
        if name not in (names := list_adapters(source)):
            message = str(missing_adapter(name, names))
            raise AdapterNameError(f"user {user_id!r}: {message}; choose another adapter with name=")
    return attached_adapter(source, name), "the model"
