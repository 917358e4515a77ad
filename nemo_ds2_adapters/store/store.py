"""Many users' adapters in one place."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nemo.core import ModelPT

from nemo_ds2_adapters.adapters.blocks import adapter_names
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.adapters.names import missing_adapter
from nemo_ds2_adapters.adapters.users import adapter_name_for_user, user_hash
from nemo_ds2_adapters.errors import AdapterNameError, InputError
from nemo_ds2_adapters.formats.atomic import write_atomically
from nemo_ds2_adapters.formats.old_names import (
    FileContents,
    attach_contents,
    contents_bytes,
    describe_adapters,
    read_adapter_file,
)
from nemo_ds2_adapters.store.check import StoreReport, check_store
from nemo_ds2_adapters.store.index import Entry
from nemo_ds2_adapters.store.opening import open_folder
from nemo_ds2_adapters.store.personal import personal
from nemo_ds2_adapters.store.shelf import Shelf
from nemo_ds2_adapters.store.transfer import Transfers
from nemo_ds2_adapters.store.version import Version


class AdapterStore(Transfers):
    """Adapters by user id, with their earlier versions, in a local directory or at an fsspec URL.

    Any number of processes and threads may read and write at the same time. In a local directory a put that is
    killed at any instant leaves the old version or the new one, concurrent puts are all kept, and files are readable
    by their owner only; docs/store.md says what other places guarantee.

    Every method that takes a user id raises `UserIdError` if it is none: text of 1 to 200 characters.
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

    def put(
        self,
        user_id: str,
        source: ModelPT | FileContents | str | os.PathLike[str],
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Version:
        """Store a new version of a user's adapter, which becomes the current one.

        Args:
            user_id: whose it is.
            source: a model, an adapter file in this package's format, or what `get` returned.
            name: which of its adapters; None takes the one that is called after the user id, of a file the only one.
            metadata: plain values, added to those of the file.

        Raises:
            AdapterNameError: the model or file has no such adapter.
            InputError: the file is another user's, or does not say for which base it was made, or holds several.
            AdapterFileError: the file is damaged, a weight is not finite, or the store cannot be written.
            StoreBusyError: another process writes, and does not end.
        """
        if isinstance(source, ModelPT):
            name = name or _name_in(source, user_id)
            label, found = "the model", describe_adapters(source, name)
        elif isinstance(source, FileContents):
            label, found = "the adapter", source
        else:
            label, found = str(source), read_adapter_file(source)
        contents = personal(found, user_id, metadata or {}, label, name)
        data = contents_bytes(contents)  # before the lock: it takes longer than the rest
        with self._shelf.lock(user_id):
            return self._shelf.append(user_id, contents, data)

    def get(self, user_id: str, version: int | None = None) -> FileContents:
        """A user's adapter, checksum compared and content checked: `.adapters` by name, `.info` about it.

        Args:
            user_id: whose.
            version: its number; None for the current one.

        Raises:
            UnknownUserError: there is none.
            AdapterFileError: the file is damaged.
        """
        return self._shelf.contents(user_id, version)

    def export(self, user_id: str, path: str | os.PathLike[str], version: int | None = None) -> None:
        """Write a user's adapter as a file that `load_adapter` and NeMo's `load_adapters` read.

        Raises:
            UnknownUserError: there is none.
            AdapterFileError: the file is damaged, or cannot be written.
        """
        write_atomically(path, self._shelf.read(user_id, version)[1])

    def load_into(
        self,
        model: ModelPT,
        user_id: str,
        version: int | None = None,
        as_name: str | None = None,
        strict_base: bool = True,
    ) -> str:
        """Attach a user's adapter to a model.

        Args:
            model: where to attach it; on any error it is as it was.
            user_id: whose.
            version: its number; None for the current one.
            as_name: adapter name; None for `adapter_name_for_user(user_id)`.
            strict_base: refuse an adapter that was made for another base.

        Returns:
            the name under which it is attached.

        Raises:
            UnknownUserError: there is none.
            AdapterNameError: the model has an adapter of that name.
            BaseMismatchError: the adapter was made for another base.
            AdapterFileError: the file is damaged, or does not fit the model.
        """
        label = f"{self._shelf.folder}, user {user_id!r}"
        (name,) = attach_contents(model, self.get(user_id, version), label, None, as_name, strict_base)
        return name

    def has(self, user_id: str) -> bool:
        """Whether the user has an adapter."""
        return bool(self._shelf.versions(user_id))

    def list(self, prefix: str = "", since: datetime | None = None) -> Iterator[str]:
        """User ids, one after the other as they are found, in no particular order.

        Args:
            prefix: only ids that begin with it.
            since: only users whose current version was stored then or later; local time unless it has a time zone.

        Raises:
            AdapterFileError: a user's entry in the index is missing, and the adapter file is damaged.
        """
        return (entry.user_id for entry in self.entries(prefix, since))

    def entries(self, prefix: str = "", since: datetime | None = None) -> Iterator[Entry]:
        """As `list`, with version, times, base, type and size of each user's current adapter."""
        stored = self._shelf.entries(since.astimezone() if since else None)
        return (entry for entry in stored if entry.user_id.startswith(prefix))

    def stale(self, model: ModelPT) -> Iterator[str]:
        """User ids whose current adapter was made for another base than this model's: they need training anew."""
        base = fingerprint(model)
        return (entry.user_id for entry in self.entries() if entry.fingerprint != base)

    def versions(self, user_id: str) -> Sequence[Version]:
        """A user's versions, oldest first; none if the store does not know the user."""
        return self._shelf.versions(user_id)

    def rollback(self, user_id: str, version: int | None = None) -> Version:
        """Store an older version once more, as the newest; nothing is lost.

        Args:
            user_id: whose.
            version: its number; None for the one before the current. Rolling back twice goes back two versions.

        Raises:
            UnknownUserError: there is no such version, or no older one.
            AdapterFileError: that version is damaged.
        """
        with self._shelf.lock(user_id):
            number = self._shelf.before_current(user_id).number if version is None else version
            found, data = self._shelf.read(user_id, number)
            return self._shelf.append(user_id, self._shelf.parse(user_id, found, data), data)

    def delete(self, user_id: str, version: int | None = None) -> None:
        """Remove a user's adapter, all versions of it; or one version, the newest remaining one being current then.

        Raises:
            UnknownUserError: there is none.
        """
        with self._shelf.lock(user_id):
            versions = self._shelf.versions(user_id)
            self._shelf.find(user_id, version)
            self._shelf.remove(user_id, [v for v in versions if version in (None, v.number)])

    def erase(self, user_id: str) -> bool:
        """Forget a person: all versions, metadata, index entries, what interrupted writes left, and `cache_folder`.

        Afterwards neither the id nor its hash is left in the store; to do it again does no harm.

        Returns:
            whether there was anything.
        """
        with self._shelf.lock(user_id):
            found = bool(self._shelf.folder.names(user_hash(user_id)))
            self._shelf.remove(user_id, self._shelf.versions(user_id))
            self._shelf.folder.remove_user(user_hash(user_id))
        return found

    def cache_folder(self, user_id: str) -> Path:
        """A directory for whatever else is kept about a person, such as cached activations; `erase` removes it.

        Raises:
            InputError: the store is not in a local directory.
        """
        with self._shelf.lock(user_id):
            return self._shelf.folder.cache_folder(user_hash(user_id))

    def verify(self, on_progress: Callable[[float], None] = lambda _: None) -> StoreReport:
        """Read and check every version of every user; write index entries anew, remove what interrupted writes left,
        take from others the right to read. Damaged adapters are reported and left as they are.

        Args:
            on_progress: called with the share that is done, 0 to 1, again and again.

        Raises:
            StoreBusyError: another process writes, and does not end.
        """
        return check_store(self._shelf.folder, on_progress)


def _name_in(model: ModelPT, user_id: str) -> str:
    name = adapter_name_for_user(user_id)
    if name not in adapter_names(model):
        message = str(missing_adapter(name, adapter_names(model)))
        raise AdapterNameError(f"user {user_id!r}: {message}; choose another adapter with name=")
    return name
