"""Makes the site: pages of files elsewhere in the repository, generated reference, tutorials that are run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import execute
import reference
from links import ROOT, rewritten, site_pages
from mkdocs.exceptions import PluginError
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

LOG = get_plugin_logger("prunas")
RUN = os.environ.get("PRUNAS_DOCS_RUN", "1") != "0"
"""Whether tutorials are run; without, their pages lack outputs and figures, and the build is no strict one."""

SOURCES: dict[str, str] = {}
"""Path on the site of every page made of a file outside `docs/`, and that file's path in the repository."""

OUTPUTS: dict[str, list[str | None]] = {}
"""What every fence of a tutorial printed, by the tutorial's path on the site."""

MADE: dict[str, set[str]] = {}
"""Links of a tutorial to files that its snippets made, by the tutorial's path on the site."""


def on_files(files: Files, *, config: Any) -> Files:
    """Adds what is made here."""
    pages = site_pages(reference.PAGES)
    for source, page in pages.items():
        if source.startswith("docs/"):
            continue
        SOURCES[page] = source
        text = (ROOT / source).read_text(encoding="utf-8")
        _add(files, config, page, reference.EXTRACTS.get(page, str)(text))
    for page, make in reference.PAGES.items():
        _add(files, config, page, make())
    for page, source in [*SOURCES.items(), *((file.src_uri, "") for file in files.documentation_pages())]:
        text = files.get_file_from_path(page).content_string  # type: ignore[union-attr]
        for there, picture in rewritten(text, source or f"docs/{page}", page, pages).pictures.items():
            if files.get_file_from_path(there) is None:
                _add(files, config, there, picture.read_bytes())
    if RUN:
        _run_tutorials(files, config)
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """The page with its outputs, and with links that hold on the site."""
    name = page.file.src_uri
    if name in OUTPUTS:
        markdown = execute.with_outputs(markdown, OUTPUTS[name])
        for link in MADE[name]:
            markdown = markdown.replace(f"]({link})", f"]({_made(name, link)})")
    elif name.startswith("tutorials/"):
        markdown = re.sub(r"!?\[([^\]]*)\]\((?!\.\.)[^)]*\.(svg|html)\)", r"\1", markdown)
    made = rewritten(markdown, SOURCES.get(name, f"docs/{name}"), name, site_pages(reference.PAGES))
    for link in made.missing:
        LOG.warning(f"{SOURCES.get(name, name)}: there is no {link}")
    return made.text


def _made(page: str, link: str) -> str:
    """Where a file that a tutorial made lies beside the tutorial; several make one of the same name."""
    return f"{Path(page).stem}-files/{link}"


def _add(files: Files, config: Any, page: str, content: str | bytes) -> None:
    files.append(File.generated(config, page, content=content))


def _run_tutorials(files: Files, config: Any) -> None:
    """Runs every tutorial in a folder and a process of its own, and takes its figures along."""
    scratch = ROOT / "build" / "tutorials"
    tutorials = [file for file in files.documentation_pages() if file.src_uri.startswith("tutorials/")]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for file, outcome in zip(
            tutorials, pool.map(lambda f: _run(f.src_uri, scratch), tutorials), strict=True
        ):
            folder, outputs = outcome
            OUTPUTS[file.src_uri] = outputs
            MADE[file.src_uri] = set()
            for link in re.findall(r"\[[^\]]*\]\(([^)]*)\)", file.content_string):
                if (folder / link).is_file() and link not in MADE[file.src_uri]:
                    MADE[file.src_uri].add(link)
                    there = f"tutorials/{_made(file.src_uri, link)}"
                    _add(files, config, there, (folder / link).read_bytes())


def _run(page: str, scratch: Path) -> tuple[Path, list[str | None]]:
    """A tutorial's folder and outputs; of one that was run already, by the same code, what is kept."""
    told = hashlib.sha256()
    for path in (ROOT / "docs" / page, *sorted((ROOT / "prunas").rglob("*.py"))):
        told.update(path.read_bytes())
    folder = scratch / f"{Path(page).stem}-{told.hexdigest()[:12]}"
    result = scratch / f"{folder.name}.json"
    if result.is_file():
        return folder, json.loads(result.read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    script = Path(__file__).with_name("execute.py")
    given = {
        "MPLBACKEND": "Agg",
        "COLUMNS": "110",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PRUNAS_CACHE": str(scratch / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    ended = subprocess.run(
        [sys.executable, script, ROOT / "docs" / page, folder, result],
        env=os.environ | given,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise PluginError(f"{page} does not run:\n{ended.stderr[-4000:]}")
    return folder, json.loads(result.read_text(encoding="utf-8"))
