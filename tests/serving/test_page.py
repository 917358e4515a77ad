"""The page in a real browser, used by a synthetic person, who reads into its microphone and uploads files."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch

from demo.corpus import Channel, Speaker, Utterance, speak
from demo.run import STREAM_BASE_MODEL
from demo.voices import SAMPLE_RATE, Synthesizer
from nemo_ds2_adapters import AdapterStore
from nemo_ds2_adapters.adaptation.start import new_adapter
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.formats.nemo_archive import restore_model
from nemo_ds2_adapters.formats.reading import read_adapters

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip("needs Chromium, which is not installed", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra [dev]")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe, of the extra [dev]")
expect = playwright.expect

pytestmark = pytest.mark.slow
SHOTS = os.environ.get("PAGE_SCREENSHOTS")  # a folder for pictures of every step, for somebody to look at
SIZES = {360: 740, 1280: 900}  # pixels
CAPTURE_RATE = 48_000  # Hz
USER = "ann@example.com/김"  # that nothing may take for a path
ANN = "ann-only-0123456789"  # conftest's token of the user `ann`
BY_MICROPHONE = 3  # sentences; files are quicker than the seconds that speech takes
READER = Speaker(  # who is understood badly, and better with an adapter
    "reader",
    "en-gb-x-gbcwmd+iven4",
    pitch=57,
    rate=141,
    word_gap_ms=20,
    channel=Channel(low_hz=117, high_hz=4404, resonance_hz=3334, resonance_db=7, snr_db=34, reverberation_s=0.34),
)
STEP_SECONDS, TRAINING_SECONDS = 60, 400  # on a busy machine: training gives way to all else
DURATION = """id => new Promise(done => {
    const audio = document.getElementById(id);
    const look = () => audio.duration ? done(audio.duration) : setTimeout(look, 20);
    look();
})"""
MLP = {
    "_target_": "nemo_ds2_adapters.modules.adapters.MLPAdapter",
    "in_features": None,
    "hidden_dims": [16],
    "layers": "all",
}
Look = Callable[[Any, str], None]


class Person:
    """Somebody with a voice, in front of a browser's microphone.

    Args:
        folder: for recordings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.microphone = folder, folder / "microphone.wav"
        self._synthesizer = Synthesizer()
        self.prepare("one two three")

    def file(self, text: str, take: int = 0) -> Path:
        """A recording of a sentence; each take has other noise."""
        path = self.folder / f"{'_'.join(text.split())}-{take}.wav"
        soundfile.write(path, self._voice(text, take), SAMPLE_RATE)
        return path

    def prepare(self, text: str) -> float:
        """Let it be what the microphone hears next; seconds that it takes."""
        samples = soxr.resample(self._voice(text), SAMPLE_RATE, CAPTURE_RATE)
        soundfile.write(self.microphone, samples, CAPTURE_RATE, subtype="PCM_16")
        return len(samples) / CAPTURE_RATE

    def _voice(self, text: str, take: int = 0) -> np.ndarray:
        return speak(self._synthesizer, Utterance(READER, text), np.random.default_rng(take))


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@contextmanager
def opened(url: str, person: Person, *more: str) -> Iterator[Any]:
    """The page in a browser, in which nothing goes wrong."""
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={person.microphone}%noloop",
        *more,
    ]
    problems: list[str] = []
    expect.set_options(timeout=STEP_SECONDS * 1000)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        page = browser.new_page()
        page.set_default_timeout(STEP_SECONDS * 1000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if is_error(message) else None)
        page.goto(url)
        yield page
        browser.close()
    assert not problems


def is_error(message: Any) -> bool:
    """Such as what the Content-Security-Policy forbids. What the service refuses is not."""
    return message.type == "error" and "Failed to load resource" not in message.text


