"""Pages as they stand in the repository: links lead somewhere, commands exist, pictures say what they show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import reference
from execute import fences
from links import ROOT, site_pages

PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "benchmarks/*/*.md")
    for path in sorted(ROOT.glob(pattern))
]
KNOWN = site_pages(reference.PAGES)
COMMANDS = {name: command for name, command, _ in reference.commands()}
RUN_ELSEWHERE = {  # by tests of their own, at small budgets
    "agents.md", "evaluators.md", "export.md", "looking.md", "own-data.md", "own-network.md", "own-weights.md",
    "attention.md", "plugins.md", "python.md", "recipes.md", "retraining.md", "scores.md", "shrink.md", "tasks.md",
}  # fmt: skip


def ident(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


@pytest.mark.parametrize("path", PAGES, ids=ident)
def test_links_lead_somewhere(path: Path) -> None:
    for image, text, to in re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", prose(path)):
        if "://" in to or to.startswith("#"):
            continue
        target = (path.parent / to.partition("#")[0]).resolve()
        generated = target.is_relative_to(ROOT) and target.relative_to(ROOT).as_posix() in KNOWN
        made = path.parent.name == "tutorials" and ".." not in to  # by a snippet
        assert target.exists() or generated or made, to
        if image:
            assert len(text) > 4, f"{to} has no words for who cannot see it"


def commands(path: Path) -> Iterator[str]:
    """The lines of shells that call prunas."""
    for fence in fences(path.read_text(encoding="utf-8")):
        if fence.language == "sh":
            for line in fence.code.replace("\\\n", " ").splitlines():
                for part in re.split(r"; |&& ", line):
                    if re.match(r"(\.venv/bin/)?prunas ", part.strip()):
                        yield part.strip().removeprefix(".venv/bin/")


@pytest.mark.parametrize("path", [path for path in PAGES if list(commands(path))], ids=ident)
def test_commands_of_a_page_exist_with_their_options(path: Path) -> None:
    for line in commands(path):
        words = shlex.split(line, comments=True)[1:]
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        command = COMMANDS[name]
        if "$" in line:  # a variable of the shell holds some of the words
            continue
        command.make_context(name, words[len(name.split()) :], resilient_parsing=False)


def test_python_of_every_page_is_run_somewhere() -> None:
    having = {
        path.name
        for path in (ROOT / "docs").glob("*.md")
        if any(fence.language == "python" for fence in fences(path.read_text(encoding="utf-8")))
    }
    assert having <= RUN_ELSEWHERE
    suites = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for name in having:
        assert re.search(rf'"docs" / "{name}"|docs/{name}', suites), name
    for folder in ("choose", "decisions", "measured", "reference"):
        for path in (ROOT / "docs" / folder).glob("*.md"):
            assert not [
                fence for fence in fences(path.read_text(encoding="utf-8")) if fence.language == "python"
            ]


def test_rows_that_explain_statistics_are_rows_of_ours() -> None:
    shown = (ROOT / "docs/measured/walkthrough.md").read_text(encoding="utf-8").splitlines()
    rows = [
        line
        for line in (ROOT / "docs/statistics.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    assert len(rows) > 4
    assert set(rows) <= set(shown)
