"""The page in a real browser, used by a synthetic person, who reads through its microphone and uploads files."""

import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from demo.corpus import DEMO_USERS, Utterance, speak
from demo.voices import SAMPLE_RATE, Synthesizer
from nemo_ds2_adapters import AdapterStore
from nemo_ds2_adapters.adapters.adapter import Adapter
from nemo_ds2_adapters.formats.reading import read_adapters

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip("needs Chromium, which is not installed", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra [dev]")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe, of the extra [dev]")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHOTS = os.environ.get("PAGE_SCREENSHOTS")  # a folder for pictures of every step, for somebody to look at
SIZES = {360: 740, 1280: 900}  # pixels
CAPTURE_RATE = 48_000  # Hz
USER = "ann@example.com/김"  # that nothing may take for a path
BY_MICROPHONE = 3  # sentences; files are quicker than the seconds that speech takes
START_SECONDS, STEP_SECONDS, TRAINING_SECONDS = 240, 60, 400  # on a busy machine: training gives way to all else


class Person:
    """Somebody with a voice, in front of a browser's microphone.

    Args:
        capture: the file that the browser takes for a microphone.
    """

    def __init__(self, capture: Path) -> None:
        self.capture = capture
        self._synthesizer = Synthesizer()

    def voice(self, text: str) -> np.ndarray:
        return speak(self._synthesizer, Utterance(DEMO_USERS[0], text), np.random.default_rng(0))

    def file(self, text: str, folder: Path) -> Path:
        path = folder / f"{random.Random(text).randrange(10**9)}.wav"
        soundfile.write(path, self.voice(text), SAMPLE_RATE)
        return path

    def prepare(self, text: str) -> float:
        """Have it in the microphone; seconds that it takes."""
        samples = soxr.resample(self.voice(text), SAMPLE_RATE, CAPTURE_RATE)
        soundfile.write(self.capture, samples, CAPTURE_RATE, subtype="PCM_16")
        return len(samples) / CAPTURE_RATE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """A service with the demo's base and prior."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "nemo_ds2_adapters.cli", "serve", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--store", str(folder / "store")], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/v1/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < end, "the service has not started"
            time.sleep(0.5)


@pytest.fixture
def person(folder: Path) -> Person:
    return Person(folder / "microphone.wav")


@pytest.fixture
def page(address: str, person: Person) -> Iterator["playwright.Page"]:
    person.prepare("one two three")
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={person.capture}%noloop",
    ]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        page = browser.new_page(base_url=address)
        page.set_default_timeout(STEP_SECONDS * 1000)
        playwright.expect.set_options(timeout=STEP_SECONDS * 1000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if is_error(message) else None)
        yield page
        browser.close()
    assert not problems


def is_error(message: "playwright.ConsoleMessage") -> bool:
    """Among others, what the Content-Security-Policy forbids; that somebody is unknown to the service is no error."""
    return message.type == "error" and "status of 404" not in message.text


@pytest.fixture
def look(page: "playwright.Page") -> Callable[[str], None]:
    """Checks what a step looks like, at every size and in both colours, and takes pictures of it."""

    def check(name: str) -> None:
        for (width, height), scheme in product(SIZES.items(), ("light", "dark")):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.Axe().run(page).response["violations"]
            assert not found, [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
            if SHOTS:
                page.screenshot(path=f"{SHOTS}/{name}-{width}-{scheme}.png", full_page=True)

    return check


def test_a_person(page: "playwright.Page", person: Person, look, folder: Path) -> None:
    """Who are you, ten sentences, training, the difference, speaking freely, taking it all along, being forgotten."""
    page.goto("/")
    playwright.expect(page.get_by_role("heading", level=1)).to_have_text("Ten sentences, and you are understood")
    playwright.expect(page.locator("#stored-policy")).to_contain_text("until your adapter was made of them")
    look("1-who")
    page.get_by_label("Who are you?").fill(USER)
    page.keyboard.press("Enter")

    heading(page, "Read aloud")
    for number in range(10):
        playwright.expect(page.locator("#read-count")).to_have_text(f"Sentence {number + 1} of 10")
        text = page.locator("#prompt").inner_text()
        if number < BY_MICROPHONE:
            say(page, person, text)
        else:
            page.locator("#read-recorder input").set_input_files(person.file(text, folder))
        playwright.expect(page.get_by_role("button", name="Keep it")).to_be_focused()
        page.wait_for_function("document.getElementById('heard-audio').duration > 1")  # it can be heard
        if number == 4:
            look("2-read")
        page.keyboard.press("Enter")
        playwright.expect(page.locator("#kept > li")).to_have_count(number + 1)
    playwright.expect(page.locator("#problem")).to_be_hidden()
    playwright.expect(page.get_by_role("button", name="Make my adapter")).to_be_focused()
    look("3-all-read")
    page.keyboard.press("Enter")

    heading(page, "Your adapter is being made")
    look("4-train")
    playwright.expect(page.locator("#train-title")).to_have_text("Done", timeout=TRAINING_SECONDS * 1000)
    playwright.expect(page.locator("#train-outcome")).to_have_text("Your adapter is ready.")
    playwright.expect(page.locator("#train-reason")).to_contain_text("of words wrong before")
    look("5-done")
    page.get_by_role("button", name="See the difference").click()

    heading(page, "The difference")
    for test in page.locator("#tests > li").all():
        path = person.file(test.locator(".said").inner_text(), folder)
        test.locator("input").set_input_files(path)
        playwright.expect(test.locator(".rate")).to_have_count(2)
    base, own = (int(cell.split()[0]) for cell in page.locator("#totals-rows td:nth-child(2)").all_inner_texts())
    assert own < base
    assert page.locator("#tests .pair > div:not(.own)").locator("mark, del, ins").count() == base
    look("6-compare")
    page.get_by_role("button", name="Speak freely").click()

    heading(page, "Speak freely")
    look("7-speak")
    page.get_by_role("button", name="What is mine").click()

    heading(page, "What is mine")
    playwright.expect(page.locator("#mine-list")).to_contain_text("made of your sentences")
    playwright.expect(page.locator("#mine-list")).to_contain_text("none")  # recordings
    with page.expect_download() as download:
        page.get_by_role("button", name="Download my adapter").click()
    download.value.save_as(folder / "adapter.pt")
    (adapter,) = read_adapters(folder / "adapter.pt").values()
    assert isinstance(adapter, Adapter) and adapter.parameters > 1000
    look("8-mine")
    store = AdapterStore(folder / "store")
    assert store.has(USER)
    page.get_by_role("button", name="Erase me").click()
    look("9-erase")
    page.get_by_role("button", name="Keep it").click()
    assert store.has(USER)
    page.get_by_role("button", name="Erase me").click()
    page.get_by_role("button", name="Erase everything").click()
    heading(page, "Ten sentences, and you are understood")
    playwright.expect(page.locator("#erased")).to_have_text(f"Everything about “{USER}” was erased.")
    assert not store.has(USER) and not [*(folder / "store").rglob("*.flac")]
    look("10-erased")


def heading(page: "playwright.Page", text: str) -> None:
    """A step has come, and the focus is on its heading."""
    found = page.get_by_role("heading", level=1)
    playwright.expect(found).to_have_text(text)
    playwright.expect(found).to_be_focused()


def say(page: "playwright.Page", person: Person, text: str) -> None:
    """Record a sentence, with the keyboard alone."""
    seconds = person.prepare(text)
    page.get_by_role("button", name="Record", exact=True).focus()
    page.keyboard.press("Space")
    playwright.expect(page.get_by_role("button", name="Stop")).to_be_focused()
    page.wait_for_timeout(1000 * seconds + 300)
    page.keyboard.press("Space")
