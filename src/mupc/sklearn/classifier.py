"""A classifier."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import jax
import numpy as np
from jaxtyping import Float, Float32
from scipy import sparse
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from mupc.data import Weights
from mupc.settings import ConfigError
from mupc.sklearn.estimator import Estimator
from mupc.sklearn.parameters import show_settings


class PCClassifier(ClassifierMixin, Estimator):
    r"""A deep predictive coding network that classifies.

    Trained as `mupc train` does it: residual layers under μPC, inference by Gauss–Newton, Adam.
    Targets are one-hot rows, or rows of 0 and 1 where a sample may have several labels.

    Args:
        class_weight: how often samples of each label are drawn, relative to others; `balanced`: all
            labels equally often. It is multiplied with `sample_weight`.
        early_stopping: whether to hold a part of the data out, to return the network that did best
            on it, and to end when it has not got better for a while.
        validation_fraction: the size of that part.
        n_iter_no_change: for how many epochs.
        warm_start: whether `fit` goes on from the network of the last `fit`.
        verbose: whether to print the progress of `fit`.
        random_state: draws weights, the order of the data, and the part that is held out.
        settings: any setting of network, rule, optimiser and their parts, and `epochs` and
            `batch_size`, by the names of `mupc train`, such as `depth=16, rho=0.2`. None: the
            default of the kind that is chosen, except for a depth of 8, biases, and 50 epochs.

    Attributes:
        classes_: the labels.
        network_: the trained network, a `mupc.Chain`.
        n_iter_: epochs made.
        loss_: the mean loss of the last epoch of `fit`, or of the last batch of `partial_fit`.
        loss_curve_: that of every epoch of `fit`.
        regime_: precision and regime number ρ when training began.
        validation_scores_: with `early_stopping`, the accuracy after each epoch.
        best_validation_score_: the largest of them.
    """

    def __init__(
        self,
        *,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        **parameters: Any,
    ) -> None:
        self.class_weight = class_weight
        super().__init__(**parameters)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train.

        Args:
            X: inputs, (samples, features), dense or sparse.
            y: labels, (samples,), or 0 and 1, (samples, labels).
            sample_weight: how often each sample is drawn, relative to the others, (samples,); each
                epoch draws as many as there are.

        Raises:
            ValueError: if the data, or a parameter, is impossible.
        """
        with self._whole():
            x, y = self._checked(X, y, reset=True, multi_output=True)
            weights = self._weighted(sample_weight, x, y)
            targets = self._targets(y, None, new=not (self.warm_start and self._seen()))
            return self._fit(x, targets, weights, None if self._multilabel else y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Make one pass through some of the data, at a constant learning rate.

        Args:
            X: as for `fit`.
            y: as for `fit`.
            classes: all labels that there are; the first call needs them.
            sample_weight: as for `fit`.

        Raises:
            ValueError: if the data, or a parameter, is impossible.
        """
        with self._whole():
            new = not self._seen()
            x, y = self._checked(X, y, reset=new, multi_output=True)
            if new and classes is None and y.ndim == 1:
                raise ValueError("classes must be given in the first call of partial_fit")
            known = self.classes_ if classes is None and not new else classes
            if self.class_weight == "balanced":
                raise ConfigError(
                    "class_weight balanced is of all data, which partial_fit does not see: give a "
                    "weight for each label"
                )
            weights = self._weighted(sample_weight, x, y)
            return self._partial_fit(x, self._targets(y, known, new=new), weights)

    def predict(self, X: Any) -> np.ndarray:
        """Give the most probable label of every sample, or 0 and 1 for each label."""
        proba = self.predict_proba(X)
        if self._multilabel:
            return (proba > 0.5).astype(int)
        return self.classes_[np.argmax(proba, axis=1)]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        r"""Give the probability of every label.

        For the categorical likelihood it is the softmax of the output, and for the Bernoulli one
        its logistic function, of one label a sample over their sum. A network that was trained on
        squared errors gives the probability itself, but for its error: it is the distribution
        nearest to the output, $\arg\min_p \|p - \hat y\|$ (arXiv 1101.6081, Algorithm 1).
        """
        output = self._predicted(X)
        if self._config.rule.likelihood.kind == "categorical":
            return np.asarray(jax.nn.softmax(output), np.float64)
        if self._config.rule.likelihood.kind == "bernoulli":
            each = np.asarray(jax.nn.sigmoid(output), np.float64)
            return each if self._multilabel else each / each.sum(axis=1, keepdims=True)
        # Of several labels none is certain.
        return np.clip(output, 1e-6, 1 - 1e-6) if self._multilabel else _nearest(output)

    def _weighted(self, sample_weight: Any, x: Any, y: Any) -> Weights | None:
        if self.class_weight is None:
            return super()._weighted(sample_weight, x, y)
        each = compute_sample_weight(self.class_weight, y)
        return super()._weighted(each if sample_weight is None else each * sample_weight, x, y)

    def _targets(self, y: Any, classes: Any, *, new: bool) -> Float32[np.ndarray, "n outputs"]:
        check_classification_targets(y)
        multilabel = type_of_target(y) == "multilabel-indicator"
        if multilabel:
            if getattr(self, "likelihood", None) == "categorical":
                raise ConfigError(
                    "several labels a sample need the likelihood gaussian or bernoulli"
                )
            y = y.toarray() if sparse.issparse(y) else y
            classes, targets = np.arange(y.shape[1]), np.asarray(y, np.float32)
        else:
            y = column_or_1d(y, warn=True)
            classes = np.unique(y if classes is None else classes)
            if len(unknown := np.setdiff1d(y, classes)):
                raise ValueError(f"y holds {unknown.tolist()}: the classes are {classes.tolist()}")
            targets = np.asarray(y[:, None] == classes, np.float32)
        same = new or (multilabel == self._multilabel and np.array_equal(classes, self.classes_))
        if not same:
            raise ValueError(
                f"the labels are {classes.tolist()}, and the network that goes on was trained on "
                f"{self.classes_.tolist()}: fit without warm_start begins a new one"
            )
        self.classes_, self._multilabel = classes, multilabel
        return targets


show_settings(PCClassifier, Estimator)


def _nearest(output: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Project every row on the simplex; the largest entry stays the largest."""
    # A shift of a whole row changes nothing, and keeps large numbers from drowning the sum.
    output = output - output.max(axis=1, keepdims=True)
    falling = -np.sort(-output, axis=1)
    shifts = (np.cumsum(falling, axis=1) - 1) / np.arange(1, output.shape[1] + 1)
    count = np.sum(falling > shifts, axis=1)
    return np.maximum(output - np.take_along_axis(shifts, count[:, None] - 1, axis=1), 0)
