"""How good are predictions? Normalised entropy, calibration, and the interval of a difference.

Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, §2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EDGE = 1e-9


def log_losses(p: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """Loss of each row, in nats."""
    p = np.clip(p, _EDGE, 1 - _EDGE)
    return -(clicked * np.log(p) + (1 - clicked) * np.log(1 - p))


def normalised_entropy(p: np.ndarray, clicked: np.ndarray) -> float:
    """Mean log loss over that of always predicting these rows' own click rate: below 1 is better than knowing the rate.

    Example:
        >>> normalised_entropy(np.full(4, 0.25), np.array([1.0, 0.0, 0.0, 0.0]))
        1.0
    """
    return float(log_losses(p, clicked).mean() / _entropy(clicked.mean()))


def calibration(p: np.ndarray, clicked: np.ndarray) -> float:
    """Predicted clicks over observed clicks; 1 is right."""
    return float(p.sum() / clicked.sum())


def _entropy(rate: float) -> float:
    return float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the bounds of its interval."""

    value: float
    low: float
    high: float


def entropy_difference(
    p: np.ndarray, reference: np.ndarray, clicked: np.ndarray, rounds: int, confidence: float, seed: int
) -> Interval:
    """Normalised entropy of `p` less that of `reference` on the same rows; negative means that `p` is better.

    A paired bootstrap of rows, with the rate of the rows themselves: both models see the same draw.
    """
    difference = log_losses(p, clicked) - log_losses(reference, clicked)
    rng = np.random.default_rng(seed)
    drawn = np.empty(rounds)
    for i in range(rounds):
        rows = rng.integers(0, len(clicked), len(clicked))
        rate = np.clip(clicked[rows].mean(), 1 / len(clicked), 1 - 1 / len(clicked))
        drawn[i] = difference[rows].mean() / _entropy(rate)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(difference.mean() / _entropy(clicked.mean())), float(low), float(high))
