"""The rendered book in a real browser: private, without errors, legible, and usable by keyboard and on a phone.

Chromium comes from the system (on Debian ``apt-get install chromium``); nothing is downloaded here.
"""

import contextlib
import functools
import http.server
import itertools
import os
import re
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
import yaml

import explorer
from companion import evaluation, published
from companion.scores import INVERTED_ACROSS_DOMAINS, combine

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
            page.on("console", lambda said: said.type in ("error", "warning") and troubles.append(said.text))
            page.on("response", lambda got: got.status >= 400 and troubles.append(f"{got.status}: {got.url}"))
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


def faults(page, wide: bool, *, executed: bool = False) -> list[str]:
    """Figures without a numbered caption or in pixels; tables and code that are cut off.

    On a wide window nothing may have to be moved sideways; on a phone, what has to be must show it by a shadow, but for
    the code and tables of an `executed` notebook.
    """
    return page.evaluate(
        """([wide, executed]) => {
        const found = [], article = document.querySelector("article");
        for (const figure of article.querySelectorAll("figure:not(.explorer-figure)")) {
          const words = figure.querySelector("figcaption .caption-text")?.innerText.trim() ?? "";
          if (words.length < 40 || !figure.querySelector("figcaption .caption-number"))
            found.push("no caption: " + figure.outerHTML.slice(0, 120));
          for (const image of figure.querySelectorAll("img"))
            if (!/\\.svg$|^data:image\\/svg/.test(image.src)) found.push("no vector: " + image.src.slice(0, 120));
        }
        if (executed)
          for (const image of article.querySelectorAll(".cell_output img"))
            if (!image.closest("figure")) found.push("no caption: " + image.outerHTML.slice(0, 120));
        if (executed && !wide) return found;
        const cut = (e) => e.scrollWidth > e.clientWidth + 1;
        for (const box of article.querySelectorAll(".pst-scrollable-table-container, pre, .cell_output .output"))
          if (cut(box) && box.checkVisibility() && (wide || getComputedStyle(box).backgroundImage === "none"))
            found.push("cut off: " + box.innerText.slice(0, 120));
        return found;
        }""",
        [wide, executed],
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
    kinds = [line.partition(":")[0] for line in faults(page, wide=True)]
    assert kinds == ["no caption", "no vector", "cut off"]
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
    found = violations(page)
    if name.startswith(("book/", "notebooks/")):
        found += faults(page, wide=viewport is DESKTOP, executed=name.startswith("notebooks/"))
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


def tables(setting: str) -> dict[str, pd.DataFrame]:
    """The rows behind the page by orientation, targets' own sources left out."""
    if setting == "replication":
        return {"released": explorer.pairs(setting)[0]}
    found = {
        name: evaluation.published_pairs(setting, inverted=name == "inverted")
        for name in ("released", "inverted")
    }
    others = [name for name in published.METRICS if name not in INVERTED_ACROSS_DOMAINS]
    found["inverted"][others] = 1 - found["inverted"][others]
    return found


def test_explorer_computes_what_the_package_does(visit, address):
    """τ of every score on every target, in every setting, orientation and ground truth, and without sources."""
    page = visit(f"{address}/book/explorer.html").page
    read = """hash => {
      location.hash = hash;
      return new Promise((done) => setTimeout(() => done({
        cells: Object.fromEntries([...document.querySelectorAll("#explorer-heat button")].map(
          (e) => [`${e.dataset.target},${e.dataset.score}`, tau(rowsOf(e.dataset.target, e.dataset.score))])),
        texts: [...document.querySelectorAll("#explorer-heat button")].map((e) => e.textContent),
      }), 50));
    }"""
    compared = 0
    for setting, about in explorer.data()["settings"].items():
        pairs = explorer.pairs(setting)[0].set_index(["source", "target"])
        for (orientation, table), truth, left_out in itertools.product(
            tables(setting).items(), about["truths"], ([], about["large"])
        ):
            where = {"setting": setting, "orientation": orientation, "truth": truth}
            where["without"] = ",".join(left_out)
            found = page.evaluate(read, urlencode(where))
            of_the_tables = setting != "replication" and truth == next(iter(about["truths"]))
            truths = pairs["auc" if of_the_tables else truth]
            keys = [*zip(table["source"], table["target"], strict=True)]
            rows = table.assign(auc=list(truths.reindex(keys)))
            rows = rows[~rows["source"].str.removesuffix("_mobilenet_v2").isin(left_out)]
            scores = [name for name in explorer.SCORES if name != "proposed"]
            exact = evaluation.weighted_tau(rows[["source", "target", "auc", *scores]])
            if not left_out:  # rescaled over the sources that are kept, it changes with them
                own = rows[["source", "target", "auc", "proposed"]]
                exact["proposed"] = evaluation.weighted_tau(own)["proposed"]
            for (score, target), value in exact.unstack().items():
                shown = found["cells"][f"{target},{score}"]
                assert (shown is None) == bool(np.isnan(value)), (where, target, score)
                assert shown is None or abs(shown - value) < 1e-9, (where, target, score)
                compared += 1
            assert {"NaN", "undefined"}.isdisjoint(found["texts"])
    assert compared > 3000


def test_explorer_combines_the_sources_that_are_kept(visit, address):
    left_out = ["imagenet", "radimagenet", "medmnist"]
    page = visit(f"{address}/book/explorer.html#without={','.join(left_out)}&target=pathmnist").page
    rows = published.table("source_datasets").query("target == 'pathmnist' and source not in @left_out")
    # As released, the terms are rescaled over the target itself as well.
    rows = rows.assign(proposed=combine(rows["nca"].to_numpy(), rows["gradient_ratio"].to_numpy()))
    count = rows["auc"].notna().sum()
    exact = evaluation.tau(*rows[rows["auc"].notna()][["proposed", "auc"]].to_numpy().T)
    words = page.get_by_role("status").inner_text()
    assert f"τ = {exact:.3f} over {count} sources" in words and "interval" not in words.splitlines()[0]
    kept = page.locator("#explorer-table input:checked")
    assert kept.count() == count


def test_explorer_says_regret_and_the_simple_rule(visit, explorer_page):
    table = evaluation.published_pairs("source_datasets")
    for target, rows in list(table.groupby("target"))[:4]:
        page = visit(f"{explorer_page}#target={target}&score=nleep").page
        words = page.get_by_role("status").inner_text()
        auc = rows.set_index("source")["auc"]
        assert f"Regret {evaluation.regret(rows, 'nleep').item():.4f} AUC" in words
        place = int(auc.rank(ascending=False)["imagenet"])
        assert f"place {place} of {len(auc)}, regret {auc.max() - auc['imagenet']:.4f}" in words


def test_explorer_by_keyboard_and_by_its_address(visit, explorer_page):
    seen = visit(explorer_page)
    page, words = seen.page, seen.page.get_by_role("status")
    pressed = page.locator("#explorer-heat button[aria-pressed=true]")
    assert pressed.count() == 1
    pressed.focus()
    before = words.inner_text()
    for key in ("ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
        assert words.inner_text() != before
        before = words.inner_text()
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert page.locator("select[name=target]").input_value() == "breastmnist"
    assert page.locator("select[name=score]").input_value() == "nca"
    page.locator("#explorer-table input[name=imagenet]").focus()
    page.keyboard.press("Space")
    assert words.inner_text() != before and "without=imagenet" in page.url
    assert page.evaluate("document.activeElement.name") == "imagenet"
    again = visit(page.url).page
    assert again.get_by_role("status").inner_text() == words.inner_text()
    page.locator("select[name=setting]").select_option("architectures")
    assert not page.get_by_role("button", name="without ImageNet").is_visible()
    assert not [url for url in seen.requests if url.startswith("http") and "127.0.0.1" not in url]


def test_explorer_draws_its_rows(visit, address):
    """Marks of both drawings, read back: a point a source at its AUC, a line from its place to its true place."""
    page = visit(f"{address}/book/explorer.html#target=dermamnist&score=logme").page
    rows = evaluation.published_pairs("source_datasets").query("target == 'dermamnist'")
    titles = page.locator("#explorer-scatter path > title").all_text_contents()
    exact = {
        f"{row.source}: score {row.logme:.4f}, test AUC {row.auc:.4f}".replace("-", "−")
        for row in rows.itertuples()
    }
    assert set(titles) == exact
    places = page.evaluate(
        """[...document.querySelectorAll("#explorer-scatter path")].filter((e) => e.querySelector("title")).map((e) =>
          [e.querySelector("title").textContent.split(":")[0],
           ...e.getAttribute("transform").match(/[-\\d.]+/g).map(Number)])"""
    )
    found = pd.DataFrame(places, columns=["source", "x", "y"]).set_index("source").loc[rows["source"]]
    assert abs(np.corrcoef(found["x"], rows["auc"])[0, 1] - 1) < 1e-9
    assert abs(np.corrcoef(found["y"], rows["logme"])[0, 1] + 1) < 1e-9
    slopes = page.locator("#explorer-slopes text").all_text_contents()
    order = rows.sort_values("auc", ascending=False)["source"]
    assert {f"{place} {source}" for place, source in enumerate(order, 1)} <= set(slopes)


def test_explorer_on_a_phone_and_in_the_dark(visit, explorer_page):
    page = visit(explorer_page, NARROW, "dark").page
    assert not overflow(page)
    ink = "getComputedStyle(document.querySelector('#explorer-scatter text')).fill"
    dark = page.evaluate(ink)
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_function(f"{ink} !== {dark!r}")
    sizes = page.evaluate(
        "[...document.querySelectorAll('#explorer-scatter text')].map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 11


def test_explorer_without_scripts(visit, explorer_page):
    seen = visit(explorer_page, java_script_enabled=False)
    page = seen.page
    still = page.get_by_role("img", name=re.compile("Heat map"))
    still.scroll_into_view_if_needed()
    assert (
        still.is_visible() and still.evaluate("image => image.decode().then(() => image.naturalWidth)") > 400
    )
    assert not page.get_by_role("combobox").count()
    # The theme asks for two of its scripts ahead, and then may not run them.
    seen.troubles[:] = [line for line in seen.troubles if not re.search(r"failed: .*/_static/scripts/", line)]
