"""The heads that anybody would fit on features, each on all labelled rows; choices by cross-validation within them.

What makes them finish, and changes little or nothing of what they find:

- Features are turned into the space that the labelled rows span, which has fewer dimensions where they are few: exact
  for all that penalises the squared norm of a linear layer.
- Logistic regression goes from the strongest regularisation to weaker ones and stops when the log loss of its
  five folds has risen; ``ITERATIONS`` at most for each, in float32.
- With more than ``MANY`` classes the grid is twice as coarse, and C is judged on the first two folds alone.

Where every class has one image nothing can be held out: then C is 1, scikit-learn's default, and k-NN takes one.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from sagitta.training import fit_either, worth_a_look

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

FOLDS, ITERATIONS, MANY = 5, 100, 50
STRENGTHS = {  # scikit-learn's C
    "standardised": tuple(10.0**exponent for exponent in np.arange(-4, 2.1, 0.5)),
    "unit": tuple(10.0**exponent for exponent in np.arange(-1, 4.1, 0.5)),
}
ALPHAS = tuple(10.0**exponent for exponent in np.arange(-1, 6.1, 0.5))
NEIGHBOURS = (1, 3, 5, 10, 20)


@dataclass(frozen=True)
class Answer:
    """What a head says of the test rows.

    Attributes:
        classes: (T,) the predicted ones.
        log_probabilities: (T, classes), or None where the head has none.
        chosen: what cross-validation chose, if anything.
    """

    classes: Ints
    log_probabilities: npt.NDArray[Any] | None = None
    chosen: float | str | None = None


@dataclass(frozen=True)
class Task:
    """Labelled rows and test rows, in the same features: (N, D), (N,), (T, D).

    Attributes:
        features: of the labelled rows.
        labels: theirs.
        test: features of the test rows.
        stages: (N, S) and (T, S), what a network's stages give, at which Sagitta's head looks, too.
        widths: of each stage.
    """

    features: Floats
    labels: Ints
    test: Floats
    stages: tuple[Floats, Floats] | None = None
    widths: tuple[int, ...] = ()


def standardised(task: Task) -> Task:
    """Return each feature with mean 0 and deviation 1 over the labelled rows."""
    mean, scale = task.features.mean(axis=0), task.features.std(axis=0)
    scale[scale < 1e-6] = 1
    return Task((task.features - mean) / scale, task.labels, (task.test - mean) / scale)


def unit(task: Task) -> Task:
    """Return every row with length 1."""

    def scaled(rows: Floats) -> Floats:
        result: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return result

    return Task(scaled(task.features), task.labels, scaled(task.test))


def turned(task: Task) -> Task:
    """Return centred coordinates along the directions of the labelled rows, where these are fewer than the features.

    What is left out of test rows is orthogonal to all labelled rows.
    """
    if len(task.features) > task.features.shape[1]:
        return task
    mean = task.features.mean(axis=0)
    axes = np.linalg.svd(task.features - mean, full_matrices=False)[2].T
    return Task((task.features - mean) @ axes, task.labels, (task.test - mean) @ axes)


def folds(labels: Ints, seed: int = 0) -> Ints:
    """Return a fold of ``FOLDS`` for each row: the rows of a class are dealt out in turn, so no two meet needlessly."""
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    dealt = np.empty(len(labels), np.int64)
    dealt[order] = np.arange(len(labels)) % FOLDS
    return dealt


def logistic(kind: str) -> Callable[[Task], Answer]:
    """Return multinomial logistic regression on ``standardised`` or ``unit`` features."""

    def fit(task: Task) -> Answer:
        task = turned({"standardised": standardised, "unit": unit}[kind](task))
        strength = _strength(task, STRENGTHS[kind][:: 2 if task.labels.max() >= MANY else 1])
        model = _logistic(strength).fit(task.features, task.labels)
        outputs = _log_softmax(_scores(model, task.test))
        return Answer(outputs.argmax(axis=1), outputs, strength)

    return fit


def _logistic(strength: float) -> Any:
    return LogisticRegression(C=strength, max_iter=ITERATIONS, warm_start=True)


def _strength(task: Task, strengths: tuple[float, ...]) -> float:
    """Return the C of least log loss on rows left out, of those classes that the other folds know."""
    if np.bincount(task.labels).max() < 2:
        return 1.0
    dealt = folds(task.labels)
    parts = [np.flatnonzero(dealt == fold) for fold in range(2 if task.labels.max() >= MANY else FOLDS)]
    models = [_logistic(strengths[0]) for _ in parts]
    losses: list[float] = []
    for strength in strengths:
        judged = []
        for model, left_out in zip(models, parts, strict=True):
            rest = np.setdiff1d(np.arange(len(task.labels)), left_out)
            model.C = strength
            model.fit(task.features[rest], task.labels[rest])
            known = left_out[np.isin(task.labels[left_out], model.classes_)]
            outputs = _log_softmax(_scores(model, task.features[known]))
            judged.append(-outputs[np.arange(len(known)), np.searchsorted(model.classes_, task.labels[known])])
        losses.append(float(np.concatenate(judged).mean()))
        if losses[-1] > min(losses):
            break
    return float(strengths[int(np.argmin(losses))])


def _scores(model: Any, rows: Floats) -> npt.NDArray[Any]:
    scores: npt.NDArray[Any] = model.decision_function(rows)
    return scores if scores.ndim == 2 else np.stack([-scores / 2, scores / 2], axis=1)


def _log_softmax(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    outputs: npt.NDArray[Any] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return outputs


def ridge(task: Task) -> Answer:
    """Return ridge regression on the classes; its strength by leaving one out, in closed form."""
    task = turned(standardised(task))
    model = RidgeClassifierCV(alphas=ALPHAS).fit(task.features.astype(np.float64), task.labels)
    return Answer(model.predict(task.test.astype(np.float64)), chosen=float(model.alpha_))


def discriminant(task: Task) -> Answer:
    """Return linear discriminant analysis whose covariance is shrunk as Ledoit and Wolf say.

    This is scikit-learn's ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")``: the mean of the classes'
    covariances, each shrunk towards its diagonal. That is a diagonal and as many directions as there are rows, so with
    fewer rows than features the equations are solved among the rows (Woodbury): the same in a tenth of the time.
    """
    task = standardised(task)
    rows, count = task.features.astype(np.float64), len(task.labels)
    means = np.stack([rows[task.labels == label].mean(axis=0) for label in range(int(task.labels.max()) + 1)])
    diagonal, spread = np.zeros(rows.shape[1]), rows - means[task.labels]
    for label in range(len(means)):
        own = task.labels == label
        shrinkage, target = _ledoit_wolf(spread[own])
        diagonal += own.mean() * shrinkage * target
        spread[own] *= np.sqrt((1 - shrinkage) / count)
    if not diagonal.all():
        raise ValueError("singular: no class has three images, so no covariance is shrunk")
    if count < rows.shape[1]:
        scaled, wide = means / diagonal, spread / diagonal
        weights = scaled - np.linalg.solve(np.eye(count) + wide @ spread.T, spread @ scaled.T).T @ wide
    else:
        weights = np.linalg.solve(spread.T @ spread + np.diag(diagonal), means.T).T
    biases = np.log(np.bincount(task.labels) / count) - 0.5 * (weights * means).sum(axis=1)
    outputs = _log_softmax(task.test.astype(np.float64) @ weights.T + biases)
    return Answer(outputs.argmax(axis=1), outputs)


def _ledoit_wolf(centred: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
    """Return how much of a class's covariance becomes its diagonal, and that diagonal (Ledoit and Wolf 2004)."""
    count, dimensions = centred.shape
    scale = centred.std(axis=0)
    scale[scale < 10 * np.finfo(np.float64).eps] = 1
    rows = centred / scale
    squares = (rows**2).sum(axis=1)
    mean = squares.sum() / count / dimensions
    square = ((rows @ rows.T) ** 2).sum() / count**2
    noise = ((squares**2).sum() / count - square) / count
    distance = square - dimensions * mean**2
    return (min(noise, distance) / distance if min(noise, distance) > 0 else 0.0), mean * scale**2


