"""The log of a training as CSV, whole whenever the program is killed."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from sagitta.files import write_atomic


class WholeCSVLogger(CSVLogger):
    """Lightning's logger, but that a new column does not empty the file before it is written anew."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the file, on the first rank."""
        if self._experiment is None:
            self._experiment = _WholeWriter(log_dir=self.log_dir)
        return super().experiment


class _WholeWriter(ExperimentWriter):
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path, text = Path(self.metrics_file_path), io.StringIO()
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        writer = csv.DictWriter(text, fieldnames, lineterminator="\r\n")  # as Lightning's
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, text.getvalue())
