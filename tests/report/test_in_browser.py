from collections.abc import Iterator
from pathlib import Path

import pytest

from prunas.report.page import page
from tests.report.browser import CHROMIUM, DRIVER, Browser, chromium
from tests.report.made_runs import made

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    path = root / "report.html"
    path.write_text(page([made(root, notes=["A <note> & more."])], root), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(params=[400, 1400], ids=["narrow", "wide"])
def browser(request: pytest.FixtureRequest, window: Browser, report: Path) -> Browser:
    window.size(request.param, 900)
    window.visit(report)
    return window


def test_it_loads_without_a_complaint_or_a_request_and_fits_the_window(browser: Browser) -> None:
    assert browser.complaints() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return document.querySelectorAll('figure svg').length") == 6
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("return document.querySelector('.note').textContent") == "A <note> & more."


def test_a_column_sorts_by_value_and_back(browser: Browser) -> None:
    sort = """
        const table = document.querySelector('table.sortable');
        const place = [...table.tHead.rows[0].cells].findIndex(c => c.textContent === 'test %');
        table.tHead.rows[0].cells[place].querySelector('button').click();
        return [...table.tBodies[0].rows].map(row => row.cells[place].textContent);
    """
    # Proposers two points apart, targets five points, the mean of the seeds 0, 1, 2 on top.
    ascending = [f"{90 - 2 * i - 5 * j + 1:.2f}" for i in range(4) for j in range(2)]
    ascending.sort(key=float)
    assert browser.run(sort) == ascending
    assert browser.run(sort) == ascending[::-1]
    assert browser.complaints() == []


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1.23M", "940", "25.1k", "-"], ["940", "25.1k", "1.23M", "-"]),
        (["2 h 10 min", "59.9 s", "3 min 05 s"], ["59.9 s", "3 min 05 s", "2 h 10 min"]),
        (["[+0.10, +2.00]", "[-3.71, +4.30]"], ["[-3.71, +4.30]", "[+0.10, +2.00]"]),
        (["12,345", "999", "0.5 %"], ["0.5 %", "999", "12,345"]),
        (["taper", "random"], ["random", "taper"]),
        (["1.2M", "313M MACs", "10 %"], ["10 %", "1.2M", "313M MACs"]),
    ],
)
def test_cells_sort_by_what_they_mean(
    window: Browser, report: Path, texts: list[str], expected: list[str]
) -> None:
    window.visit(report)
    assert window.run(f"return {texts}.sort(compare)") == expected


def mark(browser: Browser, run: str) -> tuple[float, float]:
    """The middle of a training's mark, scrolled into view."""
    x, y = browser.run(f"""
        const mark = document.querySelector('[data-pick] [data-run="{run}"]');
        mark.scrollIntoView({{block: 'center', behavior: 'instant'}});
        const box = mark.getBoundingClientRect();
        return [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
    """)
    return x, y


