"""From one user of a store to another: copy, rename, average."""

from collections.abc import Sequence

from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.old_names import averaged, contents_bytes, with_adapters
from nemo_ds2_adapters.store.personal import handed_over
from nemo_ds2_adapters.store.shelf import Shelf
from nemo_ds2_adapters.store.version import Version


class Transfers:
    """The part of `AdapterStore` that concerns several users at once."""

    _shelf: Shelf

    def copy(self, source: str, target: str) -> Version:
        """Give `target` a copy of `source`'s current adapter as a start, without the metadata, which are personal.

        Raises:
            UnknownUserError: `source` has no adapter.
            InputError: `target` has one.
        """
        return self.average([source], target)

    def average(self, sources: Sequence[str], target: str, weights: Sequence[float] | None = None) -> Version:
        """Give `target` the weighted mean of several users' current adapters, without metadata.

        Args:
            sources: users whose adapters have the same architecture, and were made for the same base.
            target: a user who has none yet.
            weights: one per source, at least 0, any scale; None weighs them equally.

        Raises:
            UnknownUserError: one of `sources` has no adapter.
            InputError: no sources, unsuitable weights, adapters that differ, or `target` has one.
        """
        if not sources:
            raise InputError("no users to average: name at least one")
        contents = [self._shelf.contents(source) for source in sources]
        bases = {each.info["fingerprint"]: source for each, source in zip(contents, sources)}
        if len(bases) > 1:
            one, other, *_ = bases.values()
            raise InputError(f"the adapters of {one!r} and {other!r} were made for different base models")
        adapters = [adapter for each in contents for adapter in each.adapters.values()]
        mean = with_adapters(contents[0], [averaged(adapters, adapters[0].name, weights)])
        result = handed_over(mean, target, {})
        with self._shelf.lock(target):
            self._check_free(target)
            return self._shelf.append(target, result, contents_bytes(result))

    def rename(self, old: str, new: str) -> None:
        """Move all of a user's versions to another id; the cache folder is removed.

        A process that is killed meanwhile leaves them under the old id, and perhaps some under the new one.

        Raises:
            UnknownUserError: `old` has no adapter.
            InputError: `new` has one.
            AdapterFileError: a version is damaged; nothing was changed.
        """
        with self._shelf.lock(old, new):
            self._shelf.find(old)
            self._check_free(new)
            contents = [self._shelf.contents(old, version.number) for version in self._shelf.versions(old)]
            for moved in [handed_over(each, new, each.info["metadata"]) for each in contents]:
                self._shelf.append(new, moved, contents_bytes(moved))
            self._shelf.folder.remove_user(user_hash(old))

    def _check_free(self, user_id: str) -> None:
        if self._shelf.versions(user_id):
            raise InputError(
                f"{self._shelf.folder}: user {user_id!r} has an adapter already: delete it, or choose another id"
            )
