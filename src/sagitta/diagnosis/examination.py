"""The examinations: the whole one of `sagitta doctor`, and the glance before a fit, which takes a few seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sagitta.clock import extra
from sagitta.dataset import plural
from sagitta.diagnosis.balance import known_findings
from sagitta.diagnosis.cues import cue_findings
from sagitta.diagnosis.duplicates import Duplicates, duplicate_findings, find_duplicates
from sagitta.diagnosis.findings import FINDINGS_FILE, KINDS, Findings, table_of
from sagitta.diagnosis.labels import label_findings, learned, out_of_fold, rows_of
from sagitta.diagnosis.looks import look
from sagitta.diagnosis.quality import quality_findings
from sagitta.diagnosis.rows import Ints, Rows
from sagitta.evaluation import arrays_of
from sagitta.loading import ImageData
from sagitta.models import SINGLE_LABEL
from sagitta.pool import progress
from sagitta.run import OUT_OF_FOLD
from sagitta.signals import Interrupted, interruption_of
from sagitta.terminal import show
from sagitta.training import Candidate

PAIRS, GLANCED_PAIRS = 20_000, 1_000
"""How many pairs of images are compared closely."""
_GLANCE = 4.0  # seconds for looking at images; comparing them takes about as long


def examine(
    data: ImageData, candidate: Candidate | None = None, *, image_size: int | None = None, verbose: bool = False
) -> Findings:
    """Look at every image of a dataset, and at all of them together.

    Args:
        data: set up.
        candidate: the network by whose features label errors are looked for.
        image_size: other height and width of its input than its weights were trained with.
        verbose: show progress.

    Raises:
        ConfigError: the network or its weights do not fit.
        DatasetError: a file cannot be read, or an image cannot be decoded for the network.
    """
    rows = Rows(data.shards)
    with progress("looking", len(rows), show=verbose) as told:
        looks = look(rows, np.arange(len(rows)), told=told)
    copies = find_duplicates(rows, looks, pairs=PAIRS)
    found, notes, side = _seen(rows, copies), _skipped(copies, PAIRS), None
    units = copies.units(len(rows))
    if rows.labels.ndim == 2:
        notes.append("label errors and cues: images have several labels here")
    else:
        found += cue_findings(rows, looks, units)
        if candidate is None:
            notes.append("label errors: give a network, --model NAME with --weights FILE or --pretrained, or --run RUN")
        elif len(np.unique(rows.labels)) < 2 or np.bincount(rows.labels).max() < 2:
            notes.append("label errors: a second class, and two images in one, are needed to learn from")
        elif looks.failed:
            notes.append("label errors: there are images that cannot be decoded")
        else:
            judged, probabilities, side = out_of_fold(
                data, rows, candidate, units, image_size=image_size, verbose=verbose
            )
            found += label_findings(rows, judged, probabilities)
            notes += learned(rows, candidate)
            if alone := len(rows) - len(judged):
                notes.append(f"label errors among {plural(alone, 'image')} whose class has no others to learn from")
    found += quality_findings(rows, looks, side)
    return Findings(str(data.source), len(rows), table_of(found), tuple(notes))


def _seen(rows: Rows, copies: Duplicates) -> list[dict[str, Any]]:
    return [*known_findings(rows), *duplicate_findings(rows, copies)]


def _skipped(copies: Duplicates, pairs: int) -> list[str]:
    if not copies.skipped:
        return []
    return [f"near copies beyond the {pairs:,} pairs most alike at first sight"]


def glance(data: ImageData, seconds: float = _GLANCE) -> Findings:
    """Return what can be found in a few seconds: copies, leaks and odd images.

    That is neither cues nor label errors, nor copies that are mirrored or turned.

    Of a dataset that takes longer, all images that measure are looked at before those that train, which are then a
    sample.

    Args:
        data: set up.
        seconds: for looking at images; about as many again for comparing them.

    Raises:
        DatasetError: a file cannot be read.
    """
    rows = Rows(data.shards)
    looks = look(rows, _by_importance(rows), seconds=seconds)
    copies = find_duplicates(rows, looks, pairs=GLANCED_PAIRS, turned=False)
    notes = _skipped(copies, GLANCED_PAIRS)
    if not looks.complete:
        notes.append(f"all but copies of equal bytes in {len(rows) - len(looks.rows):,} of {len(rows):,} images")
    found = [*_seen(rows, copies), *quality_findings(rows, looks, None)]
    return Findings(str(data.source), len(rows), table_of(found), tuple(notes))


def _by_importance(rows: Rows) -> Ints:
    """Return the rows, test before val before train, each in an order of chance that is always the same."""
    chance = np.random.default_rng(0).permutation(len(rows))
    return chance[np.argsort(-rows.rank[chance], kind="stable")]


class Glance:
    """The glance before a run, as training calls it: looks, says a line, and leaves ``RUN/findings.parquet``."""

    def __init__(self) -> None:
        self._rows: Rows | None = None
        self._findings: Findings | None = None

    def __call__(self, data: ImageData) -> Callable[[Path], None]:
        """Look at the data of a run that is to begin; returns what tells and keeps the findings."""
        with extra():
            self._rows = Rows(data.shards)
            self._findings = glance(data)
        return self._keep

    def _keep(self, run: Path) -> None:
        assert self._findings is not None
        self._findings.write(run / FINDINGS_FILE)
        show("\n".join(told(self._findings, run / FINDINGS_FILE)))

    def judge(self, run: Path) -> None:
        """Add the label errors of a run that is finished, where it has predictions out of fold.

        Raises:
            Interrupted: a signal asks for the end; says that the run is there.
        """
        try:
            with extra():
                self._judge(run)
        except KeyboardInterrupt as error:
            rest = f"{run} is there, but for its doubtful labels and its page: sagitta report {run} writes that"
            raise Interrupted(rest, interruption_of(error).number) from None

    def _judge(self, run: Path) -> None:
        path = run / OUT_OF_FOLD / "predictions.parquet"
        if self._rows is None or self._findings is None or self._rows.labels.ndim == 2 or not path.is_file():
            return
        predictions = pq.read_table(path)
        probabilities, _ = arrays_of(predictions, SINGLE_LABEL, self._rows.info.class_names)
        judged = rows_of(self._rows, predictions["path"].to_pylist())
        known = judged >= 0
        more = list(label_findings(self._rows, judged[known], probabilities[known]))
        table = table_of([*self._findings.table.to_pylist(), *more])
        judgement = Findings(self._findings.source, self._findings.images, table)
        judgement.write(run / FINDINGS_FILE)
        for line in judgement.lines(["label-error"]):
            show(f"doctor: {line}")
        if more:  # the line before the run counted what was known then
            doubts = judgement.count("label-doubt")
            some = f", {plural(doubts, 'label')} in doubt among them" if doubts else ""
            show(f"doctor: now {plural(judgement.table.num_rows, 'finding')} in {run / FINDINGS_FILE}{some}")


def told(findings: Findings, file: Path) -> list[str]:
    """Return what is said before a run: one line where all is well, else one for each serious kind, and where more is.

    What was found is the more the longer one looks, so each says that this was a glance.
    """
    serious = [kind for kind in findings.kinds if KINDS[kind].severity == "serious"]
    others = sum(count for kind, count in findings.kinds.items() if kind not in serious)
    rest = f"; {plural(others, 'lesser finding')} in {file}" if others else ""
    left = f"; not looked for: {'; '.join(findings.notes)}" if findings.notes else ""
    if not serious:
        return [f"doctor: at a glance nothing serious among {plural(findings.images, 'image')}{rest}{left}"]
    found = [f"doctor: {line}" for line in findings.lines(serious)]
    return [*found, f"doctor: this at a glance; sagitta doctor looks for mirrored copies and cues, too{rest}{left}"]
