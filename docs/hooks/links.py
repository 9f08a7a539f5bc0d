"""Where a link between files of the repository leads on the site."""

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ROOT", "Rewritten", "rewritten", "site_pages"]

ROOT = Path(__file__).resolve().parent.parent.parent
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<to>[^)\s]+)\)")
_FENCE = re.compile(r"^ *(```|~~~)")
_PICTURES = (".png", ".svg", ".jpg", ".gif")


@dataclass
class Rewritten:
    """A page's text with links that hold on the site.

    Attributes:
        text: The Markdown.
        pictures: Files of the repository outside `docs/` that the page shows, by their path on the site.
        missing: Links that lead nowhere.
    """

    text: str
    pictures: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def site_pages(generated: Iterable[str]) -> dict[str, str]:
    """Every page of the site by the path of its file in the repository, and as if that stood in `docs/`.

    Args:
        generated: Paths on the site of pages without a file.
    """
    pages = {
        f"docs/{path.relative_to(ROOT / 'docs').as_posix()}": path.relative_to(ROOT / "docs").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
    }
    pages |= {
        "README.md": "index.md",
        "examples/README.md": "examples.md",
        "CHANGELOG.md": "changelog.md",
        "CONTRIBUTING.md": "contributing.md",
    }
    for path in sorted((ROOT / "benchmarks").glob("*/README.md")):
        pages[path.relative_to(ROOT).as_posix()] = f"measured/{path.parent.name}.md"
    return {f"docs/{page}": page for page in [*generated, *pages.values()]} | pages


def rewritten(text: str, source: str, page: str, pages: Mapping[str, str]) -> Rewritten:
    """The text of a file as it stands on the site.

    A link to a file that is a page leads there, a picture outside `docs/` is taken along, and of a link to any
    other file, which the site does not have, the words are left.

    Args:
        text: Markdown.
        source: Path of its file in the repository.
        page: Path of the page on the site.
        pages: As `site_pages` says.
    """
    result = Rewritten("")

    def replace(link: re.Match[str]) -> str:
        to, _, anchor = link["to"].partition("#")
        if not to or "://" in to or to.startswith("mailto:"):
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), to))
        if target not in pages and f"{target}/README.md" in pages:
            target += "/README.md"
        here = posixpath.dirname(page)
        if target in pages:
            behind = f"#{anchor}" if anchor else ""
            return f"{link['image']}[{link['text']}]({posixpath.relpath(pages[target], here or '.')}{behind})"
        if link["image"] and target.startswith("docs/"):
            return f"![{link['text']}]({posixpath.relpath(target.removeprefix('docs/'), here or '.')})"
        if not (ROOT / target).exists():
            if not source.startswith("docs/tutorials/"):  # where it may be what a snippet makes
                result.missing.append(link["to"])
            return link[0]
        if link["image"] and target.endswith(_PICTURES):
            there = f"files/{target}"
            result.pictures[there] = ROOT / target
            return f"![{link['text']}]({posixpath.relpath(there, here or '.')})"
        return link["text"] if "`" in link["text"] else f"{link['text']} (`{target}`)"

    lines, fenced = [], False
    for line in text.splitlines(keepends=True):
        if _FENCE.match(line):
            fenced = not fenced
        lines.append(line if fenced else _LINK.sub(replace, line))
    result.text = "".join(lines)
    return result
