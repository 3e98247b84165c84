"""The page of `tagger serve`, in a browser: what it shows, and that all of it can be used."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import os
import re
import shutil
import subprocess
import tarfile
import time
import wave
from urllib.parse import urlsplit

import numpy as np
import pytest
from free_ports import ports

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
# Of all its files, packed as servers send them: it opens at once on a slow line too.
PAGE_BYTES = 45_000
AXE = "4.14.1"

for needed in ("playwright", "fastapi", "uvicorn", "websockets"):
    pytest.importorskip(needed, reason=f"the page's tests need {needed}")
if BROWSER is None:
    pytest.skip("the page's tests need chromium or google-chrome", allow_module_level=True)

import page_stub  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    # A browser that runs as root has no sandbox.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=[*root, *fake])
        yield launched
        launched.close()


@pytest.fixture
def page_server():
    with page_stub.serving(ports(1)[0]) as (address, seen):
        yield address, seen


@pytest.fixture
def guarded_server():
    with page_stub.serving(ports(1)[0], token="secret") as (address, seen):
        yield address, seen


@pytest.fixture
def opened(browser):
    """Open pages; in the end, none has asked another server for anything or complained."""
    contexts, asked, complaints = [], [], []

    def open_page(address, *, width=1300, scheme="light", script=None):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(f"{line.type}: {line.text}"))
        if script:
            page.add_init_script(script)
        page.goto(address)
        page.wait_for_selector("#model:enabled, #token:not([hidden])", state="attached")
        hosts.add(urlsplit(address).netloc)
        return page

    hosts: set[str] = set()
    yield open_page
    for context in contexts:
        context.close()
    assert {urlsplit(url).netloc for url in asked if url.startswith(("http", "ws"))} <= hosts
    # The browser itself reports answers such as 422 and 401, whatever the page makes of them.
    expected = re.compile(r"error: Failed to load resource: the server responded with a status")
    assert [text for text in complaints if not expected.match(text)] == []


@pytest.fixture
def song(tmp_path):
    def write(name="song.wav", seconds=page_stub.SECONDS):
        times = np.arange(int(8000 * seconds)) / 8000
        samples = np.sin(2 * np.pi * 440 * times) * np.abs(np.sin(times)) * 20_000
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(samples.astype("<i2").tobytes())
        return tmp_path / name

    return write


def choose(page, *paths):
    page.set_input_files("#input", [str(path) for path in paths])


def until(page, expression, arg=None):
    """Wait for what `wait_for_function` cannot see, for the page's policy forbids `eval`."""
    end = time.monotonic() + 20
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, f"never: {expression}"
        page.wait_for_timeout(20)


def done(page, count=1):
    until(page, "n => document.querySelectorAll('#list li[data-state=done]').length === n", count)


def colours(page, selector):
    """How many colours a canvas has: an empty one has one."""
    return page.evaluate(
        """selector => {
            const canvas = document.querySelector(selector);
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        }""",
        selector,
    )


def current_time(page):
    return page.evaluate("document.querySelector('#audio').currentTime")


# --- Files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_a_file_shows_tags_bars_taggram_and_segments(page_server, opened, song, way):
    address, seen = page_server
    page, path = opened(address), song("größe & ruhe.wav")
    if way == "chosen":
        choose(page, path)
    else:
        transfer = page.evaluate_handle(
            """([text, name]) => {
                const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], name, {type: 'audio/wav'}));
                return transfer;
            }""",
            [base64.b64encode(path.read_bytes()).decode(), path.name],
        )
        page.dispatch_event("main", "dragenter", {"dataTransfer": transfer})
        assert page.locator("#over").is_visible()
        page.dispatch_event("main", "drop", {"dataTransfer": transfer})
        assert page.locator("#over").is_hidden()
    done(page)
    assert (seen.names, seen.bodies) == ([path.name], [path.read_bytes()])
    answer = page_stub.answer(path.name, "musicnn-mtt")
    rows = page.locator(".tags .tag")
    assert rows.locator(".name").all_inner_texts() == [tag["label"] for tag in answer["tags"][:12]]
    scores = [f"{tag['score']:.2f}" for tag in answer["tags"][:12]]
    assert rows.locator(".score").all_inner_texts() == scores
    bars = page.eval_on_selector_all(
        ".tags .bar i", "all => all.map(i => parseFloat(i.style.width))"
    )
    assert bars == pytest.approx([100 * tag["score"] for tag in answer["tags"][:12]], abs=0.1)
    # `slow` alone reaches its threshold; the mark stands where that is.
    assert page.locator(".tag.on .name").all_inner_texts() == ["slow"]
    assert page.eval_on_selector(".tag.on b", "mark => mark.style.left") == "35%"
    assert page.locator(".names > p").all_inner_texts() == [
        tag["label"] for tag in answer["tags"][:12]
    ]
    assert page.locator(".segments li button").all_inner_texts() == [
        "0:02 – 0:08\n0.90",
        "0:12 – 0:17\n0.90",
    ]
    page.wait_for_selector(".wave .note", state="detached")
    assert colours(page, ".gram") > 20
    assert colours(page, ".wave canvas") > 1


