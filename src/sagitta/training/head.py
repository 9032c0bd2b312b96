"""A linear head on features, solved: weight and bias of a last linear layer, and what it says of rows it has not seen.

Two kinds are tried, each along a path from strong to weak regularisation:

- linear discriminant analysis whose covariance is shrunk towards a multiple of the identity (Friedman 1989), in closed
  form; at the strong end it is the nearest class mean;
- multinomial logistic regression, by L-BFGS.

Every row is judged by a head that has not seen it: of five folds, or, of more than 5,000 rows, of a fifth that is held
out. Of each kind the strength of the lowest log loss counts, and of the kinds the better one; where they are within two
standard errors of each other, which is chance, the mean of both. That is fitted to all rows. Logits are multiplied by
the number that is best on the judged rows (temperature scaling, Guo et al. 2017), with targets smoothed as by Platt
(1999): or else rows that are all right would ask for infinite certainty.

Few rows judge badly. So the strength of logistic regression and the temperature are most probable rather than best
ones: their logarithms are normally distributed around a tenth of the number of classes and around 1. With less than
four rows a class there is logistic regression alone, without a temperature: the folds' heads know a class by one row
where the last head has two, so they ask for too little certainty, and know nothing of the scatter within a class. And
up to ten rows a class are scaled to one length before anything is learned from them: how long a row happens to be would
move the boundary to its class. What is judged later keeps its length, which with a linear head changes little but how
sure it is.

How often the rarest class is there does not matter: rows are dealt to the folds class by class, and the only image of a
class is in the training rows of every fold. Rows that belong together are dealt together.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize, minimize_scalar
from threadpoolctl import threadpool_limits
from torch import Tensor

from sagitta.models import Estimate, wilson_interval

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

STRENGTHS = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
"""Values of scikit-learn's C of logistic regression."""
SHRINKAGES = (0.998, 0.99, 0.95, 0.8, 0.5, 0.2, 0.05)
"""Shares of the identity in the covariance of discriminant analysis."""

_FOLDS = 5
_MANY = 5000  # rows from which a held-out fifth judges well, and folds would take long
_MOST = 5e10  # rows * features * classes from which a single gradient takes seconds: discriminant analysis alone
_SMALL = 2e7  # likewise, below which threads would wait for one another longer than they compute
ENOUGH = 4
"""Rows a class below which the folds' heads are too unlike the last one to ask them for a temperature, or more."""
_CHANCE = 10  # rows a class up to which their lengths are chance
_STRENGTH_SPREAD = 0.5  # standard deviation of log10(C), before rows are seen
_FAR = 12.0  # nats: a strength as improbable as that is not tried
_TEMPERATURE_SPREAD = 0.5  # of the temperature's natural logarithm
_CLOSE, _CLOSER = 1e-3, 1e-4  # relative decrease of the loss at which L-BFGS ends: to judge, and in the end


@dataclass(frozen=True)
class Head:
    """A linear head: logits are ``features @ weight.T + bias``.

    Attributes:
        weight: (classes, D) float32.
        bias: (classes,) float32.
        method: which kind at which strength, in words.
        folds: of the cross-validation; 1 where a fifth was held out.
        judged: (M,) rows that were judged by heads that have not seen them: all but those that a class would lack.
        logits: (M, classes) float32, what these heads say of them.
    """

    weight: Floats
    bias: Floats
    method: str
    folds: int
    judged: Ints
    logits: Floats


