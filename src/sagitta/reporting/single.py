"""The page of one run."""

from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sagitta.clock import Clock
from sagitta.errors import SagittaError
from sagitta.evaluation import Model, open_model
from sagitta.models import BINS
from sagitta.reporting.atlas import atlas_of
from sagitta.reporting.curves import curves
from sagitta.reporting.datasheet import data_of, findings_of, reproduction_of, suspects_of
from sagitta.reporting.embedding import features_of
from sagitta.reporting.escaping import apart, phrase
from sagitta.reporting.gathering import Gathered, Judged
from sagitta.reporting.heat import heat_pictures
from sagitta.reporting.pictures import Album, Shelf, open_shelf
from sagitta.reporting.results import Part, part_of, percent_short, worst_rows

_SECTIONS = (
    ("summary", "Summary"), ("confusions", "Confusions"), ("classes", "Classes"), ("mistakes", "Worst mistakes"),
    ("confidence", "Confidence"), ("training", "Training"), ("map", "Map"), ("labels", "Label errors"),
    ("data", "Data"), ("again", "Reproduce"),
)  # fmt: skip
_OF_RESULTS = {"confusions", "classes", "mistakes", "confidence"}
_HEAT_SHARE, _MAP_SHARE = 0.35, 0.6  # of the time that is left, which heat maps and features may take


class Single:
    """The page of one run, part by part.

    Args:
        run: what its directory holds.
        images: whether pictures are shown.
        clock: when to end.
        umap: draw the map by UMAP where it is installed.
    """

    def __init__(self, run: Gathered, *, images: bool, clock: Clock, umap: bool) -> None:
        self.run, self.clock, self.umap, self.images = run, clock, umap, images
        self.album = Album(clock, wanted=images)
        self.shelf, self.why = open_shelf(run.path, run.config, None)
        self._shelves: dict[str | None, Shelf | None] = {None: self.shelf}

    def shelf_of(self, judged: Judged) -> Shelf | None:
        """Return the data that predictions are of."""
        if judged.source not in self._shelves:
            self._shelves[judged.source] = open_shelf(self.run.path, self.run.config, judged.source)[0]
        return self._shelves[judged.source]

    @cached_property
    def model(self) -> Model:
        """What the run predicts with.

        Raises:
            ConfigError: it cannot be opened.
        """
        return open_model(self.run.path)

    @property
    def temperature(self) -> float | None:
        """By which logits were divided; None where they were not."""
        found = float(self.run.record.get("calibration", {}).get("temperature", 1))
        return None if found == 1 else found

    def values(self) -> dict[str, Any]:
        """Return everything that the template shows."""
        run, why = self.run, dict(self.run.missing)
        heat, why["heat"] = self._heat()
        parts = [
            part_of(judged, self.shelf_of(judged), self.album, heat.get(judged.key, {}), self.temperature)
            for judged in run.judged
        ]
        suspects = suspects_of(run, self.shelf, self.album)
        data = data_of(run, self.shelf, self.why, self.album)
        findings = findings_of(run, self.shelf, self.album)
        atlas, atlas_data, why["map"] = self._atlas()
        figures = curves(run)
        why["curves"] = _no_curves(run)
        why["pace"] = "" if run.pace else "Throughput and waiting for data were not noted by this run."
        why["pictures"] = self._no_pictures()
        for name in ("test", "unseen", "findings"):
            why.setdefault(name, "")
        return {
            "title": run.path.resolve().name,
            "name": run.path.resolve().name,
            "subtitle": subtitle(run),
            "notices": self._notices(),
            "sections": [(name, words) for name, words in _SECTIONS if parts or name not in _OF_RESULTS],
            "parts": [_flat(part) for part in parts],
            "tests": [{**line, "score": _headline(line)} for line in run.tests],
            "why": why,
            "heat_there": any(heat.values()),
            "calibration": _calibration(run),
            "bins": BINS,
            "probe": [_network(each) for each in run.record.get("probe", [])],
            "curves": figures,
            "atlas": atlas,
            "atlas_data": atlas_data,
            "suspects": suspects,
            "data": data,
            "findings": findings,
            "again": reproduction_of(run),
            "album": self.album,
        }

    def _heat(self) -> tuple[dict[str, dict[str, int]], str]:
        """Return heat maps of the worst mistakes by predictions and path, and why there are none."""
        if not self.images:
            return {}, "left out with the pictures"
        if not any(worst_rows(judged) for judged in self.run.judged):
            return {}, ""
        try:
            classifier = self.model.first
            clock = Clock(min(self.clock.left * _HEAT_SHARE, 120.0))
            found, why = {}, ""
            for judged in self.run.judged:
                if (shelf := self.shelf_of(judged)) is not None:
                    found[judged.key], why = heat_pictures(
                        classifier, judged, worst_rows(judged), shelf, self.album, clock
                    )
            return found, why
        except (SagittaError, OSError) as error:
            return {}, " ".join(str(error).split())

    def _atlas(self) -> tuple[dict[str, Any] | None, dict[str, Any], str]:
        if self.shelf is None:
            return None, {}, f"The data cannot be opened: {self.why}"
        clock = Clock(min(self.clock.left * _MAP_SHARE, 60.0))
        features, why = features_of(self.run, lambda: self.model, self.shelf.shards, clock)
        if features is None:
            return None, {}, f"There is none: {why}"
        if len(features.rows) < 12:
            return None, {}, "There are too few images for a map."
        return *atlas_of(self.run, features, self.shelf, self.album, umap=self.umap), ""

    def atlas(self) -> dict[str, Any] | None:
        """Return the map of the images, for a figure; None where there is none."""
        return self._atlas()[0]

    def _notices(self) -> list[str]:
        run, found = self.run, list[str]()
        if not run.finished:
            found.append(
                phrase(
                    "The run has not come to its end: this is what there is. sagitta fit --resume {} goes on.",
                    str(run.path),
                )
            )
        for judged in run.judged:
            if judged.key == "test" and judged.source is not None:
                found.append(phrase("The last test was on other data than the run's own: {}.", judged.source))
        return found

    def _no_pictures(self) -> str:
        if not self.images:
            return "left out with --no-images"
        if self.shelf is None:
            return self.why
        return (
            ""
            if self.clock.left > 0
            else f"some were left out, since there was no time: sagitta report {self.run.path}"
        )


