"""The base that a service recognises with, and what belongs to it: the store, and the adapter of who has none."""

from collections.abc import Sequence
from typing import BinaryIO, Literal

import numpy as np
from nemo.collections.asr.models import EncDecCTCModel

from nemo_ds2_adapters.adaptation.voice_prior.prior import check_fits, read_prior
from nemo_ds2_adapters.adapters.fingerprint import fingerprint
from nemo_ds2_adapters.decoding.search import Search, SearchSettings
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.serving.audio import read_upload
from nemo_ds2_adapters.serving.settings import ServiceSettings
from nemo_ds2_adapters.store.store import AdapterStore

Kind = Literal["base", "population", "own"]  # of the adapter that somebody is recognised with


class ServedBase:
    """A base in memory with its store; every process of a service has one.

    Args:
        settings: of the service.

    Raises:
        InputError: the model is no NeMo CTC model, or the prior is not for it.
        AdapterFileError: a file or the store cannot be used.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.model = restore_model(str(settings.model), None)
        if not isinstance(self.model, EncDecCTCModel):
            raise InputError(f"{settings.model}: a {type(self.model).__name__}, expected a NeMo CTC model")
        self.model.eval()
        self.default = None  # the voice prior's adapter, if it helps who has not spoken
        if settings.prior is not None:
            prior = read_prior(settings.prior)
            check_fits(prior, fingerprint(self.model))
            self.default = prior.adapter if prior.helps_unheard else None
        self.store = AdapterStore(settings.store)  # made only now: what is refused leaves nothing behind
        self.store.check_writable()
        self.sample_rate = int(self.model.cfg.sample_rate)
        self.search_settings = SearchSettings(lm=settings.lm)
        self.search = Search(self.model, self.search_settings)

    def read(self, file: BinaryIO) -> np.ndarray:
        """The samples of an upload, see `read_upload`."""
        return read_upload(file, self.sample_rate, self.settings.max_seconds)

    def adapter_of(self, user: str | None) -> Kind:
        """Which adapter somebody is recognised with."""
        if user is None:
            return "base"
        if self.store.has(user):
            return "own"
        return "base" if self.default is None else "population"

    def words_of(self, user: str | None, given: Sequence[str] | None) -> tuple[str, ...]:
        """Which words decoding favours: those that a request gives, or without any, the user's.

        Raises InputError: the model cannot write one of them.
        """
        if given:
            self.search.check(given)
            return tuple(given)
        return () if user is None else self.store.words(user)
