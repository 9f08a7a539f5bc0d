"""Runs the snippets of a page from top to bottom, as its reader does, and keeps what they print.

    python docs/hooks/execute.py PAGE FOLDER RESULT

A `python` fence runs in one session with those before it, a `sh` fence line by line, both in FOLDER; a fence with
a title is a file of that name, and is written there. RESULT is a JSON list with the output of every fence, null
where nothing runs. The first snippet that fails ends it.
"""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Fence", "fences", "run", "with_outputs"]

_FENCE = re.compile(
    r"^```(?P<language>\w*)(?P<options>[^\n]*)\n(?P<code>.*?)^```\n", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Fence:
    """A block of code on a page.

    Attributes:
        language: Behind the three marks.
        title: Name of the file that it is, or "".
        code: The lines.
        line: The line of the page where it begins, from 1.
        end: Where it ends, in characters from the page's start.
    """

    language: str
    title: str
    code: str
    line: int
    end: int


def fences(text: str) -> Iterator[Fence]:
    """The blocks of code of a page, in order."""
    for found in _FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', found["options"])
        line = text.count("\n", 0, found.start()) + 1
        yield Fence(found["language"], title[1] if title else "", found["code"], line, found.end())


def run(text: str, name: str) -> list[str | None]:
    """What every fence of a page prints, run in the working folder.

    Args:
        text: The page.
        name: What it is called in errors.

    Raises:
        RuntimeError: A snippet failed; the message names page and line.
    """
    session: dict[str, object] = {"__name__": "page"}
    outputs: list[str | None] = []
    for fence in fences(text):
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                if fence.title:
                    Path(fence.title).write_text(fence.code, encoding="utf-8")
                elif fence.language == "python":
                    exec(compile(fence.code, f"{name}:{fence.line}", "exec"), session)
                elif fence.language == "sh":
                    for line in fence.code.replace("\\\n", " ").splitlines():
                        _command(line)
        except (Exception, SystemExit) as error:
            raise RuntimeError(f"{name}:{fence.line}: {error!r}\n{printed.getvalue()}") from error
        runs = not fence.title and fence.language in ("python", "sh")
        outputs.append(printed.getvalue() if runs else None)
    return outputs


def _command(line: str) -> None:
    """Runs one line of a shell; `prunas` in this process, which saves an import of torch a line."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] != "prunas":
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # python is this one
        ended = subprocess.run(
            line, shell=True, capture_output=True, text=True, env=os.environ | {"PATH": path}
        )
        if ended.returncode:
            raise RuntimeError(f"{line} ended with {ended.returncode}: {ended.stderr}")
        print(ended.stdout, end="")
        return
    from prunas.cli import main

    try:
        main(words[1:])
    except SystemExit as ended:
        if ended.code:
            raise


def with_outputs(text: str, outputs: list[str | None]) -> str:
    """The page with what every fence prints behind it."""
    parts, start = [], 0
    for fence, output in zip(fences(text), outputs, strict=True):
        parts.append(text[start : fence.end])
        start = fence.end
        if output and output.strip():
            parts.append(f'\n``` {{ .text .output title="Output" }}\n{output.strip(chr(10))}\n```\n')
    return "".join(parts) + text[start:]


if __name__ == "__main__":
    page, folder, result = (Path(argument).absolute() for argument in sys.argv[1:])
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    result.write_text(json.dumps(run(page.read_text(encoding="utf-8"), page.name)), encoding="utf-8")