def test_a_point_shows_its_architecture_on_hover_and_keeps_it_on_click(browser: Browser) -> None:
    run = "000200010001"  # random at the second target, seed 1: 0.4 / 2 of every layer
    browser.point(*mark(browser, run))
    assert browser.run("return !tip.hidden && tip.dataset.run") == run
    browser.point(*mark(browser, run), click=True)
    shown = browser.run("return document.querySelector('.shape').innerText")
    assert "82.00 % test accuracy" in shown
    assert "random, 5 %, scratch-e, search seed 1" in shown
    assert f"vgg11-digits/scratch-e-{run}" in shown
    widths = browser.run("return [...document.querySelectorAll('.shape .n')].map(n => n.textContent)")
    dense = [width // 4 for width in (64, 128, 256, 256, 512, 512, 512, 512)]  # VGG-11 at a quarter
    assert widths == [f"{round(0.2 * width)} / {width}" for width in dense]
    assert browser.run("return document.querySelectorAll('.run.picked').length") == 2  # one in each figure
    assert browser.complaints() == []


def test_a_run_of_the_list_opens_the_same_card_and_closes(browser: Browser) -> None:
    browser.run("""
        document.querySelector('.every').open = true;
        document.querySelector('.every button.open').click();
    """)
    assert "90.00 % test accuracy" in browser.run("return document.querySelector('.shape').innerText")
    browser.run("document.querySelector('.shape button').click()")
    assert browser.run("return document.querySelector('.shape').hidden")


def test_dark_scheme_is_followed_by_page_and_figures(browser: Browser) -> None:
    def schemes() -> list[str]:
        found: list[str] = browser.run("""
            const text = document.querySelector('figure svg text');
            return [getComputedStyle(document.body).backgroundColor, getComputedStyle(text).fill];
        """)
        return found

    def prefer(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.call(
            "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        )

    prefer("light")
    light = schemes()
    prefer("dark")
    assert light == ["rgb(255, 255, 255)", "rgb(34, 34, 34)"]
    assert schemes() == ["rgb(22, 24, 27)", "rgb(228, 228, 225)"]
    prefer("light")


def press(browser: Browser, *keys: str) -> None:
    """Presses keys one after the other, wherever the focus is."""
    for key in keys:
        steps = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        browser.call("/actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})


RIGHT, ENTER, ESCAPE = "\ue014", "\ue007", "\ue00c"


def test_marks_are_reached_kept_and_let_go_by_keys(browser: Browser) -> None:
    browser.run("document.querySelector('[data-pick] .scroll').focus({preventScroll: true})")
    press(browser, RIGHT)
    first = browser.run("return tip.dataset.run")
    assert browser.run("return !tip.hidden && document.querySelectorAll('.run.here').length") == 1
    assert "slimming, 5 %" in browser.run("return said.textContent")  # the smallest network
    press(browser, RIGHT)
    second = browser.run("return tip.dataset.run")
    assert second != first
    press(browser, ESCAPE)
    assert browser.run("return tip.hidden && document.querySelectorAll('.run.here').length === 0")
    press(browser, ENTER)
    kept = browser.run("return document.querySelector('.run.picked').dataset.run")
    assert kept == second
    assert browser.complaints() == []


def test_a_series_is_hidden_everywhere_and_comes_back(browser: Browser) -> None:
    shown = """
        const visible = (one) => getComputedStyle(one).display !== 'none';
        return [...document.querySelectorAll('.series, .run')].filter(visible).length;
    """
    of_taper = "return document.querySelectorAll('[data-series=taper]').length"
    before, taper = browser.run(shown), browser.run(of_taper) + 2 * 6  # each training in two figures
    toggle = """
        const button = document.querySelector('.series-choice [data-name=taper]');
        button.click();
        return button.ariaPressed;
    """
    assert browser.run(toggle) == "false"
    assert browser.run(shown) == before - taper
    assert browser.run(toggle) == "true"
    assert browser.run(shown) == before


def test_a_figure_grows_inside_its_own_window(browser: Browser) -> None:
    width = "return document.querySelector('figure svg').getBoundingClientRect().width"
    before = browser.run(width)
    browser.run("document.querySelector('figure [data-zoom=\"1\"]').click()")
    assert browser.run(width) == pytest.approx(1.5 * before, rel=0.02)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.run("document.querySelector('figure [data-zoom=\"-1\"]').click()")
    assert browser.run(width) == pytest.approx(before, rel=0.02)


def test_tables_and_shapes_are_handed_out(browser: Browser) -> None:
    handed = """
        const files = [];
        HTMLAnchorElement.prototype.click = function () { files.push(this.download); };
        document.querySelector('.downloads button').click();
        document.querySelector('.every button.open').click();
        for (const one of document.querySelectorAll('.shape .downloads button')) one.click();
        return [files, csv(document.querySelector('table[data-file]')).split('\\n')[0]];
    """
    files, head = browser.run(handed)
    assert files == ["results.csv", "000000000000.svg", "000000000000.json"]
    assert head.startswith("asked,proposer,kind,params,MACs,test %")
    assert browser.run("return document.querySelectorAll('.shape .drawn svg').length") == 1


def test_the_contents_lead_somewhere(browser: Browser) -> None:
    missing = """
        return [...document.querySelectorAll('nav a')].map(a => a.hash)
            .filter(hash => !document.querySelector(hash));
    """
    assert browser.run(missing) == []
    assert browser.run("return document.querySelectorAll('nav a').length") == 7
