"""Logistic regression by Newton's method: calibration (two weights) and the linear baseline (hundreds)."""

from __future__ import annotations

import numpy as np

_MAX_STEPS = 50
_TOLERANCE = 1e-10


def sigmoid(raw: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(raw, -60.0, 60.0)))


def fit_logistic(inputs: np.ndarray, clicked: np.ndarray, l2: float, centre: np.ndarray | None = None) -> np.ndarray:
    """Weights of the last column too, which the caller fills with ones for an intercept.

    Ridge with strength `l2` towards `centre` (zeros); the optimum is unique, so the answer is deterministic.
    Source: Hastie, Tibshirani, Friedman, ESL 2nd ed., §4.4.1 (IRLS).
    """
    goal = np.zeros(inputs.shape[1]) if centre is None else centre
    weights = goal.copy()
    for _ in range(_MAX_STEPS):
        p = sigmoid(inputs @ weights)
        gradient = inputs.T @ (p - clicked) + l2 * (weights - goal)
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + l2 * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step
        if np.abs(step).max() < _TOLERANCE:
            break
    return weights


def platt(raw: np.ndarray, clicked: np.ndarray, l2: float = 1.0) -> tuple[float, float]:
    """(a, b) of p = sigmoid(a * raw + b), drawn towards the identity, so that few clicks can't bend it far.

    Source: Platt 1999.
    """
    inputs = np.column_stack([raw, np.ones_like(raw)])
    a, b = fit_logistic(inputs, clicked, l2, centre=np.array([1.0, 0.0]))
    return float(a), float(b)