@pytest.fixture
def look() -> Look:
    """Checks what a step is like at every size and in both colours, and takes pictures of it."""

    def check(page: Any, name: str) -> None:
        for (width, height), scheme in product(SIZES.items(), ("light", "dark")):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.Axe().run(page).response["violations"]
            assert not found, [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
            if SHOTS:
                page.screenshot(path=f"{SHOTS}/{name}-{width}-{scheme}.png", full_page=True)

    return check


def test_a_person(start, person: Person, look: Look) -> None:
    """Who are you, ten sentences, training, the difference, speaking freely, taking it all along, being forgotten."""
    served = start()
    store = AdapterStore(served.store)
    with opened(served.url, person) as page:
        heading(page, "Ten sentences, and you are understood")
        expect(page.locator("#stored-policy")).to_contain_text("until your adapter was made of them")
        look(page, "1-who")
        page.get_by_label("Who are you?").fill(USER)
        page.keyboard.press("Enter")

        read = read_ten(page, person, look)
        assert len([*served.store.rglob("*.flac")]) == 10
        page.route("**/events", lambda route: route.abort(), times=1)  # a connection that is lost
        page.keyboard.press("Enter")
        heading(page, "Your adapter is being made")
        look(page, "4-train")
        expect(page.locator("#train-title")).to_have_text("Done", timeout=TRAINING_SECONDS * 1000)
        expect(page.locator("#train-outcome")).to_have_text("Your adapter is ready.")
        expect(page.locator("#train-reason")).to_contain_text("of words wrong before")
        look(page, "5-done")
        page.get_by_role("button", name="See the difference").click()

        compare(page, person)
        look(page, "6-compare")
        page.get_by_role("button", name="Speak freely").click()
        speak_freely(page, person)
        look(page, "7-speak")
        page.get_by_role("button", name="Go on").click()
        heading(page, "Words of your own")
        page.get_by_label("One word or phrase per line").fill("kirkwood\n\n rubout ")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("#words-saved")).to_have_text("Saved: 2.")
        look(page, "8-words")
        page.get_by_role("button", name="Go on").click()

        heading(page, "What is mine")
        expect(page.locator("#mine-list")).to_contain_text("kirkwood, rubout")
        expect(page.locator("#mine-list")).to_contain_text("made of your sentences")
        assert store.has(USER) and not [*served.store.rglob("*.flac")]
        with page.expect_download() as download:
            page.get_by_role("button", name="Download my adapter").click()
        download.value.save_as(person.folder / "adapter.pt")
        (adapter,) = read_adapters(person.folder / "adapter.pt").values()
        assert adapter.parameters > 1000
        look(page, "9-mine")
        page.get_by_role("button", name="Read more sentences").click()
        expect(page.locator("#read-again")).to_contain_text("what you read before is not kept")
        expect(page.locator("#read-count")).to_have_text("Sentence 1 of 10")
        assert page.locator("#prompt").inner_text() not in read
        look(page, "9-more")
        page.get_by_role("button", name="Mine").click()
        page.get_by_role("button", name="Erase me").click()
        look(page, "10-erase")
        page.get_by_role("button", name="Keep it").click()
        assert store.has(USER)
        page.get_by_role("button", name="Erase me").click()
        page.get_by_role("button", name="Erase everything").click()
        heading(page, "Ten sentences, and you are understood")
        expect(page.locator("#erased")).to_have_text(f"Everything about “{USER}” was erased.")
        assert not store.has(USER)
        look(page, "11-erased")


def read_ten(page: Any, person: Person, look: Look) -> set[str]:
    heading(page, "Read aloud")
    expect(page.locator("#prompt")).to_be_visible()
    skipped = page.locator("#prompt").inner_text()
    read = set()
    page.get_by_role("button", name="Skip").click()
    for number in range(10):
        expect(page.locator("#read-count")).to_have_text(f"Sentence {number + 1} of 10")
        text = page.locator("#prompt").inner_text()
        assert text != skipped
        read.add(text)
        if number < BY_MICROPHONE:
            say(page, person, text)
        else:
            page.locator("#read-recorder input").set_input_files(person.file(text))
        expect(page.get_by_role("button", name="Keep it")).to_be_focused()
        assert page.evaluate(DURATION, "heard-audio") > 1  # it can be heard
        if number == 4:
            look(page, "2-read")
        page.keyboard.press("Enter")
        expect(page.locator("#kept > li")).to_have_count(number + 1)
    expect(page.locator("#problem")).to_be_hidden()

    page.locator("#kept button").nth(4).click()
    text = page.locator("#prompt").inner_text()
    page.locator("#read-recorder input").set_input_files(person.file(text, take=1))
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Make my adapter")).to_be_focused()
    expect(page.locator("#kept > li")).to_have_count(10)
    look(page, "3-all-read")
    return read


def say(page: Any, person: Person, text: str) -> None:
    """Record a sentence, with the keyboard alone."""
    seconds = person.prepare(text)
    page.get_by_role("button", name="Record", exact=True).focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.wait_for_timeout(1000 * seconds + 300)
    page.keyboard.press("Space")


def compare(page: Any, person: Person) -> None:
    heading(page, "The difference")
    for test in page.locator("#tests > li").all():
        test.locator("input").set_input_files(person.file(test.locator(".said").inner_text()))
        expect(test.locator(".rate")).to_have_count(2)
    base, own = (int(cell.split()[0]) for cell in page.locator("#totals-rows td:nth-child(2)").all_inner_texts())
    assert own < base
    assert page.locator("#tests .pair > div:not(.own)").locator("mark, del, ins").count() == base


