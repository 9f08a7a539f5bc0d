"""Pages in a real browser, by axe-core: contrast, headings, names, alternative texts; narrow, wide, dark."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from links import ROOT

from prunas.report.page import page
from tests.report.browser import CHROMIUM, DRIVER, Browser, chromium
from tests.report.made_runs import made, space

AXE = Path(os.environ.get("PRUNAS_AXE", ROOT / "build" / "node_modules" / "axe-core" / "axe.min.js"))
"""What `npm install --prefix build axe-core` makes."""

SITE = [path for path in (ROOT / "build" / "site").rglob("*.html") if path.name != "404.html"]
"""Of the site as it was built last; the page of a missing address only works below a server's root."""

SHRUNK = sorted(
    (ROOT / "build" / "tutorials").glob("checkpoint-*/small/report.html"),
    key=lambda path: path.stat().st_mtime,
)[-1:]
"""What the tutorial's `prunas shrink` wrote when it was run last."""

MANY = (
    *("slimming", "l1-global", "morphnet", "thinet-global", "taylor", "netadapt", "tpe", "gp", "cmaes"),
    *("nsga2", "autoslim", "enas", "amc", "uniform", "random", "taper", "taper-slimming"),
)
COMPLAINTS = """
    const done = arguments[arguments.length - 1]
    axe.run(document, {resultTypes: ['violations'], preload: false}).then(result => done(
        result.violations.flatMap(v => v.nodes.map(node => `${v.id}: ${node.target.join(' ')}`))))
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
    pytest.mark.skipif(
        not AXE.is_file(), reason="no axe-core: npm install --prefix build axe-core, or PRUNAS_AXE"
    ),
]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(
    params=[(1400, "light"), (360, "light"), (1400, "dark"), (360, "dark")],
    ids=lambda each: f"{each[0]}-{each[1]}",
)
def browser(request: pytest.FixtureRequest, window: Browser) -> Browser:
    width, scheme = request.param
    window.size(width, 900)
    window.prefer(scheme)
    return window


def complaints(browser: Browser, path: Path) -> list[str]:
    """What axe says of a page, and what of it is wider than the window."""
    browser.visit(path)
    browser.run(AXE.read_text(encoding="utf-8") + "; return null")
    said: list[str] = browser.run_later(COMPLAINTS)
    if not browser.run("return document.documentElement.scrollWidth <= innerWidth"):
        said.append("wider than the window")
    return said


def test_axe_sees_what_is_wrong(window: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><html lang="en"><title>t</title><main><h1>a</h1><h3>b</h3><img src="">'
        '<p style="color: #bbb; background: #fff">pale</p></main></html>'
    )
    assert {text.partition(":")[0] for text in complaints(window, bad)} >= {
        "color-contrast",
        "heading-order",
        "image-alt",
    }


def test_reports_can_be_read_by_everybody(browser: Browser, tmp_path: Path) -> None:
    def many(i: int, keep: float, seed: int) -> object:
        return space().counted([max(1, round((0.1 + 0.05 * i) * keep * d.dense)) for d in space().dimensions])

    for name, evidence in {
        "usual": made(tmp_path / "usual", notes=["A note."]),
        "many": made(tmp_path / "many", proposers=MANY, draw=many),  # type: ignore[arg-type]
        "one": made(tmp_path / "one", proposers=("slimming",), keeps=(0.1,), seeds=1),
    }.items():
        path = tmp_path / f"{name}.html"
        path.write_text(page([evidence], tmp_path / name), encoding="utf-8")
        assert complaints(browser, path) == [], name


@pytest.mark.slow
@pytest.mark.skipif(not SITE, reason="the site is not built: mkdocs build")
def test_the_site_can_be_read_by_everybody(browser: Browser) -> None:
    said = {path.as_posix(): complaints(browser, path) for path in (*SITE, *SHRUNK)}
    assert {path: each for path, each in said.items() if each} == {}
