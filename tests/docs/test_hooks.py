"""What makes the site: snippets that are run, links that are rewritten."""

from pathlib import Path

import pytest
from execute import fences, run, with_outputs
from links import rewritten, site_pages

PAGE = """# A page

```python title="mine.py"
def four():
    return 4
```

```python
from mine import four

print(four())
```

```sh
prunas --version  # a comment
echo two \\
  words
```

```toml
key = 1
```
"""


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    return tmp_path


def test_snippets_are_files_sessions_and_commands(at_home: Path) -> None:
    import prunas

    outputs = run(PAGE, "page.md")
    assert outputs == [None, "4\n", f"prunas {prunas.__version__}\ntwo words\n", None]
    page = with_outputs(PAGE, outputs)
    assert page.count('title="Output"') == 2
    assert page.index("print(four())") < page.index("\n4\n```") < page.index("prunas --version")
    assert [fence.language for fence in fences(PAGE)] == ["python", "python", "sh", "toml"]


@pytest.mark.parametrize(
    ("snippet", "said"),
    [
        ("```python\n1 / 0\n```\n", "page.md:3: ZeroDivisionError"),
        ("```sh\nprunas show nowhere\n```\n", "page.md:3: SystemExit"),
        ("```sh\nfalse\n```\n", "page.md:3: RuntimeError"),
    ],
)
def test_the_first_snippet_that_fails_is_named(at_home: Path, snippet: str, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        run(f"# A page\n\n{snippet}", "page.md")


PAGES = site_pages(["reference/commands.md"])


@pytest.mark.parametrize(
    ("link", "source", "page", "there"),
    [
        ("[x](docs/start.md)", "README.md", "index.md", "[x](start.md)"),
        ("[x](../README.md#development)", "docs/start.md", "start.md", "[x](index.md#development)"),
        ("[x](../../benchmarks/kill/README.md)", "docs/choose/a.md", "choose/a.md", "[x](../measured/kill.md)"),
        ("[x](docs/decisions)", "README.md", "index.md", "[x](decisions/README.md)"),
        ("[x](../reference/commands.md)", "docs/choose/a.md", "choose/a.md", "[x](../reference/commands.md)"),
        ("[`x`](LICENSE)", "README.md", "index.md", "`x`"),
        ("[x](LICENSE)", "README.md", "index.md", "x (`LICENSE`)"),
        ("[x](https://arxiv.org/abs/1)", "README.md", "index.md", "[x](https://arxiv.org/abs/1)"),
    ],
)  # fmt: skip
def test_links_hold_on_the_site(link: str, source: str, page: str, there: str) -> None:
    made = rewritten(f"Text {link}.\n", source, page, PAGES)
    assert made.text == f"Text {there}.\n"
    assert made.missing == []


def test_pictures_are_taken_along_and_missing_files_named() -> None:
    text = "![a](widths.png)\n[b](nowhere.md)\n\n```sh\n[c](nowhere.md)\n```\n"
    made = rewritten(text, "benchmarks/methods/README.md", "measured/methods.md", PAGES)
    assert made.text.startswith("![a](../files/benchmarks/methods/widths.png)\n")
    assert list(made.pictures) == ["files/benchmarks/methods/widths.png"]
    assert made.missing == ["nowhere.md"]
