"""The page at `/` in a headless Chromium."""

import os
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from matplotlib.image import imread, imsave

pytest_plugins = "serving"
SCREENS = Path(__file__).parent / "screens"
PANELS = ["similarity", "rerank", "classify", "fill", "entities", "answer", "paths"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def submit(browser, panel):
    """Show a panel and send its form."""
    browser.run(f"document.querySelector('[data-panel={panel}]').click()")
    browser.run(f"document.querySelector('#{panel} form').requestSubmit()")
    shown, waiting = f"document.querySelector('#{panel} .out').childElementCount", f"#{panel} form > button[disabled]"
    browser.wait(f"{shown} && !document.querySelector('{waiting}')")
    return browser.run(f"document.querySelector('#{panel} .out').innerText")


@pytest.mark.parametrize("panel", PANELS)
def test_each_panel_shows_its_answer(browser, url, panel, tmp_path):
    browser.problems.clear()
    browser.open(url)
    assert browser.run("document.querySelectorAll('#tabs button').length") == len(PANELS)
    submit(browser, panel)
    assert browser.run(f"document.querySelector('#{panel} .error')?.textContent ?? ''") == ""
    assert browser.run("[...document.querySelectorAll('main > section')].filter((s) => !s.hidden).length") == 1
    assert not browser.problems


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("panel", PANELS)
def test_each_panel_looks_as_it_did(browser, url, panel, dark, tmp_path):
    """In squares of 20 pixels, so that another version of a font changes little; `UFBERT_SCREENS=1` writes anew."""
    browser.open(url, dark=dark)
    submit(browser, panel)
    browser.run("document.activeElement.blur()")
    browser.screenshot(tmp_path / "panel.png")
    pixels = imread(tmp_path / "panel.png")[..., :3]
    assert pixels.shape == (800, 1000, 3)
    squares = pixels.reshape(40, 20, 50, 20, 3).mean(axis=(1, 3))
    file = SCREENS / f"{panel}-{'dark' if dark else 'light'}.png"
    if os.environ.get("UFBERT_SCREENS"):
        imsave(file, squares)
    difference = np.abs(squares - imread(file)[..., :3])
    assert difference.mean() < 0.01, f"{file.name}: mean difference {difference.mean():.3f}"
    assert (difference.max(axis=2) > 0.2).mean() < 0.012, f"{file.name}: {difference.max():.2f}"


def test_similarity_names_the_nearest(browser, url):
    browser.open(url)
    browser.run("document.querySelector('#similarity textarea').value = 'the cat\\na b c d e f g\\nthe cat'")
    assert submit(browser, "similarity").splitlines()[1].split()[-1] == "3"
    heat = browser.run("[...document.querySelectorAll('#similarity td.heat')].map((cell) => Number(cell.textContent))")
    assert len(heat) == 9 and heat[0] == heat[2] == 1


def test_marks_stand_where_the_answer_does(browser, url, http):
    browser.open(url)
    text = "\U0001f600 Maria Smith moved from New York to Berlin."  # one character, two units of JavaScript's strings
    browser.run(f"document.querySelector('#entities textarea').value = '{text}'")
    submit(browser, "entities")
    marked = browser.run("[...document.querySelectorAll('#entities mark')].map((mark) => mark.firstChild.data)")
    entities = http.post("/", json={"inputs": text, "model": "entities"}).json()
    assert marked == [text[entity["start"] : entity["end"]] for entity in entities] and marked


def test_paths_can_be_chosen(browser, url, http):
    browser.open(url)
    submit(browser, "paths")
    cells = "[...document.querySelectorAll('.paths button')].map((cell) => Number(cell.textContent))"
    first = browser.run(cells)
    text = browser.run("document.querySelector('#paths input').value")
    layers = np.array(http.post("/routes", json={"inputs": text}).json()["layers"])  # (L, T, P)
    assert first == layers[:, :, 0].T.reshape(-1).tolist()
    browser.run("(() => { const tree = document.querySelector('[data-choice=tree]'); tree.value = 1; tree.onchange; "
                "tree.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert browser.run(cells) == layers[:, :, 1].T.reshape(-1).tolist()
    browser.run("document.querySelector('[data-at=\"2-1\"]').click()")
    assert browser.run("document.querySelector('.paths [aria-pressed=true]').dataset.at") == "2-1"
    title = browser.run("document.querySelector('#paths svg title').textContent")
    assert title.endswith(f"leaf {layers[1, 2, 1]}")


def test_faults_are_said(browser, url):
    browser.open(url)
    browser.run("document.querySelector('#similarity textarea').value = 'one'")
    assert "Two texts at least" in submit(browser, "similarity")
    browser.run("document.querySelector('#fill input').value = 'no mask here'")
    assert "expected at least one [MASK]" in submit(browser, "fill")
    browser.run("document.querySelector('#classify textarea').value = '<img src=x onerror=alert(1)>'")
    assert "<img src=x" in submit(browser, "classify")  # shown as text
    assert browser.run("document.images.length") == 0


def test_a_key_is_asked_for(running, browser):
    with running(["tiny"], api_keys=("secret",)) as server:
        browser.open(server.url)
        assert "expected a key" in browser.run("document.querySelector('#about').textContent")
        browser.run("(() => { const key = document.querySelector('#key'); key.value = 'secret'; "
                    "key.dispatchEvent(new Event('change')); })()")  # fmt: skip
        browser.wait("document.querySelector('#tabs button')")
        assert "nearest" in submit(browser, "similarity")


def test_the_keyboard_is_enough(browser, url):
    browser.open(url)
    browser.run("document.querySelector('#tabs button').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.dataset.panel") == "rerank"
    assert browser.run("!document.querySelector('#rerank').hidden && document.querySelector('#similarity').hidden")
    browser.press("Tab")
    assert browser.run("document.activeElement.name") == "query"
    browser.press("Enter")
    browser.wait("document.querySelector('#rerank .out table')")
    browser.run("document.querySelector('#tabs [aria-selected=true]').focus()")
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")  # round the end
    assert browser.run("document.activeElement.dataset.panel") == "paths"


@pytest.mark.parametrize("panel", PANELS)
def test_a_phone_needs_no_sideways_scroll(browser, url, panel):
    browser.open(url, width=360, height=700)
    submit(browser, panel)
    assert browser.run("document.documentElement.scrollWidth") <= 360


def test_dark_and_light_can_both_be_read(browser, url, tmp_path):
    lightness = {}
    for dark in (False, True):
        browser.open(url, dark=dark)
        browser.screenshot(tmp_path / "page.png")
        lightness[dark] = float(np.median(imread(tmp_path / "page.png")[..., :3]))
    assert lightness[False] > 0.8 and lightness[True] < 0.3