def fit_head(features: Floats, labels: Ints, classes: int, *, units: Ints | None = None, seed: int = 0) -> Head:
    """Choose kind and strength, and fit the head to all rows; ``features`` are shifted and scaled in place.

    Args:
        features: (N, D) float32, finite.
        labels: (N,) int64, 0 <= label < classes; a class may have one row, or none.
        classes: number of outputs, at least 2.
        units: (N,) int64, equal for rows of which none may judge a head that has seen another one, such as images of
            one patient; by default each is its own.
        seed: of the division into folds.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    x, y = torch.from_numpy(features), torch.from_numpy(labels).to(device)
    if len(labels) <= _CHANCE * classes:
        lengths = x.norm(dim=1, keepdim=True).clamp(min=1e-12)
        x *= lengths.mean() / lengths
    mean, scale = _soften(x)
    with _threads(len(features) * min(features.shape) * classes):
        z, basis, variances = _rotated(x.to(device))
        folds = _deal(labels, np.arange(len(labels)) if units is None else units, seed)
        parts = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(max(folds) + 1)]
        if len(labels) > _MANY:
            parts = parts[:1]
        parts = [part for part in parts if len(part[1])]
        judged = np.concatenate([rows for _, rows in parts]) if parts else np.empty(0, np.int64)
        enough, much = len(labels) >= ENOUGH * classes, z.numel() * classes > _MOST
        kinds: list[_Kind] = [_Discriminant(z, y, classes)] if enough or much else []
        if not much:
            kinds.append(_Logistic(z, y, classes, variances, tempered=enough))
        best = _best(kinds, parts, y[judged])
        heads = [[c.temperature * part for part in c.kind.fit_all(c.strength)] for c in best.choices]
        inner, bias = (best.temperature * torch.stack(part).double().mean(dim=0) for part in zip(*heads, strict=True))
    weight = (inner @ basis.double().T).cpu().numpy() / scale
    return Head(
        weight.astype(np.float32),
        (bias.cpu().numpy() - weight @ mean).astype(np.float32),
        " and ".join(f"{choice.kind.name} {choice.strength:g}" for choice in best.choices),
        len(parts) if len(labels) <= _MANY else 1,
        judged,
        best.logits.cpu().numpy(),
    )


def estimate(logits: Floats, labels: Ints) -> tuple[Estimate, float]:
    """Return the accuracy with its 95 % interval (Wilson 1927), and the mean log loss in nats, of (N, classes)."""
    right = int((logits.argmax(axis=1) == labels).sum())
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(np.array(labels)))
    return Estimate(right / max(1, len(labels)), *wilson_interval(right, len(labels))), float(loss)


def log_losses(logits: Floats, labels: Ints) -> Floats:
    """Return the log loss of each row (N,) of logits (N, classes)."""
    found: Floats = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(np.array(labels)), reduction="none"
    ).numpy()
    return found


def surely_better(losses: Floats, others: Floats) -> bool:
    """Return whether the losses (N,) of the same rows are lower by more than one standard error of the difference."""
    gain = others - losses
    return len(gain) > 1 and float(gain.mean()) > float(gain.std(ddof=1)) / len(gain) ** 0.5


def _soften(x: Tensor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Shift and scale each column in place; returns mean and scale (D,).

    The scale is the root of the column's variance plus the mean of all variances: so no column outweighs the others,
    and one that hardly ever differs from zero, of which few rows say nothing, is not blown up.
    """
    mean = x.mean(dim=0, dtype=torch.float64)
    x -= mean.float()
    variance = torch.stack([column.square().mean(dtype=torch.float64) for column in x.T])
    scale = (variance + variance.mean()).sqrt()
    scale[scale == 0] = 1.0  # all rows are alike
    x /= scale.float()
    return mean.numpy(), scale.numpy()


