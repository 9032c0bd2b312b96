"""A run that was opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sagitta.errors import ConfigError
from sagitta.settings import Settings
from sagitta.verbs import using
from sagitta.verbs.places import PathLike, path_of

if TYPE_CHECKING:
    import pyarrow as pa

    from sagitta.evaluation import Evaluation, Explanations
    from sagitta.exporting import Benchmark, Exported
    from sagitta.models import Classifier


@dataclass(frozen=True)
class Run:
    """A run directory, opened.

    Attributes:
        path: the directory.
        test: the test that ended the fit, in full, of val where there is no test set; None for a run that was opened
            again.

    Raises:
        ConfigError: there is no run in ``path``.
    """

    path: Path
    test: "Evaluation | None" = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        from sagitta.run import RUN_FILE

        object.__setattr__(self, "path", path_of(self.path))
        if not (self.path / RUN_FILE).is_file():
            raise ConfigError(f"{self.path}: no such run; a run directory holds {RUN_FILE}")

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def record(self) -> dict[str, Any]:
        """``run.json``: command, versions, hardware, seed, dataset, result."""
        from sagitta.run import read_record

        return read_record(self.path)

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics by their logged names, such as ``test_acc``."""
        return dict(self.record.get("result", {}))

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each output means, in label order."""
        return tuple(self.record["dataset"]["class_names"])

    @property
    def settings(self) -> Settings:
        """The resolved settings; ``fit(settings=run.settings)`` repeats the run."""
        from sagitta.run import CONFIG_FILE

        return Settings.read(self.path / CONFIG_FILE)

    @property
    def history(self) -> "pa.Table":
        """What was logged: ``step``, ``epoch`` and a column for each metric, null where a step has none of it."""
        from sagitta.run import history_table

        return history_table(self.path)

    def classifier(self) -> "Classifier":
        """Return the best checkpoint's model, or the mean of the members, on the CPU, in evaluation mode.

        Raises:
            ConfigError: the run has no checkpoint, or members that read images in different ways.
        """
        from sagitta.evaluation import one_classifier

        return one_classifier(self.path)

    def predict(self, paths: PathLike | Sequence[PathLike], **how: Any) -> Any:
        """Classify images, see :func:`sagitta.predict`."""
        return using.predict(self, paths, **how)

    def explain(
        self,
        paths: PathLike | Sequence[PathLike],
        *,
        class_name: str | None = None,
        nearest: int = 5,
        output: PathLike | None = None,
    ) -> "Explanations":
        """Show what speaks for a class in images, see :func:`sagitta.explain`."""
        return using.explain(self, paths, class_name=class_name, nearest=nearest, output=output)

    def export(
        self,
        to: str = "onnx",
        *,
        precision: str = "32",
        out: PathLike | None = None,
        data: PathLike | None = None,
    ) -> "Exported":
        """Write the model in another format, and prove it, see :func:`sagitta.export`."""
        return using.export(self, to, precision=precision, out=out, data=data)

    def benchmark(self, *, data: PathLike | None = None) -> "Benchmark":
        """Measure the run as every format, see :func:`sagitta.benchmark`."""
        return using.benchmark(self, data=data)

    @property
    def report_file(self) -> Path | None:
        """The page about the run, if it is there."""
        from sagitta.run import REPORT_FILE

        return path if (path := self.path / REPORT_FILE).is_file() else None

    def report(self, *, out: PathLike | None = None, images: bool = True) -> Path:
        """Write the page about the run, see :func:`sagitta.report`."""
        return using.report(self, out=out, images=images)

    def figures(self, folder: PathLike, *, images: bool = True) -> list[Path]:
        """Write the figures of the report, see :func:`sagitta.figures`."""
        return using.figures(self, folder, images=images)

    def evaluate(
        self, source: PathLike | None = None, *, split: Literal["train", "val", "test"] | None = None
    ) -> "Evaluation":
        """Evaluate on the run's own data or on others, see :func:`sagitta.evaluate`."""
        return using.evaluate(self, source, split=split)

    def text(self) -> str:
        """Return run history and run summary; after a fit the test in full, after a probe the table of networks."""
        from sagitta.run import history

        record = self.record
        told = {"probe", "out_of_fold", "ensemble"}
        parts = [history(self.path, self.metrics)] if told.isdisjoint(record) else []
        if "ensemble" in record:
            from sagitta.training import ensemble_text

            parts.append(ensemble_text(record["ensemble"]))
        if "out_of_fold" in record:
            from sagitta.training import folds_text

            parts.append(folds_text(record["out_of_fold"]))
        if "tried" in record:
            from sagitta.training import tried_text

            parts.append(f"\nTried in {record['time']}\n{tried_text(record['tried'])}")
        if "probe" in record:
            from sagitta.training import probe_notes, probe_text

            parts.append(probe_text(record["probe"]))
            parts += probe_notes(record["probe"])
        if self.test is not None:
            what = "Test" if "test_loss" in self.test.metrics else "Validation"
            parts.append(f"\n{what}, with 95 % intervals\n{self.test.text()}")
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        from sagitta.run import sparklines

        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{value:.4f}</td><td style='text-align:left'>{lines}</td></tr>"
            for name, value, lines in ((n, v, sparklines(self.path).get(n, "")) for n, v in self.metrics.items())
        )
        names = self.class_names
        shown = ", ".join(map(escape, names[:10])) + (", …" if len(names) > 10 else "")
        title = f"<b>{escape(str(self.path))}</b>: {len(names)} classes ({shown})"
        return f"{title}<table><tr><th>metric</th><th>value</th><th>course</th></tr>{rows}</table>"
