"""A regressor."""

from typing import Any, Self

import numpy as np
from jaxtyping import Float, Float32
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils import column_or_1d

from mupc.data import Weights
from mupc.settings import ConfigError
from mupc.sklearn.estimator import Estimator


class PCRegressor(MultiOutputMixin, RegressorMixin, Estimator):
    """A deep predictive coding network that predicts numbers.

    It is trained on targets of mean 0 and variance 1, those of the first call where there are
    several, and predicts what was given. Parameters and attributes are those of `PCClassifier`,
    except for `classes_`; `validation_scores_` are negative losses.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train.

        Args:
            X: inputs, (samples, features), dense or sparse.
            y: numbers, (samples,) or (samples, outputs).
            sample_weight: how often each sample is drawn, relative to the others, (samples,).

        Raises:
            ValueError: if the data, or a parameter, is impossible.
        """
        with self._whole():
            x, y = self._checked(X, y, reset=True, multi_output=True, y_numeric=True)
            weights = self._weighted(sample_weight, x, y)
            new = not (self.warm_start and self._seen())
            return self._fit(x, self._targets(y, weights, new=new), weights)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Make one pass through some of the data, at a constant learning rate; see `fit`."""
        with self._whole():
            new = not self._seen()
            x, y = self._checked(X, y, reset=new, multi_output=True, y_numeric=True)
            weights = self._weighted(sample_weight, x, y)
            return self._partial_fit(x, self._targets(y, weights, new=new), weights)

    def predict(self, X: Any) -> Float[np.ndarray, "n ..."]:
        """Give the numbers of every sample, (samples,) or (samples, outputs) as in training."""
        output = self._predicted(X)
        numbers = self._mean + self._std * output
        return numbers[:, 0] if self._flat else numbers

    def _targets(
        self, y: Any, weights: Weights | None, *, new: bool
    ) -> Float32[np.ndarray, "n outputs"]:
        if getattr(self, "likelihood", None) in ("categorical", "bernoulli"):
            raise ConfigError("a regressor needs the likelihood gaussian or laplace")
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        numbers = np.asarray(y, np.float64).reshape(len(y), -1)
        if new:
            shares = None if weights is None else weights.values
            self._mean = np.average(numbers, axis=0, weights=shares)
            spread = np.sqrt(np.average((numbers - self._mean) ** 2, axis=0, weights=shares))
            self._std = np.where(spread > 0, spread, 1)
            self._flat = y.ndim == 1
        elif (count := numbers.shape[1]) != self._outputs:
            raise ValueError(
                f"y has {count} outputs, and the network that goes on has {self._outputs}: fit "
                "without warm_start begins a new one"
            )
        return np.asarray((numbers - self._mean) / self._std, np.float32)
