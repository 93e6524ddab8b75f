"""The rendered book in a real browser: private, without errors, legible, and usable by keyboard and on a phone.

Chromium comes from the system (on Debian ``apt-get install chromium``); nothing is downloaded here.
"""

import contextlib
import functools
import http.server
import os
import re
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

import explorer

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
NARROW = {"width": 360, "height": 740}

pytestmark = pytest.mark.browser

_CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text())
_CHAPTERS = [chapter["file"] for part in _CONTENTS["parts"] for chapter in part["chapters"]]
PAGES = [f"{name}.html" for name in (_CONTENTS["root"], *_CHAPTERS, "search")]


@pytest.fixture(scope="module")
def address(site) -> str:
    """Where a web server on this machine offers the book."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments) -> None:
            pass

    here = functools.partial(Handler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    found = os.environ.get("COMPANION_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed, and COMPANION_BROWSER names no browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Containers run as root, where Chromium's sandbox cannot; it opens nothing here but this book.
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@dataclass
class Visit:
    """A page in the browser, and what went wrong while it was open."""

    page: object
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def trouble(seen: Visit, wrong: bool, what: str) -> None:
    """Note what went wrong, if it did."""
    if wrong:
        seen.troubles.append(what)


@pytest.fixture
def visit(browser):
    """Open an address; at the end of the test, anything that went wrong fails it."""
    visits: list[Visit] = []
    with contextlib.ExitStack() as stack:

        def go(url: str, viewport: dict = DESKTOP, scheme: str = "light", **options) -> Visit:
            context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
            stack.callback(context.close)
            seen = Visit(context.new_page())
            visits.append(seen)
            page, troubles = seen.page, seen.troubles
            page.on("request", lambda request: seen.requests.append(request.url))
            page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url}"))
            page.on("pageerror", lambda error: troubles.append(f"uncaught: {error}"))
            page.on("console", lambda said: trouble(seen, said.type in ("error", "warning"), said.text))
            page.on("response", lambda got: trouble(seen, got.status >= 400, f"{got.status}: {got.url}"))
            page.goto(url, wait_until="load")
            return seen

        yield go
        for seen in visits:
            assert not seen.troubles, "\n".join(seen.troubles)


def violations(page) -> list[str]:
    """What axe-core calls serious or critical, one line an element."""
    from axe_playwright_python.sync_playwright import Axe

    # Without preload: axe would fetch the theme's style sheets again, and their imports from a wrong address.
    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['html'][:150]} {node.get('failureSummary', '')[:300]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def overflow(page) -> list[str]:
    """What sticks out of the window to the right and is not clipped, if that makes the page scroll sideways."""
    return page.evaluate(
        """() => {
        const clipped = (e) => {
          for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
            if (getComputedStyle(p).overflowX !== "visible") return true;
          return false;
        };
        if (document.documentElement.scrollWidth <= innerWidth) return [];
        return [...document.querySelectorAll("body *")]
          .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !clipped(e))
          .slice(0, 5).map((e) => e.outerHTML.slice(0, 120));
        }"""
    )


def faults(page, wide: bool) -> list[str]:
    """Figures without a numbered caption or in pixels; tables and code that are cut off.

    On a wide window nothing may have to be moved sideways; on a phone, what has to be must show it by a shadow.
    """
    return page.evaluate(
        """wide => {
        const found = [], article = document.querySelector("article");
        for (const figure of article.querySelectorAll("figure:not(.explorer-figure)")) {
          const words = figure.querySelector("figcaption .caption-text")?.innerText.trim() ?? "";
          if (words.length < 40 || !figure.querySelector("figcaption .caption-number"))
            found.push("no caption: " + figure.outerHTML.slice(0, 120));
          for (const image of figure.querySelectorAll("img"))
            if (!/\\.svg$|^data:image\\/svg/.test(image.src)) found.push("no vector: " + image.src.slice(0, 120));
        }
        const cut = (e) => e.scrollWidth > e.clientWidth + 1;
        for (const box of article.querySelectorAll(".pst-scrollable-table-container, pre"))
          if (cut(box) && box.checkVisibility() && (wide || getComputedStyle(box).backgroundImage === "none"))
            found.push("cut off: " + box.innerText.slice(0, 120));
        return found;
        }""",
        wide,
    )


def test_the_checks_see_what_they_are_for(browser):
    page = browser.new_page(viewport=PHONE)
    page.set_content(
        "<html lang=en><title>bad</title><main><h1>bad</h1><p style='color: #bbb'>faint</p>"
        "<div style='width: 900px'>wide</div><img src='data:,'><article><figure><img alt=x src='a.png'></figure>"
        "<pre style='overflow: auto; width: 50px'>a long line of code</pre></article></main></html>"
    )
    found = {line.partition(" ")[0] for line in violations(page)}
    assert {"color-contrast", "image-alt"} <= found
    assert overflow(page)
    assert [line.partition(":")[0] for line in faults(page, wide=True)] == [
        "no caption",
        "no vector",
        "cut off",
    ]
    page.close()


# --- every page ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"]
)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_private_whole_accessible_and_fits(visit, address, name, viewport, scheme):
    seen = visit(f"{address}/{name}", viewport, scheme)
    page = seen.page
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.get_by_role("heading", level=1).count() == 1
    for landmark in ("banner", "main", "navigation", "contentinfo"):
        # On a phone the navigation is behind a button.
        assert page.get_by_role(landmark, include_hidden=True).count() >= 1, landmark
    assert page.evaluate("[...document.images].every(i => i.alt.trim() && i.complete && i.naturalWidth > 0)")
    assert not overflow(page)
    found = [*violations(page), *(faults(page, wide=viewport is DESKTOP) if name.startswith("book/") else [])]
    assert not found, "\n".join(found)
    elsewhere = [url for url in seen.requests if not url.startswith((address, "data:", "blob:"))]
    assert not elsewhere
    assert not any("/explorer/" in url for url in seen.requests) or name == "book/explorer.html"


def test_equations_are_set(visit, address, site):
    with_mathematics = [name for name in PAGES if 'class="math' in (site / name).read_text(encoding="utf-8")]
    assert with_mathematics
    for name in with_mathematics:
        page = visit(f"{address}/{name}").page
        page.wait_for_selector("mjx-container")
        assert page.evaluate(
            "[...document.querySelectorAll('.math')].every(e => e.querySelector('mjx-container')?.offsetWidth > 0)"
        ), name


def test_search_finds_a_word(visit, address):
    page = visit(f"{address}/{PAGES[0]}").page
    page.keyboard.press("Control+k")
    page.get_by_role("searchbox").locator("visible=true").fill("regret")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=regret*")
    page.wait_for_selector("#search-results li a")
    page.locator("#search-results li a").first.click()
    assert "regret" in page.get_by_role("main").inner_text().lower()


# --- the explorer --------------------------------------------------------------------------------------------
@pytest.fixture(params=["http", "file"])
def explorer_page(request, site, address) -> str:
    return f"{address if request.param == 'http' else site.as_uri()}/book/explorer.html"


def expected(setting: str, target: str, score: str, orientation: str) -> tuple[str, str]:
    """The τ_w and regret that must be read out."""
    cell = explorer.data()["settings"][setting][orientation]["cells"][target][score]
    tau = f"τ = {cell['tau']:.3f}".replace("-", "−")
    return tau, "Regret 0." if cell["regret"] == 0 else f"Regret {cell['regret']:.4f}"


def test_explorer_by_keyboard(visit, explorer_page):
    seen = visit(explorer_page)
    page, words = seen.page, seen.page.get_by_role("status")
    chart = page.locator("#explorer-chart")
    page.wait_for_function("Bokeh.documents.length && Bokeh.documents[0].is_idle")

    def shown() -> tuple[str, bytes, str]:
        page.wait_for_timeout(150)
        return words.inner_text(), chart.screenshot(), page.locator("#explorer-table").inner_text()

    first = ("source_datasets", "bloodmnist", "proposed")
    choice = dict(zip(("Setting", "Target", "Score", "Orientation"), (*first, "paper"), strict=True))
    before = shown()
    assert all(part in before[0] for part in expected(*first, "released"))
    # Tab leads from one control to the next; an arrow or a letter changes it, as in any list.
    controls = page.get_by_role("form")
    controls.get_by_label("Setting").focus()
    for label, key, value in (
        ("Setting", "ArrowDown", "architectures"),
        ("Target", "ArrowDown", "breastmnist"),
        ("Score", "ArrowDown", "nca"),
        ("Orientation", "ArrowDown", "released"),
    ):
        assert page.evaluate("document.activeElement.labels[0].firstChild.textContent.trim()") == label
        page.keyboard.press(key)
        choice[label] = value
        assert controls.get_by_label(label).input_value() == value
        after = shown()
        assert after[0] != before[0] and after[1] != before[1] and after[2] != before[2], label
        orientation = {"paper": "inverted"}.get(choice["Orientation"], choice["Orientation"])
        told = expected(choice["Setting"], choice["Target"], choice["Score"], orientation)
        assert all(part in after[0] for part in told), (after[0], told)
        before = after
        page.keyboard.press("Tab")
    assert not [url for url in seen.requests if url.startswith("http") and "127.0.0.1" not in url]


def test_explorer_on_a_phone_and_in_the_dark(visit, explorer_page):
    page = visit(explorer_page, NARROW, "dark").page
    page.wait_for_function("Bokeh.documents.length && Bokeh.documents[0].is_idle")
    assert not overflow(page)
    ink = "Bokeh.documents[0].get_model_by_name('plot').below[0].major_label_text_color"
    dark = page.evaluate(ink)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_function(f"{ink} !== {dark!r}")


def test_explorer_shows_every_choice(visit, address):
    """No combination breaks the page, and all say what was computed."""
    page = visit(f"{address}/book/explorer.html").page
    texts = page.evaluate(
        """() => {
        const form = document.querySelector("#explorer form").elements, texts = {};
        const set = (name, value) => {
          form[name].value = value;
          form[name].dispatchEvent(new Event("change", { bubbles: true }));
        };
        for (const [setting, { targets }] of Object.entries(explorerData.settings)) {
          set("setting", setting);
          for (const target of Object.keys(targets))
            for (const score of Object.keys(explorerData.scores))
              for (const orientation of ["released", "inverted"]) {
                set("target", target); set("score", score); set("orientation", orientation);
                texts[[setting, target, score, orientation]] = document.getElementById("explorer-words").textContent;
              }
        }
        return texts;
        }"""
    )
    data = explorer.data()["settings"]
    assert len(texts) == sum(2 * len(one["targets"]) * len(explorer.SCORES) for one in data.values())
    for key, text in texts.items():
        setting, target, score, orientation = key.split(",")
        cell = data[setting][orientation]["cells"][target][score]
        assert "NaN" not in text and "undefined" not in text.replace("τ is undefined", "")
        if cell["tau"] is None:
            assert "τ is undefined" in text
        else:
            told = expected(setting, target, score, orientation)
            assert all(part in text for part in told), (key, text, told)
        assert ("No interval" in text) == (cell["tau"] is not None and cell["low"] is None)


def test_explorer_without_scripts(visit, explorer_page):
    seen = visit(explorer_page, java_script_enabled=False)
    page = seen.page
    still = page.get_by_role("img", name=re.compile("scatter plots"))
    still.scroll_into_view_if_needed()
    assert (
        still.is_visible() and still.evaluate("image => image.decode().then(() => image.naturalWidth)") > 400
    )
    assert not page.get_by_role("combobox").count()
    # The theme asks for two of its scripts ahead, and then may not run them.
    seen.troubles[:] = [line for line in seen.troubles if not re.search(r"failed: .*/_static/scripts/", line)]