def _flat(part: Part) -> dict[str, Any]:
    return {**part.values, "data": part.data}


def subtitle(run: Gathered) -> str:
    """Return in one line what the run is."""
    model, kind = model_of(run), run.kind
    words = {"probe": "a head on frozen features", "folds": "members of a cross-validation", "ensemble": "an ensemble"}
    began = run.settings.get("model", {})
    fitted = "fine-tuned" if began.get("weights") or began.get("pretrained") else "trained from scratch"
    if run.record.get("mixture") == 0:
        fitted = "a head on frozen features, since fine-tuning gained nothing over it"
    parts = [model, words.get(kind, fitted)]
    if source := run.record.get("dataset", {}).get("preparation", {}).get("source"):
        parts.append(f"on {Path(str(source)).name}")
    if run.names:
        parts.append(f"{len(run.names):,} classes")
    return Markup(" · ").join(apart(part) for part in parts if part)


def model_of(run: Gathered) -> str:
    """Return the network's name."""
    if run.record.get("probe"):
        return str(run.record["probe"][0]["model"])
    return str(run.settings.get("model", {}).get("name", ""))


def _headline(line: dict[str, Any]) -> str:
    for prefix in ("test_", "val_", "train_"):
        for name in ("acc", "map"):
            if line.get(f"{prefix}{name}"):
                return percent_short(float(line[f"{prefix}{name}"]))
    return "-"


def _no_curves(run: Gathered) -> str:
    if run.kind == "probe":
        return "A probe solves its head at once, so there is no course to draw."
    return "Nothing was logged more than once, so there is no course to draw."


def _network(each: dict[str, Any]) -> dict[str, str]:
    """Return a line of the table of networks."""

    def words(name: str) -> tuple[str, str]:
        value, ends = each.get(f"{name}_acc"), each.get(f"{name}_interval")
        if value is None or ends is None:
            return "-", ""
        return percent_short(value), f"{percent_short(ends[0])} to {percent_short(ends[1])}"

    (val, val_range), (test, test_range) = words("val"), words("test")
    return {
        "model": each["model"],
        "size": f"{each['parameters'] / 1e6:.2f} M",
        "val": val,
        "val_range": val_range,
        "test": test,
        "test_range": test_range,
        "seconds": f"{each['feature_seconds'] + each['head_seconds']:.1f}",
    }


def _calibration(run: Gathered) -> str:
    """Return in one sentence what calibration did."""
    about = run.record.get("calibration")
    if not about or "temperature" not in about:
        return ""
    if about["temperature"] == 1:
        reason = about.get("reason") or "nothing is gained"
        return f"Probabilities were looked at and left as they are, so there is no before and after: {reason}."
    before, after = about.get("before", {}), about.get("after", {})
    words = [f"Calibrated: logits are divided by {about['temperature']:.3g}"]
    if "rows" in about:
        where = "out of fold" if about.get("fitted_on") == "out-of-fold" else f"of {about.get('fitted_on', 'val')}"
        words.append(f"fitted on {about['rows']:,} rows {where}")
    for name, title in (("loss", "log loss"), ("ece", "calibration error")):
        if name in before and name in after:
            words.append(f"{title} there from {before[name]:.4f} to {after[name]:.4f}")
    return "; ".join(words) + "."