def test_a_folder_gives_its_audio_files_by_name(page_server, opened, song, tmp_path):
    page = opened(page_server[0])
    (tmp_path / "album" / "extra").mkdir(parents=True)
    for name in ("album/10 last.wav", "album/2 first.wav", "album/extra/3.wav", "single.wav"):
        song(name, seconds=1)
    (tmp_path / "album" / "cover.jpg").write_bytes(b"no song")
    devtools = page.context.new_cdp_session(page)
    files = [str(tmp_path / "album"), str(tmp_path / "single.wav")]
    for event in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        devtools.send("Input.dispatchDragEvent", {"type": event, "x": 90, "y": 90, "data": data})
    done(page, 4)
    names = ["2 first.wav", "10 last.wav", "3.wav", "single.wav"]
    assert page.locator("#list .pick .name").all_inner_texts() == names


def test_another_tag_has_other_segments_and_a_segment_jumps(page_server, opened, song):
    page = opened(page_server[0])
    choose(page, song())
    done(page)
    page.locator(".segments li button").nth(1).click()
    until(page, "document.querySelector('#audio').currentTime === 12")
    page.get_by_role("button", name=re.compile("^slow")).click()
    assert page.locator(".segments h3").inner_text() == "When slow applies"
    assert page.locator(".names .chosen").inner_text() == "slow"
    before = page.locator(".segments li").count()
    page.get_by_label("Threshold of slow").fill("0.95")
    assert page.locator(".segments li").count() == 0 < before
    page.get_by_role("button", name="Back to the model's 0.35").click()
    assert page.locator(".segments li").count() == before


def test_a_click_on_the_taggram_moves_the_playhead(page_server, opened, song):
    page = opened(page_server[0])
    choose(page, song())
    done(page)
    box = page.locator(".gram").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 12)
    assert page.locator(".hover").inner_text() == "guitar · 0:05 · 0.90"
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 60)
    until(page, "Math.abs(document.querySelector('#audio').currentTime - 10) < 0.1")
    line = page.locator(".head-line").bounding_box()
    assert line["x"] == pytest.approx(box["x"] + box["width"] / 2, abs=3)
    assert line["height"] > box["height"] + 70, "the playhead crosses waveform and taggram"
    page.locator(".play").click()
    until(page, "document.querySelector('#audio').currentTime > 10.2")
    page.get_by_role("button", name="Pause").click()
    assert page.evaluate("document.querySelector('#audio').paused")


def test_files_keep_their_order_and_two_are_sent_at_once(page_server, opened, song):
    address, seen = page_server
    page = opened(address)
    names = [f"slow {letter}.wav" for letter in "dacbe"]
    choose(page, *(song(name, seconds=1) for name in names))
    done(page, len(names))
    assert page.locator("#list .pick .name").all_inner_texts() == names
    assert sorted(seen.names[:2]) == sorted(names[:2])
    assert seen.most_at_once == 2
    page.locator("#list .pick").nth(3).click()
    assert page.locator("#shown h2").inner_text() == names[3]
    page.get_by_role("button", name=f"Remove {names[3]}").click()
    assert page.locator("#list .pick .name").all_inner_texts() == [*names[:3], names[4]]
    assert page.locator("#shown h2").inner_text() == names[4]


