"""Which utterances are to be transcribed, and whose adapter each of them gets."""

from collections.abc import Callable, Sequence
from functools import cache

from nemo_ds2_adapters.data.manifest import Utterance
from nemo_ds2_adapters.data.recordings import AudioSource, is_manifest, open_recordings
from nemo_ds2_adapters.errors import InputError
from nemo_ds2_adapters.recognition.batches import Failures, Users


def asked_for(
    audio: "AudioSource | Sequence[AudioSource]",
    sample_rate: int,
    adapters: Sequence[str | None] | None,
    adapter_key: str | None,
    must_name: bool,
    failures: Failures,
) -> tuple[int, dict[int, Utterance], Users | None]:
    """What `transcribe` is asked for.

    Args:
        audio: see `transcribe`, as `adapters` and `adapter_key`.
        sample_rate: of arrays and tensors, Hz.
        adapters: one per utterance, or None.
        adapter_key: field of a manifest.
        must_name: whether somebody's adapter is to be used, of a store or as the default: then somebody is named.
        failures: takes what cannot be transcribed.

    Returns:
        number of utterances asked for; those that can be transcribed, by number; and their users, None if nobody was
        named.

    Raises:
        InputError: contradictory settings, `adapters` of another length, or no utterances.
    """
    found = open_recordings(audio, sample_rate)
    utterances = {}
    for number, one in enumerate(found):
        if isinstance(one, InputError):
            failures.add(number, one)
        else:
            utterances[number] = one
    if adapters is None and is_manifest(audio):
        return len(found), utterances, _of_manifest(utterances, adapter_key, must_name, failures)
    return len(found), utterances, _given(adapters, len(found), adapter_key, must_name)


def _given(
    adapters: Sequence[str | None] | None, count: int, adapter_key: str | None, must_name: bool
) -> Users | None:
    if adapter_key is not None:
        raise InputError(f"adapter_key={adapter_key} names a field of a manifest: give a manifest, or adapters alone")
    if adapters is None:
        if must_name:
            raise InputError("a store or default is given, but not who speaks: give adapters=, one per utterance")
        return None
    if isinstance(adapters, str) or len(adapters) != count:
        given = "one name" if isinstance(adapters, str) else f"{len(adapters)} adapters"
        raise InputError(f"{given} for {count} utterances: give one adapter, or None, per utterance")
    return dict(enumerate(adapters))


def _of_manifest(
    utterances: dict[int, Utterance], adapter_key: str | None, must_name: bool, failures: Failures
) -> Users | None:
    keys = [adapter_key] if adapter_key else ["adapter", "speaker"] if must_name else ["adapter"]
    users: Users = {}
    for number, utterance in list(utterances.items()):
        key = next((key for key in keys if key in utterance.fields), None)
        user = utterance.fields[key] if key else None
        if user is not None and not isinstance(user, str):
            failures.add(number, InputError(f"{utterance.place}: {key}={user!r}, expected text"))
            del utterances[number]
        elif key:
            users[number] = user
    if not users and utterances and (adapter_key or must_name):
        raise InputError(f"no line of the manifest has a field {' or '.join(keys)}, which names its adapter")
    return {number: users.get(number) for number in utterances} if users else None


def words_of(
    given: Sequence[Sequence[str]] | None,
    count: int,
    users: Users | None,
    stored: Callable[[str], tuple[str, ...]] | None,
) -> Callable[[int], Sequence[str]]:
    """The personal words of utterances, by their number: those given, or those stored of their users.

    Raises InputError: there are not as many lists as utterances.
    """
    if given is not None:
        if isinstance(given, str) or len(given) != count:
            raise InputError(
                f"{len(given)} lists of words for {count} utterances: give one list, or (), per utterance"
            )
        return given.__getitem__
    if users is None or stored is None:
        return lambda number: ()
    known = cache(stored)  # read once for each user
    return lambda number: () if users[number] is None else known(users[number])
