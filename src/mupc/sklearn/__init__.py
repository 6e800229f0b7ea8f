"""Estimators for scikit-learn: predictive coding networks in pipelines and grid searches.

They take and give what scikit-learn's own estimators do, and pass its `check_estimator`. Scale the
inputs, as for any network: `make_pipeline(StandardScaler(), PCClassifier())`.
"""

from mupc.sklearn.classifier import PCClassifier as PCClassifier
from mupc.sklearn.regressor import PCRegressor as PCRegressor
