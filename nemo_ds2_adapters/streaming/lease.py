"""Somebody's adapter for as long as their stream runs."""

import logging

from nemo_ds2_adapters.errors import StoreAccessError
from nemo_ds2_adapters.recognition.bank import AdapterBank
from nemo_ds2_adapters.recognition.residents import Resident

logger = logging.getLogger(__name__)


class Lease:
    """A user's adapter, in the version that was current at the beginning: others cannot take its place in the bank.

    Args:
        bank: which holds it.
        user: whose.

    Raises:
        NemoDs2Error: it cannot be had, as `AdapterBank.route` says.
    """

    def __init__(self, bank: AdapterBank, user: str) -> None:
        self._bank = bank
        self.resident: Resident = bank.hold(user)

    def check(self) -> None:
        """Notice an erasure: then the bank's default takes the adapter's place.

        A store that cannot be asked ends no stream: what is held stays, and is asked for again. Raises
        UnknownUserError: the user was erased, and the bank has no default.
        """
        try:
            self.resident = self._bank.check_held(self.resident)
        except StoreAccessError as error:
            logger.warning("a stream goes on with the adapter that it has: %s", error)

    def release(self) -> None:
        """Give it back; once."""
        self._bank.let_go(self.resident)