def test_an_error_is_one_line_and_the_next_file_is_tagged(page_server, opened, song):
    page = opened(page_server[0])
    choose(page, song("broken.wav", 1), song("good.wav", 1))
    done(page)
    line = "broken.wav is no audio that can be read: convert it to wav."
    assert page.locator("li[data-state=error] .state").inner_text() == line
    assert page.locator(".failure [role=alert]").inner_text() == line
    state = page.locator("li[data-state=error] .state").bounding_box()
    assert state["height"] < 24


def test_a_busy_server_is_asked_again(page_server, opened, song):
    address, seen = page_server
    page = opened(address)
    choose(page, song("busy.wav", 1))
    page.wait_for_selector("li[data-state=busy]")
    said = page.locator(".state").inner_text()
    assert said == "The server is busy: next try in 1 s (1 of 4)"
    done(page)
    assert seen.names == ["busy.wav"] * 2


def test_a_file_that_the_browser_cannot_decode_is_shown_without_waveform(
    page_server, opened, tmp_path
):
    page = opened(page_server[0])
    (tmp_path / "odd.ape").write_bytes(b"MAC " * 500)
    choose(page, tmp_path / "odd.ape")
    done(page)
    note = page.get_by_text("No waveform: this browser cannot decode the file.")
    note.wait_for()
    page.wait_for_selector(".play:disabled")
    assert colours(page, ".gram") > 20
    page.locator(".segments li button").first.click()
    assert page.locator(".player .time").inner_text() == "0:02 / 0:20"


def test_another_model_tags_the_chosen_file_anew(page_server, opened, song):
    address, seen = page_server
    page = opened(address)
    choose(page, song(seconds=1))
    done(page)
    page.select_option("#model", "plain")
    page.get_by_text("The model has no thresholds.").wait_for()
    assert seen.models == ["musicnn-mtt", "plain"]
    assert page.locator(".tags .bar b").count() == page.locator(".tag.on").count() == 0
    page.select_option("#model", "genres")
    page.get_by_text("The model decides for one tag.").wait_for()
    assert page.locator(".tag.on .name").all_inner_texts() == ["guitar"]


def saved(page, name):
    with page.expect_download() as waiting:
        page.get_by_role("button", name=f"Download {name}").click()
    got = waiting.value
    return got.suggested_filename, got.path().read_text("utf-8")


def test_downloads_hold_the_answer_and_its_segments(page_server, opened, song):
    page = opened(page_server[0])
    choose(page, song("my.song.wav"))
    done(page)
    answer = page_stub.answer("my.song.wav", "musicnn-mtt")
    name, text = saved(page, "JSON")
    assert (name, json.loads(text)) == ("my.song.json", answer)
    name, text = saved(page, "CSV")
    lines = text.splitlines()
    assert (name, lines[0]) == ("my.song.csv", "tag,score,start,end")
    whole = [line for line in lines[1:] if line.endswith(",,")]
    assert len(whole) == len(page_stub.TAGS) and whole[0].startswith("guitar,0.")
    assert any(line.startswith('"classic, old",') for line in whole)
    parts = [line for line in lines[1:] if line.startswith("guitar,") and line not in whole]
    assert parts == ["guitar,0.9,2,8", "guitar,0.9,12,17"]
    name, text = saved(page, "Audacity labels")
    assert name == "my.song.txt"
    labels = [line.split("\t") for line in text.splitlines()]
    assert [label[:2] for label in labels if label[2] == "guitar"] == [
        ["2.000000", "8.000000"],
        ["12.000000", "17.000000"],
    ]
    starts = [float(label[0]) for label in labels]
    assert starts == sorted(starts)


# --- The microphone ----------------------------------------------------------------------------


def test_a_recording_is_a_wav_that_is_tagged(page_server, opened):
    address, seen = page_server
    page = opened(address)
    page.click("#record")
    page.get_by_text("Recording, 0:01").wait_for()
    page.click("#record")
    done(page)
    assert re.fullmatch(r"Recording \d\d\.\d\d\.\d\d\.wav", seen.names[0])
    with wave.open(io.BytesIO(seen.bodies[0])) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert 1 <= file.getnframes() / file.getframerate() < 10
        assert np.abs(np.frombuffer(file.readframes(file.getnframes()), "<i2")).max() > 500