def _rotated(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (N, D) rows in their principal axes (N, r), these (D, r), and the sum of squares along each (r,).

    The penalties know no direction, so nothing changes but the size: r is at most N.
    """
    rows, columns = x.shape
    squares, axes = torch.linalg.eigh((x @ x.T if rows <= columns else x.T @ x).double())
    kept = squares > 1e-7 * squares[-1].clamp(min=1e-30)
    squares, axes = squares[kept], axes[:, kept]
    basis = (x.T.double() @ axes / squares.sqrt() if rows <= columns else axes).float()
    return x @ basis, basis, squares


def _deal(labels: Ints, units: Ints, seed: int) -> Ints:
    """Return the fold of each row (N,): units are dealt in turn, class by class; -1 for those of which a class has one.

    A unit of several classes counts as one of the class of its first row.
    """
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    classes = labels[first]
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(classes[shuffled], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % _FOLDS
    pairs = np.unique(np.stack([labels, unit]), axis=1)  # each class with each unit that it is in
    alone = np.bincount(pairs[0])[labels] == 1
    return np.where(np.isin(unit, unit[alone]), -1, folds[unit])


class _Kind:
    """Heads of one kind on rotated rows: for each part in turn, from the strongest regularisation on."""

    name: str
    strengths: Sequence[float]
    temperature_spread: float = 0.0
    """Standard deviation of the temperature's logarithm before rows are seen: 0 where there is no temperature."""

    def __init__(self, z: Tensor, y: Tensor, classes: int) -> None:
        self.z, self.y, self.classes = z, y, classes

    def surprise(self, strength: float) -> float:
        """Return how improbable a strength is before rows are seen, in nats above the most probable one."""
        return 0.0

    def judge(self, parts: Sequence[tuple[Ints, Ints]]) -> Iterator[Tensor]:
        """Yield for each strength the logits (M, classes) of the judged rows of all parts."""
        raise NotImplementedError

    def fit_all(self, strength: float) -> tuple[Tensor, Tensor]:
        """Return weight (classes, r) and bias (classes,) of a head that has seen every row."""
        raise NotImplementedError


class _Discriminant(_Kind):
    name, strengths, temperature_spread = "linear discriminant analysis, shrinkage", SHRINKAGES, math.inf

    def judge(self, parts: Sequence[tuple[Ints, Ints]]) -> Iterator[Tensor]:
        spreads = [(_Spread(self.z[fitted], self.y[fitted], self.classes), rows) for fitted, rows in parts]
        turned = [(spread, self.z[rows] @ spread.axes) for spread, rows in spreads]
        for strength in self.strengths:
            heads = [(rows, *spread.head(strength)) for spread, rows in turned]
            yield torch.cat([rows @ weight.T + bias for rows, weight, bias in heads])

    def fit_all(self, strength: float) -> tuple[Tensor, Tensor]:
        spread = _Spread(self.z, self.y, self.classes)
        weight, bias = spread.head(strength)
        return weight @ spread.axes.T, bias


class _Spread:
    """Class means and the covariance within classes, in its own axes."""

    def __init__(self, z: Tensor, y: Tensor, classes: int) -> None:
        counts = torch.bincount(y, minlength=classes)
        sums = torch.zeros(classes, z.shape[1], device=z.device).index_add_(0, y, z)
        means = sums / counts.clamp(min=1)[:, None]
        inside = z - means[y]
        freedom = max(1, len(y) - int((counts > 0).sum()))
        variances, axes = torch.linalg.eigh((inside.T @ inside).double() / freedom)
        self.axes = axes.float()
        self.variances = variances.clamp(min=0).float()
        self.means = means @ self.axes
        self.priors = (counts.clamp(min=0.5) / len(y)).log()

    def head(self, shrinkage: float) -> tuple[Tensor, Tensor]:
        """Return weight (classes, r) and bias (classes,) for rows in these axes."""
        shrunk = (1 - shrinkage) * self.variances + shrinkage * self.variances.mean()
        weight = self.means / shrunk.clamp(min=1e-6)
        return weight, self.priors - (weight * self.means).sum(dim=1) / 2


class _Logistic(_Kind):
    name = "logistic regression, C"

    def __init__(self, z: Tensor, y: Tensor, classes: int, squares: Tensor, *, tempered: bool) -> None:
        super().__init__(z, y, classes)
        self.strengths = [strength for strength in STRENGTHS if self.surprise(strength) < _FAR] or STRENGTHS[-1:]
        self.squares = squares
        self.temperature_spread = _TEMPERATURE_SPREAD if tempered else 0.0
        self.starts: dict[float, Tensor] = {}

    def surprise(self, strength: float) -> float:
        return (math.log10(strength * 10 / self.classes) / _STRENGTH_SPREAD) ** 2 / 2

    def judge(self, parts: Sequence[tuple[Ints, Ints]]) -> Iterator[Tensor]:
        heads = [torch.zeros(self.z.shape[1] + 1, self.classes, device=self.z.device) for _ in parts]
        for strength in self.strengths:
            fitted = [torch.from_numpy(rows).to(self.z.device) for rows, _ in parts]
            heads = [self._fit(rows, strength, head, _CLOSE) for rows, head in zip(fitted, heads, strict=True)]
            self.starts[strength] = torch.stack(heads).mean(dim=0)
            yield torch.cat([self.z[rows] @ head[:-1] + head[-1] for (_, rows), head in zip(parts, heads, strict=True)])

    def fit_all(self, strength: float) -> tuple[Tensor, Tensor]:
        start = self.starts.get(strength, torch.zeros(self.z.shape[1] + 1, self.classes, device=self.z.device))
        head = self._fit(torch.arange(len(self.y), device=self.y.device), strength, start, _CLOSER)
        return head[:-1].T, head[-1]

    def _fit(self, rows: Tensor, strength: float, start: Tensor, close: float) -> Tensor:
        """Return weights and, as last row, biases (r + 1, classes) of the least penalised loss, from ``start`` on.

        Along each axis the step is scaled by the curvature that the loss has there where all classes are equally
        probable: the axes' variances differ by many powers of ten, and L-BFGS would take hundreds of steps.
        """
        whole = len(rows) == len(self.y)
        z, y = (self.z, self.y) if whole else (self.z[rows], self.y[rows])
        penalty = 1 / strength
        flat = (1 - 1 / self.classes) / self.classes
        curvature = torch.cat([flat * self.squares + penalty, self.squares.new_tensor([flat * len(rows)])])
        step = curvature.rsqrt().float()[:, None]
        own = torch.arange(len(y), device=y.device)

        def loss(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            head = torch.from_numpy(point).to(z.device, torch.float32).view_as(start) * step
            weight, bias = head[:-1], head[-1]
            logits = torch.addmm(bias, z, weight).log_softmax(dim=1)
            value = -logits[own, y].sum(dtype=torch.float64) + penalty / 2 * weight.square().sum(dtype=torch.float64)
            error = logits.exp_()
            error[own, y] -= 1
            gradient = torch.cat([torch.addmm(penalty * weight, z.T, error), error.sum(dim=0, keepdim=True)])
            return float(value), (gradient * step).flatten().double().cpu().numpy()

        first = (start / step).flatten().double().cpu().numpy()
        found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 100, "ftol": close, "gtol": 0})
        return torch.from_numpy(found.x).to(z.device, torch.float32).view_as(start) * step