def speak_freely(page: Any, person: Person) -> None:
    """The texts grow while somebody speaks, and are there when they stop; or come at once from a file."""
    heading(page, "Speak freely")
    seconds = person.prepare(" ".join(["one two three four five"] * 3))
    page.get_by_role("button", name="Speak", exact=True).nth(1).click()
    expect(page.locator("#live-own .partial")).not_to_be_empty()
    page.wait_for_timeout(1000 * seconds)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#speak .partial")).to_have_count(0)
    for text in page.locator("#speak .live").all_inner_texts():
        assert len(text.split()) > 5
    before = page.locator("#live-own").inner_text()
    page.locator("#speak input").set_input_files(person.file("one two"))
    expect(page.locator("#live-own")).not_to_have_text(before)


def heading(page: Any, text: str) -> None:
    """A step has come, and the focus is on its heading."""
    found = page.get_by_role("heading", level=1)
    expect(found).to_have_text(text)
    expect(found).to_be_focused()


def test_a_base_that_streams(start, person: Person, look: Look) -> None:
    """What was said long enough ago stays as it is while more is said, with and without an adapter."""
    served = start(str(STREAM_BASE_MODEL))
    AdapterStore(served.store).put(USER, other_adapter(restore_model(str(STREAM_BASE_MODEL), None)))
    with opened(served.url, person) as page:
        page.get_by_label("Who are you?").fill(USER)
        page.keyboard.press("Enter")
        heading(page, "What is mine")
        page.get_by_role("navigation").get_by_role("button", name="Speak").click()
        heading(page, "Speak freely")
        seconds = person.prepare(" ".join(["one two three four five"] * 3))
        page.get_by_role("button", name="Speak", exact=True).nth(1).click()
        expect(page.locator("#live-base")).to_contain_text(re.compile(r"\w+ \w+ \w+"))
        heard = page.locator("#live-base").evaluate("live => live.firstChild.textContent")
        assert heard.strip()
        look(page, "14-streamed")
        page.wait_for_timeout(1000 * seconds)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#speak .partial")).to_have_count(0)
        base, own = page.locator("#speak .live").all_inner_texts()
        assert base.startswith(heard.strip()) and base != own


def other_adapter(model: Any) -> Adapter:
    """One that shows in what is heard."""
    adapter = new_adapter(model, "other", MLP, seed=0)
    generator = torch.Generator().manual_seed(0)
    noise = {
        point: {name: value + 0.3 * torch.randn(value.shape, generator=generator) for name, value in state.items()}
        for point, state in adapter.weights.items()
    }
    return replace(adapter, weights=noise)


def test_no_microphone_and_a_token(served, person: Person, look: Look) -> None:
    """By HTTP from another machine: the page says why there is no microphone, and takes files."""
    url = served.url.replace("127.0.0.1", "page.test")
    with opened(url, person, "--host-resolver-rules=MAP page.test 127.0.0.1") as page:
        page.get_by_label("Who are you?").fill("bob")
        page.get_by_label("Token").fill("some-token-0123456789")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("there is no such token")
        look(page, "12-token")
        page.get_by_label("Token").fill(ANN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("this token is for another user")
        page.get_by_label("Who are you?").fill("ann")
        page.keyboard.press("Enter")
        heading(page, "Read aloud")
        expect(page.locator("#read-recorder .notice")).to_contain_text("only to pages that come by HTTPS")
        expect(page.get_by_role("button", name="Record", exact=True)).to_be_hidden()
        look(page, "13-no-microphone")
        page.locator("#read-recorder input").set_input_files(person.file("one two"))
        page.keyboard.press("Enter")
        expect(page.locator("#kept > li")).to_have_count(1)
        soundfile.write(person.folder / "silence.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
        page.locator("#read-recorder input").set_input_files(person.folder / "silence.wav")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("file: is silent; record it again")
        page.get_by_role("button", name="Mine").click()
        page.get_by_role("button", name="Erase me").click()
        page.get_by_role("button", name="Erase everything").click()
        expect(page.locator("#erased")).to_be_visible()


def test_words_that_differ(served, person: Person) -> None:
    """The page counts errors as everybody does, and marks them."""
    cases = [
        ("a b c", "a b c", 0, 3),
        ("a b c", "", 3, 3),
        ("", "a", 1, 0),
        ("a b c d", "a x c", 2, 4),
        ("one two three", "two three four one", 3, 3),
    ]
    with opened(served.url, person) as page:
        for said, heard, wrong, words in cases:
            found = page.evaluate(
                "async ([said, heard]) => { const {align, count} = await import('/differences.js'); "
                "const steps = align(said, heard); return [steps, count(steps)]; }",
                [said, heard],
            )
            steps, counted = found
            assert counted == {"wrong": wrong, "words": words}
            assert " ".join(step["said"] for step in steps if step["said"]) == said
            assert " ".join(step["heard"] for step in steps if step["heard"]) == heard
