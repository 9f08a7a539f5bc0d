"""What `shrink` gives back: the smaller network, the tables that say why, and files that need no prunas."""

import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from prunas import SCHEMA
from prunas.errors import InputError
from prunas.files import read_json, write_atomic
from prunas.report import can_draw
from prunas.results.shrunk import ShrinkRecord
from prunas.spaces.space import SearchSpace
from prunas.statistics.shrunk import sentence, shape_table, training_table
from prunas.statistics.text import as_text

if TYPE_CHECKING:
    from torch import nn

    from prunas.inspection.latency import Latency

__all__ = ["Shrunk"]


@dataclass(frozen=True)
class Shrunk:
    """A smaller network, and why this one.

    Attributes:
        record: Everything that was tried.
        space: The search space.
    """

    record: ShrinkRecord
    space: SearchSpace

    @property
    def score(self) -> float | None:
        """Test score of the picked network."""
        return self.record.picked.test_score

    @property
    def dense_score(self) -> float | None:
        """Test score of the given network."""
        return self.record.dense.test_score

    @property
    def folder(self) -> Path:
        """The run of the picked network."""
        return Path(self.record.picked.folder)

    @cached_property
    def architecture(self) -> Any:
        """The shape of the picked network, an `Architecture`."""
        from prunas.architecture import Architecture

        return Architecture.from_json(read_json(self.folder / "job.json")["spec"]["architecture"])

    @cached_property
    def network(self) -> "nn.Module":
        """The picked network with its weights, in evaluation mode, on the CPU."""
        import torch

        from prunas.works.runtime import weights

        with torch.random.fork_rng(devices=[]):
            net = self.space.build(self.architecture)
        net.load_state_dict(weights(self.folder))
        return net.eval()

    @property
    def sentence(self) -> str:
        """What was picked and what it scores, in one sentence."""
        return sentence(self.record)

    def table(self) -> str:
        """The candidates: right after pruning, and after retraining in every way that was tried."""
        return as_text(shape_table(self.record)) + "\n\n" + as_text(training_table(self.record))

    def save(self, folder: Path | str, latency: bool = True) -> tuple[list[Path], list[str]]:
        """Writes the network, its shape and the page that says why, as plain files.

        `weights.safetensors` and `weights.pth`: the state dict; `network.py`: makes the smaller network where
        prunas is not installed, with copies of the files that its factory is made from; `network.onnx`, where the
        packages are there; `architecture.json`; `result.json`; `report.html`. Files of these names are replaced.

        Args:
            folder: Made if it is not there.
            latency: Whether a pass on the CPU is timed beside the dense network, which takes seconds.

        Returns:
            The files, and one line for each that could not be written.

        Raises:
            InputError: The folder cannot be written to.
        """
        from prunas.inspection.export import Network, export, python_files

        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}") from error
        exported: Network = Network(
            self.space, self.architecture, self.network, str(self.folder), self.folder.name
        )
        files, missing = [], []
        for form in ("safetensors", "onnx"):
            file = folder / ("network.onnx" if form == "onnx" else "weights.safetensors")
            try:
                files.append(export(exported, form, file).file)
            except InputError as error:
                missing.append(f"no {file.name}: {error}")
        timed = self._latency() if latency else None
        document = self.document | ({"latency": timed.to_json()} if timed else {})
        texts = {
            "architecture.json": json.dumps(self.architecture.to_json(), indent=1) + "\n",
            "result.json": json.dumps(document, indent=1, allow_nan=False) + "\n",
        }
        contents = {name: text.encode() for name, text in texts.items()} | python_files(exported)
        if not can_draw():
            missing.append("no report.html: it needs matplotlib")
        else:
            from prunas.report.shrink_page import shrink_page

            ratio = None if timed is None else (timed.dense_seconds, timed.seconds, timed.ratio)
            contents["report.html"] = shrink_page(self.record, ratio).encode()
        for name, content in contents.items():
            write_atomic(folder / name, partial(_written, content))
            files.append(folder / name)
        return sorted(files), missing

    @property
    def document(self) -> dict[str, Any]:
        """What `prunas shrink --json` prints."""
        return {"schema": SCHEMA, **self.record.to_json(), "architecture": self.architecture.to_json()}

    def _latency(self) -> "Latency":
        import torch

        from prunas.inspection.latency import latency_of

        return latency_of(self.space, self.architecture, batch=1, device=torch.device("cpu"))


def _written(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