@dataclass(frozen=True)
class _Choice:
    kind: _Kind
    strength: float
    loss: float
    temperature: float
    logits: Tensor


@dataclass(frozen=True)
class _Best:
    choices: Sequence[_Choice]
    temperature: float
    logits: Tensor


def _best(kinds: Sequence[_Kind], parts: Sequence[tuple[Ints, Ints]], labels: Tensor) -> _Best:
    """Return the most probable kind and strength by the judged rows, or both kinds where they are as good."""
    if not len(labels):  # one image a class
        kind = kinds[-1]
        nothing = torch.zeros(0, kind.classes)
        return _Best([_Choice(kind, min(kind.strengths, key=kind.surprise), np.nan, 1.0, nothing)], 1.0, nothing)
    choices = sorted((_best_of(kind, parts, labels) for kind in kinds), key=lambda choice: choice.loss)
    losses = [torch.nn.functional.cross_entropy(each.logits, labels, reduction="none") for each in choices]
    if len(choices) > 1:
        difference = losses[1] - losses[0]
        if difference.mean() > 2 * difference.std() / len(labels) ** 0.5:
            choices = choices[:1]
    logits = torch.stack([choice.logits for choice in choices]).mean(dim=0)
    temperature = 1.0 if len(choices) == 1 else _temper(logits, labels, _TEMPERATURE_SPREAD)[0]
    return _Best(choices, temperature, temperature * logits)


def _best_of(kind: _Kind, parts: Sequence[tuple[Ints, Ints]], labels: Tensor) -> _Choice:
    """Return the best strength of one kind; the path ends where two were no better."""
    best: _Choice | None = None
    since = 0
    for strength, logits in zip(kind.strengths, kind.judge(parts), strict=True):
        temperature, loss = _temper(logits, labels, kind.temperature_spread)
        loss += kind.surprise(strength) / len(labels)
        if best is None or loss < best.loss:
            best, since = _Choice(kind, strength, loss, temperature, temperature * logits), 0
        else:
            since += 1
        if since == 2:
            break
    assert best is not None
    return best


def _temper(logits: Tensor, labels: Tensor, spread: float) -> tuple[float, float]:
    """Return what to multiply logits (M, classes) by, and what that costs a row, in nats.

    Args:
        logits: of the judged rows.
        labels: (M,) their classes.
        spread: standard deviation of the factor's logarithm before rows are seen; 0 for none, which is 1.
    """
    rest = 1 / (len(labels) + 2)
    own = torch.arange(len(labels), device=labels.device)

    def loss(exponent: float) -> float:
        chances = (logits * math.exp(exponent)).log_softmax(dim=1)
        return -float((1 - rest) * chances[own, labels].mean() + rest * chances.mean())

    if not spread:
        return 1.0, loss(0.0)
    found = minimize_scalar(
        lambda exponent: loss(exponent) + (exponent / spread) ** 2 / 2 / len(labels),
        bounds=(-6, 6),
        method="bounded",
        options={"xatol": 0.02},
    )
    return math.exp(found.x), float(found.fun)


@contextmanager
def _threads(work: float) -> Iterator[None]:
    """Compute on one thread meanwhile where there is little work, and keep SciPy's threads out of PyTorch's way.

    SciPy's BLAS has a pool of its own: the threads of either wait by spinning, and take the cores from the other's.
    """
    before = torch.get_num_threads()
    try:
        if work < _SMALL:
            torch.set_num_threads(1)
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