def test_live_shows_scores_that_move(page_server, opened):
    address, seen = page_server
    page = opened(address)
    page.click("nav [data-view=live]")
    page.click("#listen")
    page.get_by_text("Listening for 0:01").wait_for()
    first = page.locator(".live-bars .score").all_inner_texts()
    page.get_by_text("Listening for 0:03").wait_for()
    assert len(first) == 12
    assert page.locator(".live-bars .score").all_inner_texts() != first
    assert colours(page, ".live-time canvas") > 5
    page.click("#listen")
    page.get_by_text("Stopped.").wait_for()
    assert seen.live_tokens == [""]
    heard = np.concatenate(seen.live_samples)
    assert np.abs(heard).max() > 0.02, "the beeps of the browser's own microphone"
    assert np.abs(heard).max() <= 1.5
    after = len(seen.live_samples)
    page.wait_for_timeout(400)
    assert len(seen.live_samples) <= after + 2, "after the end nothing is sent"


def test_live_says_that_the_microphone_is_refused(page_server, opened):
    refuse = "navigator.mediaDevices.getUserMedia = async () => {throw new DOMException('', '%s')}"
    page = opened(page_server[0], script=refuse % "NotAllowedError")
    page.click("nav [data-view=live]")
    page.click("#listen")
    page.get_by_text("The microphone was refused").wait_for()
    assert page.locator("#listen").inner_text() == "Listen"
    page.click("nav [data-view=files]")
    page.click("#record")
    page.locator("#record-note", has_text="The microphone was refused").wait_for()
    assert page.locator("#record").inner_text() == "Record"


def test_live_says_that_the_connection_broke(opened):
    with page_stub.serving(ports(1)[0]) as (address, _):
        page = opened(address)
        page.click("nav [data-view=live]")
        page.click("#listen")
        page.get_by_text("Listening for").wait_for()
    page.get_by_text("The connection to the server broke").wait_for()


@pytest.mark.parametrize("rate", [44100, 48000])
def test_the_resampler_keeps_what_is_below_half_the_rate(page_server, opened, rate):
    page = opened(page_server[0])
    made = page.evaluate(
        """async ([rate, hertz]) => {
            const {Resampler} = await import('/page/resample.js');
            return hertz.map(pitch => {
                const resampler = new Resampler(rate, 16000), made = [];
                for (let start = 0; start < rate; start += 4096) {
                    made.push(...resampler.push(Float32Array.from({length: 4096},
                        (_, i) => Math.sin(2 * Math.PI * pitch * (start + i) / rate))));
                }
                return made;
            });
        }""",
        [rate, [1000, 6500, 9000, 15000]],
    )
    fed = math.ceil(rate / 4096) * 4096
    for pitch, samples in zip((1000, 6500), made, strict=False):
        assert len(samples) == pytest.approx(fed / rate * 16000, abs=20)
        wanted = np.sin(2 * np.pi * pitch * np.arange(len(samples)) / 16000)
        assert np.abs(np.array(samples) - wanted)[100:].max() < 0.02
    for samples in made[2:]:
        assert np.abs(samples[100:]).max() < 0.01


# --- Tokens ------------------------------------------------------------------------------------


def test_a_token_is_asked_for_and_sent(guarded_server, opened, song):
    address, seen = guarded_server
    page = opened(address)
    choose(page, song(seconds=1))
    for token in ("wrong", "secret"):
        page.fill("#token-field", token)
        page.press("#token-field", "Enter")
        if token == "wrong":
            page.get_by_text("The server did not take this token.").wait_for()
    done(page)
    assert page.locator("#token").is_hidden()
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
    page.click("nav [data-view=live]")
    page.click("#listen")
    page.get_by_text("Listening for").wait_for()
    assert seen.live_tokens == ["secret"]


# --- For everybody -----------------------------------------------------------------------------


def tab_to(page, selector):
    """Press Tab until an element has the focus; all on the way show that they have it."""
    for _ in range(80):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or page.evaluate("document.activeElement === document.body")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"the keyboard does not reach {selector}")


