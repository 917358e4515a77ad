"""Streams with words and a language model find what `transcribe` finds with them."""

import math
from pathlib import Path

from nemo_ds2_adapters import AdapterBank, AdapterStore, Recogniser, transcribe
from nemo_ds2_adapters.adapters.attached import attached_adapter
from nemo_ds2_adapters.decoding.search import SearchSettings

STRONG = SearchSettings(phrase_bonus=8.0)


def streamed(recogniser: Recogniser, recordings, users, words=None) -> list[str]:
    """The final texts of streams that run side by side; what is stable stays."""
    streams = [recogniser.open(user, words) for user in users]
    chunks = [list(recording.split(1280)) for recording in recordings]
    stable = [""] * len(streams)
    while any(chunks):
        for number, stream in enumerate(streams):
            if chunks[number]:
                stream.feed(chunks[number].pop(0))
        recogniser.step()
        for number, stream in enumerate(streams):
            assert stream.partial.stable.startswith(stable[number])
            stable[number] = stream.partial.stable
    found = [stream.finish().text for stream in streams]
    assert all(text.startswith(begin) for text, begin in zip(found, stable))
    return found


def test_each_stream_has_its_words(model, people, speech, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    users = ["ann", "bob", "cleo"]
    for number, (user, words) in enumerate(zip(users, (["hat gas"], ["sox", "bog"], []))):
        store.put(user, attached_adapter(model, people[number]))
        store.put_words(user, words)
    recordings = [speech(2.0 + number / 4, number) for number in range(3)]
    bank = AdapterBank(model, store)
    recogniser = Recogniser(model, bank, search=STRONG, pause_seconds=math.inf)
    offline = {"store": bank, "search": STRONG, "max_seconds": math.inf, "progress": False}
    with_words = transcribe(model, recordings, users, **offline)
    without = transcribe(model, recordings, users, words=[[]] * 3, **offline)
    assert with_words[:2] != without[:2] and with_words[2] == without[2]
    assert streamed(recogniser, recordings, users) == with_words
    assert streamed(recogniser, recordings, users, words=()) == without
