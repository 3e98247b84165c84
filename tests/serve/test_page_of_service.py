"""The page with the service behind it: a file goes in, and its tags come out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile as sf
from signals import RATE, noise
from small_bundle import make_bundle

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
for needed in ("playwright", "fastapi"):
    pytest.importorskip(needed, reason=f"the page's tests need {needed}")
if BROWSER is None:
    pytest.skip("the page's tests need chromium or google-chrome", allow_module_level=True)


def test_a_file_that_is_dropped_on_the_real_service_has_its_tags(tmp_path):
    from playwright.sync_api import sync_playwright

    make_bundle(tmp_path / "bundle")
    sf.write(tmp_path / "my song.wav", noise(4), RATE)
    (tmp_path / "no song.mp3").write_text("no music" * 50)
    words = ["serve", "--model", str(tmp_path / "bundle"), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tagger", *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    address = process.stderr.readline().split()[-1]
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=root)
            page = browser.new_page()
            page.set_default_timeout(20_000)
            broken = []
            page.on("pageerror", lambda error: broken.append(str(error)))
            page.goto(address)
            songs = [tmp_path / "my song.wav", tmp_path / "no song.mp3"]
            page.set_input_files("input[type=file]", songs)
            page.get_by_text("tag 0").first.wait_for()
            page.get_by_text("no song.mp3: not decodable audio").first.wait_for()
            browser.close()
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and not broken
    assert '"path": "/v1/segments", "status": 200' in said
