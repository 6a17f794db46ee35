"""The model under test: where its files lie, what each system is told, and how systems start."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import home
from benchmarks.models import MODEL_BY_NAME, Model, folder
from benchmarks.options import model_or_default
from benchmarks.process import NotRun, Process, prepare
from benchmarks.slices import Counter, Part, Workload, workload
from benchmarks.systems.protocol import Items, Job
from benchmarks.table import BY_NAME, System
from benchmarks.workload import SEED, documents

CALIBRATION_TEXTS = 300
# Documents further down than any workload reads: nothing is measured on what it was calibrated on.
CALIBRATION_START = 15_000


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, its folder and the data folder."""

    model: Model
    folder: Path
    data: Path | None

    @property
    def files(self) -> Path:
        """Return the folder for what systems export of this model."""
        return home() / "exports" / self.model.name

    def counter(self) -> Counter:
        """Return what counts tokens as this model sees them."""
        return Counter(self.folder, self.model.max_length)

    def workload(self, name: str, rounds: int, texts: int | None = None) -> Workload:
        """Build one of this model's workloads."""
        return workload(name, self.model, self.counter(), self.data, rounds, texts)

    def job(self, system: System, threads: int = 0) -> Job:
        """Return what a system is told."""
        first: Items = ["a text"] if self.model.task == "embed" else [["a query", "a text"]]
        return Job(
            str(self.folder),
            str(self.files),
            system.variant,
            self.model.task,
            self.model.max_length,
            first,
            threads,
        )

    def prepare(self, name: str) -> None:
        """Export what a system needs, and before it what it takes from another one."""
        system = BY_NAME[name]
        if system.needs:
            self.prepare(system.needs)
        self._write_calibration()
        # Artifacts are compiled here, where the compiler is; poolc's own environment has none.
        prepare(system, self.job(system), sys.executable if system.module == "poolc" else None)

    def start(self, name: str, cores: Sequence[int] | None = None) -> Process:
        """Prepare and start a system. Raises NotRun with the reason."""
        system = BY_NAME[name]
        self.prepare(name)
        return Process(system, self.job(system, len(cores) if cores is not None else 0), cores)

    def start_all(self, names: Sequence[str]) -> tuple[dict[str, Process], dict[str, str]]:
        """Start systems; return those that run, and why the others do not."""
        processes: dict[str, Process] = {}
        reasons: dict[str, str] = {}
        for name in names:
            print(f"  {name}: starting", file=sys.stderr, flush=True)
            try:
                processes[name] = self.start(name)
            except NotRun as error:
                reasons[name] = str(error)
                print(f"  {name}: not run: {error}", file=sys.stderr, flush=True)
        return processes, reasons

    def write(self, part: Part) -> Path:
        """Write items where processes can read them."""
        content = json.dumps(part.items)
        name = hashlib.sha256(content.encode()).hexdigest()[:16]
        path = self.files / "items" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def rows(self, digest: str, part: int, system: str) -> Path:
        """Return where a system's rows of a part of a workload lie."""
        path = self.files / "rows" / digest / f"{system}-{part}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_calibration(self) -> None:
        path = self.files / "calibration" / "train.jsonl"
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        start = CALIBRATION_START if self.data is not None else SEED % 1000
        chosen = [
            text
            for i, text in zip(range(start + CALIBRATION_TEXTS), documents(self.data), strict=False)
            if i >= start
        ]
        lines = [json.dumps({"text": text}) for text in chosen]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def subject(name: str | None, data: Path | None) -> Subject:
    """Return the subject of a name of ``models.py``, or of any model folder."""
    if name is None or name in MODEL_BY_NAME:
        model = MODEL_BY_NAME[name or "minilm"]
        return Subject(model, folder(model, data), data)
    path = Path(model_or_default(name)).expanduser().resolve()
    file = path / "sentence_bert_config.json"
    if not file.exists():
        raise SystemExit(f"{name} is no folder of Sentence Transformers, nor one of: "
                         f"{', '.join(MODEL_BY_NAME)}")  # fmt: skip
    limit = int(json.loads(file.read_text(encoding="utf-8"))["max_seq_length"])
    return Subject(Model(path.name, path.name, limit, large=False), path, data)
