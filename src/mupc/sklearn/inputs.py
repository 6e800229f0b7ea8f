"""The inputs and targets that estimators are given, as arrays that networks take."""

from typing import Any, cast

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from mupc.data import Weights


def checked(
    estimator: BaseEstimator, X: Any, y: Any, *, images: bool, reset: bool, **options: Any
) -> tuple[np.ndarray, ...]:
    """Return X, and y if it is given, as dense arrays of finite numbers.

    Args:
        estimator: learns or knows the number of features.
        X: rows, (samples, features), or images, (samples, height, width, channels).
        y: targets; None in prediction.
        images: whether X are images.
        reset: whether the estimator learns.
        options: for scikit-learn's `validate_data`.

    Raises:
        ValueError: if they are something else.
    """
    given = {"X": X} if y is None and not reset else {"X": X, "y": y}
    form = {"allow_nd": True} if images else {"accept_sparse": "csr"}
    validate: Any = validate_data
    seen: Any = validate(estimator, **given, **form, dtype=np.float32, reset=reset, **options)
    x, *rest = (seen,) if isinstance(seen, np.ndarray) or sparse.issparse(seen) else seen
    x = cast(Any, x).toarray() if sparse.issparse(x) else x
    if images and x.ndim != 4:
        raise ValueError(
            f"this network takes images, (samples, height, width, channels), and X has shape "
            f"{x.shape}"
        )
    return (x, *rest)


def as_weights(sample_weight: Any, samples: int) -> Weights | None:
    """Return the weights of samples; None if there are none.

    Raises:
        ValueError: if they are not numbers of at least 0, one for each sample.
    """
    if sample_weight is None:
        return None
    given = np.asarray(sample_weight)
    given = np.full(samples, given) if given.ndim == 0 else given
    check: Any = check_array
    weights = check(given, ensure_2d=False, dtype=np.float64)
    if len(weights) != samples:
        raise ValueError(f"sample_weight has {len(weights)} numbers for {samples} samples")
    return Weights(weights)
