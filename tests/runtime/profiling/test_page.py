"""The report's page in headless Chromium: on a phone, on a desk, in the dark, in print."""

import base64

import pytest

from runtime.profiling import plots, runs
from tests.support.chromium import Chromium
from tests.support.reports import line, row, seconds, write, write_run

PARTS = {"epoch_time": 30.0, "compute_time": 20.0, "optimizer_time": 2.0, "transfer_time": 0.5, "compile_time": 0.0}
DECODING = {"read": 1e-6, "decode": 2e-4, "resize": 1e-4, "augment": 1e-5, "collate": 1e-5}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with every plot."""
    base = tmp_path_factory.mktemp("page")
    lines = [line(e, 25.0, 0.1 * e, loader_seconds_per_image=DECODING, **PARTS) for e in range(3)]
    of = {name: [runs.load_run(write_run(base / name, lines))] for name in ("beton", "torch")}
    rows = [row("beton", 1000), row("torch", 400), *(runs.row_from_runs(name, group) for name, group in of.items())]
    rows += [row("a loader of a long name", 300, seconds_per_epoch=seconds(3.0))]
    page = write(base / "out", rows, of)
    assert {path.stem for path in (base / "out").glob("*.svg")} == set(plots.NAMES)
    return page


@pytest.mark.parametrize("width", [390, 1280])
def test_all_of_the_report_is_seen_without_scrolling_sideways(browser, report, width):
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500)
    browser.requests.clear()
    browser.open(report.as_uri())
    images = browser.run("[...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width])")
    assert len(images) == len(plots.NAMES)
    assert all(complete and natural > 100 and shown > 300 for complete, natural, shown in images)
    assert browser.run("document.documentElement.scrollWidth") <= width
    # Nothing is cut off: each cell lies within the page, with all of its text
    cut = "[...document.querySelectorAll('td, th, p, li, pre')].filter(e => e.offsetWidth && (e.scrollWidth >"
    cut += " e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth)).map(e => e.textContent)"
    assert browser.run(cut) == []
    assert browser.run("document.querySelector('.verdict').getBoundingClientRect().bottom < 844")
    assert browser.run("[...document.querySelectorAll('td')].some(e => e.textContent == '20.00 n=1' && e.offsetWidth)")
    assert browser.complaints == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
    assert [url for url in browser.requests if url.startswith("file:")] == [report.as_uri()]


def test_it_is_dark_where_that_is_wanted(browser, report):
    def back(scheme):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(report.as_uri())
        return browser.run("getComputedStyle(document.body).backgroundColor")

    assert (back("light"), back("dark")) == ("rgb(255, 255, 255)", "rgb(22, 22, 22)")
    assert "invert" in browser.run("getComputedStyle(document.images[0]).filter")


def test_it_prints(browser, report):
    browser.open(report.as_uri())
    pdf = base64.b64decode(browser.call("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF") and 1 <= pdf.count(b"/Type /Page\n") <= 8