def nearest_mean(task: Task) -> Answer:
    """Return the class whose mean is nearest, of rows of length 1."""
    task = unit(task)
    return Answer(NearestCentroid().fit(task.features, task.labels).predict(task.test))


def neighbours(task: Task) -> Answer:
    """Return the vote of the nearest rows, of length 1; how many, by cross-validation."""
    task, dealt = unit(task), folds(task.labels)
    right = dict.fromkeys(NEIGHBOURS if np.bincount(task.labels).max() > 1 else NEIGHBOURS[:1], 0)
    for count in right if len(right) > 1 else ():
        for fold in range(FOLDS):
            rest, left_out = dealt != fold, dealt == fold
            if left_out.any() and rest.sum() >= count:
                model = KNeighborsClassifier(count).fit(task.features[rest], task.labels[rest])
                right[count] += int((model.predict(task.features[left_out]) == task.labels[left_out]).sum())
    count = max(right, key=lambda count: right[count])
    model = KNeighborsClassifier(count).fit(task.features, task.labels)
    return Answer(model.predict(task.test), chosen=count)


def ours(task: Task) -> Answer:
    """Return Sagitta's head: the one place that knows how it is called."""
    (rows, columns), classes = task.features.shape, int(task.labels.max()) + 1
    vectors, test, widths = task.features.copy(), task.test, task.widths
    if task.stages is not None and widths and worth_a_look(rows, columns, classes):
        vectors, test = (np.concatenate(parts, axis=1) for parts in zip(task.stages, (vectors, test), strict=True))
    else:
        widths = ()
    head = fit_either(vectors, task.labels, widths, classes)
    outputs = _log_softmax(test[:, -head.weight.shape[1] :] @ head.weight.T + head.bias)
    return Answer(outputs.argmax(axis=1), outputs, head.method)


OURS = "Sagitta"
PEERS: dict[str, Callable[[Task], Answer]] = {
    "logistic, standardised": logistic("standardised"),
    "logistic, unit length": logistic("unit"),
    "ridge": ridge,
    "LDA, shrinkage": discriminant,
    "nearest class mean": nearest_mean,
    "k-NN": neighbours,
}
HEADS = {OURS: ours, **PEERS}


def judge(name: str, task: Task, truth: Ints) -> dict[str, Any]:
    """Fit a head; returns accuracy, log loss (nats) if it has probabilities, CPU seconds; or why there is none."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations that did not suffice, and classes of one image
        try:
            answer = HEADS[name](task)
        except (ValueError, ZeroDivisionError, np.linalg.LinAlgError) as error:
            return {"error": str(error).splitlines()[0][:120]}
    found: dict[str, Any] = {
        "acc": round(float((answer.classes == truth).mean()), 5),
        "cpu": round(time.process_time() - began, 3),
    }
    if answer.log_probabilities is not None:
        chosen = answer.log_probabilities[np.arange(len(truth)), truth]
        found["loss"] = round(float(-np.maximum(chosen, np.log(1e-12)).mean()), 5)
    if answer.chosen is not None:
        found["chosen"] = round(answer.chosen, 6) if isinstance(answer.chosen, float) else answer.chosen
    return found
