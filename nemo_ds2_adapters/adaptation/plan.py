"""What all speakers of a run are given, whoever trains them, here or elsewhere."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, TypeVar

from nemo_ds2_adapters.activations.cache import CacheSettings
from nemo_ds2_adapters.adaptation.settings import PriorSettings, Settings
from nemo_ds2_adapters.adaptation.voice_prior.choice import is_of_use
from nemo_ds2_adapters.adaptation.voice_prior.fit_prior import why_no_prior
from nemo_ds2_adapters.adaptation.voice_prior.prior import VoicePrior, check_fits, describe, weights_hash
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.adapters.users import user_hash
from nemo_ds2_adapters.data.speakers import Speaker

MOST_SECONDS = 1000.0  # of speech in a group: more takes no less time for each, and is lost with one process
MOST_SPEAKERS = 300  # whom priors are made of in passing: more would teach little, and take as long as everybody

WITHOUT = "no voice prior is made of these speakers ({}): each one's own recordings decide"

Parts = Sequence[tuple[VoicePrior, Sequence[Speaker]]]
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How every speaker is adapted; a value that a process can be sent.

    Args:
        settings: of the training.
        start: what everybody's training starts from; not used with a prior.
        base: fingerprint of the base.
        identity: hash of all that a result depends on beside base and speaker.
        own_prior: priors are to be made of the speakers first, so.
        priors: one for everybody, or several, of which nobody is given one that has heard them; none: everybody is
            cross-validated.
        part_of: which prior a user gets, by the hash of the id; the first, where it does not say.
        users_at_once: trained together.
        key: what to call the manifest in messages.
        cache: how activations are kept while a group is trained.
        keep_activations: in the store.
    """

    settings: Settings
    start: Adapter
    base: str
    identity: str
    own_prior: PriorSettings | None = None
    priors: Sequence[VoicePrior] = ()
    part_of: Mapping[str, int] = field(default_factory=dict)
    users_at_once: int = 16
    key: str = "speakers"
    cache: CacheSettings = field(default_factory=CacheSettings)
    keep_activations: bool = False

    @classmethod
    def of(
        cls,
        base: str,
        settings: Settings,
        start: Adapter,
        population: Sequence[Speaker],
        *,
        prior: VoicePrior | None = None,
        own_prior: PriorSettings | None = None,
        say: Callable[[str], object],
        **others: Any,
    ) -> Self:
        """What is to be done with a prior; or of `own_prior`, if one of the population is worth to be made.

        Raises InputError: the prior is of another base.
        """
        if prior is not None:
            check_fits(prior, base)
            start, own_prior = prior.adapter, None
        identity: list[Any] = [asdict(settings), start.config, weights_hash(start)]
        if own_prior is not None:
            if reason := why_no_prior(population, start, own_prior):
                say(WITHOUT.format(reason))
                own_prior = None
            else:
                identity += [asdict(own_prior), {speaker.user_id: speaker.data_hash() for speaker in population}]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return cls(settings, start, base, digest, own_prior, (prior,) if prior else (), **others)

    def with_priors(
        self, population: Sequence[Speaker], learn: Callable[[PriorSettings], Parts], say: Callable[[str], object]
    ) -> Self:
        """The same, with the priors that `learn` makes of the population, whose recordings have been checked.

        Without any, if too few are left, or if none is of use to those left out of it.
        """
        assert self.own_prior is not None
        if reason := why_no_prior(population, self.start, self.own_prior):
            say(WITHOUT.format(reason))
            return replace(self, own_prior=None)
        parts = learn(self.own_prior)
        for prior, part in parts:
            first, *lines = describe(prior)
            say(f"for {len(part)} speakers, who are not in it, a {first}")
            for line in lines:
                say(line)
        if not any(is_of_use(prior) for prior, _ in parts):
            say("no prior is safely of use to those left out of it: each one's own recordings decide")
            return replace(self, own_prior=None)
        number = {user_hash(speaker.user_id): k for k, (_, part) in enumerate(parts) for speaker in part}
        return replace(self, own_prior=None, priors=[prior for prior, _ in parts], part_of=number)

    def groups(
        self, users: Iterable[T], hash_of: Callable[[T], str], seconds_of: Callable[[T], float]
    ) -> Iterator[list[T]]:
        """Who is trained together: neighbours in the order of their hashes, with the same prior.

        So it depends on the users alone who shares a group, wherever they come from and in whatever order. The first
        groups are small, so that something comes of them soon.

        Args:
            users: in the order of their hashes.
            hash_of: `user_hash` of one's id.
            seconds_of: one's speech.
        """
        filling: dict[int, list[T]] = {}
        sizes: dict[int, int] = {}
        for user in users:
            part = self._part(hash_of(user))
            group = filling.setdefault(part, [])
            if group and sum(map(seconds_of, group)) + seconds_of(user) > MOST_SECONDS:
                yield filling.pop(part)
                group = filling.setdefault(part, [])
            group.append(user)
            if len(group) == sizes.setdefault(part, 1):
                yield filling.pop(part)
                sizes[part] = min(2 * len(group), self.users_at_once)
        yield from filling.values()

    def prior_for(self, user_id: str) -> VoicePrior | None:
        """The prior that a user gets; who has said too little to be in any population may have any."""
        return self.priors[self._part(user_hash(user_id))] if self.priors else None

    def _part(self, hashed: str) -> int:
        return self.part_of.get(hashed, 0)


def population(speakers: Sequence[Speaker]) -> list[Speaker]:
    """Of whom priors are made, in their order: all speakers, or of many those with the lowest hashes."""
    lowest = {one.user_id for one in sorted(speakers, key=lambda one: user_hash(one.user_id))[:MOST_SPEAKERS]}
    return [one for one in speakers if one.user_id in lowest]