def test_all_is_used_with_the_keyboard_alone(page_server, opened, song):
    page = opened(page_server[0])
    # Before the key is pressed: the browser takes a moment to hand choosers over.
    page.on("filechooser", lambda chooser: chooser.set_files([str(path) for path in paths]))
    paths = [song("one.wav"), song("two.wav")]
    tab_to(page, "#choose")
    page.keyboard.press("Enter")
    done(page, 2)
    tab_to(page, "#list li:nth-child(2) .pick")
    page.keyboard.press("Enter")
    assert page.locator("#shown h2").inner_text() == "two.wav"
    tab_to(page, ".play")
    page.keyboard.press("Space")
    until(page, "document.querySelector('#audio').currentTime > 0.1")
    page.keyboard.press("Space")
    tab_to(page, ".track")
    page.keyboard.press("Home")
    for key, at in (("ArrowRight", 1), ("ArrowRight", 2), ("PageUp", 12), ("ArrowLeft", 11)):
        page.keyboard.press(key)
        until(page, "t => document.querySelector('#audio').currentTime === t", at)
    track = page.locator(".track")
    assert track.get_attribute("aria-valuetext") == "0:11 of 0:20, guitar 0.20"
    tab_to(page, ".tags li:nth-child(2) .tag")
    page.keyboard.press("Enter")
    assert page.locator(".segments h3").inner_text() == "When slow applies"
    assert page.evaluate("document.activeElement.matches('.tags li:nth-child(2) .tag')")
    tab_to(page, ".segments li button")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#audio').currentTime === 0")
    tab_to(page, "#list li:nth-child(2) .remove")
    page.keyboard.press("Enter")
    assert page.locator("#list li").count() == 1
    assert page.evaluate("document.activeElement.matches('#list .pick')")


def states(page, song):
    """Bring a page into one state after another."""
    yield "empty"
    choose(page, song("a name of a file that is long enough to be cut.wav"), song("broken.wav", 1))
    done(page)
    yield "done"
    page.locator(".pick").nth(1).click()
    yield "error"
    page.click("nav [data-view=live]")
    page.click("#listen")
    page.get_by_text("Listening for").wait_for()
    yield "live"


def test_nothing_is_cut_off_on_a_narrow_screen(page_server, opened, song):
    page = opened(page_server[0], width=400)
    for state in states(page, song):
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 400, state


CONTRAST = """() => {
    const parse = text => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return text.startsWith('color(') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const low = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
        const pair = [light(parse(getComputedStyle(element).color)), light(behind(element))];
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        if (ratio < 4.5) low.push(`${walker.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
    }
    return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page_server, opened, song, scheme):
    page = opened(page_server[0], scheme=scheme)
    grounds = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", grounds)[0]) < 60) == (scheme == "dark")
    for state in states(page, song):
        assert page.evaluate(CONTRAST) == [], state


@pytest.fixture(scope="session")
def axe(request):
    """Source of axe-core, a checker of pages, from the package index: kept in pytest's cache."""
    kept = request.config.cache.mkdir("axe-core") / f"axe-{AXE}.js"
    if not kept.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("axe-core comes from npm, which is not there")
        command = [npm, "pack", f"axe-core@{AXE}", "--pack-destination", str(kept.parent)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip("axe-core could not be fetched from npm")
        with tarfile.open(kept.parent / f"axe-core-{AXE}.tgz") as packed:
            source = packed.extractfile("package/axe.min.js")
            assert source is not None
            # Whole at once: another process may look.
            part = kept.with_suffix(f".{os.getpid()}")
            part.write_bytes(source.read())
            part.replace(kept)
    return kept.read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page_server, opened, song, axe, scheme):
    page = opened(page_server[0], scheme=scheme)
    page.evaluate(axe)
    for state in states(page, song):
        found = page.evaluate("axe.run().then(({violations}) => violations)")
        shown = [(each["id"], each["nodes"][0]["html"][:120]) for each in found]
        assert shown == [], state


def test_the_page_is_small_and_our_own():
    parts = {path.name: path.read_text("utf-8") for path in page_stub.PAGE.iterdir()}
    assert sum(len(gzip.compress(text.encode())) for text in parts.values()) < PAGE_BYTES
    html = parts["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|<style|\son\w+=", html)
    for name, text in parts.items():
        urls = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", text))
        # The name of SVG's namespace; nothing is fetched from it.
        assert not {url for url in urls if "www.w3.org/2000/svg" not in url}, name
