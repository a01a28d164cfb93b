"""One-vs-rest logistic regression, solved for many classes in parallel.

Only NumPy: importing an optimiser would take longer than the optimisation. This module has its own threads, each for some of
the classes. NumPy gets one thread: its rounding depends on their number, and more are slower on small matrices.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

# A constant, independent of the threads: rounding depends on it. Enough columns for fast matrix products.
_CLASSES_AT_A_TIME = 32
_NEWTON_STEPS = 30
_CONJUGATE_STEPS = 40
_TOLERANCE = 1e-4


def solve_regressions(
    inputs: NDArray[np.float32], membership: NDArray[np.bool_], penalty: float, *, threads: int
) -> NDArray[np.float32]:
    """Weights float32[K + 1, C] for inputs float32[N, K + 1] whose last column is 1; the bias is the last row.

    Each class minimises the mean logistic loss, with equal total weight for positives (membership bool[N, C]) and negatives,
    plus the penalty `penalty / 2 * |weights|²`; the bias has no penalty.
    """
    blocks = [membership[:, start : start + _CLASSES_AT_A_TIME] for start in range(0, membership.shape[1], _CLASSES_AT_A_TIME)]
    if len(blocks) == 1:
        return _Regression(inputs, blocks[0], penalty).solve()
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(lambda block: _Regression(inputs, block, penalty).solve(), blocks)), axis=1)


class _Regression:
    """Logistic regressions that share their inputs, one for each class, solved in parallel.

    The method is Newton's with conjugate gradients (truncated Newton, Nocedal and Wright, Numerical Optimization, section 7.1)
    and step halving; its work is products of whole matrices.
    """

    def __init__(self, inputs: NDArray[np.float32], membership: NDArray[np.bool_], penalty: float) -> None:
        self._inputs = inputs
        self._targets = np.where(membership, np.float32(1), np.float32(-1))
        # Some folds may have no images of a class, if its few images are near duplicates of each other.
        positives = np.maximum(membership.sum(axis=0), 1)
        negatives = np.maximum((~membership).sum(axis=0), 1)
        self._importance = np.where(membership, 0.5 / positives, 0.5 / negatives).astype(np.float32)
        self._penalties = np.full((inputs.shape[1], 1), penalty, dtype=np.float32)
        self._penalties[-1] = 0

    def solve(self) -> NDArray[np.float32]:
        """float32[D + 1, C]: the bias is the last row."""
        weights = np.zeros((self._inputs.shape[1], self._targets.shape[1]), dtype=np.float32)
        margins = np.zeros(self._targets.shape, dtype=np.float32)
        first_norm: NDArray[np.float32] | None = None
        for _ in range(_NEWTON_STEPS):
            probability = _sigmoid(-self._targets * margins)
            gradient = self._inputs.T @ (-self._importance * self._targets * probability) + self._penalties * weights
            norm = np.sqrt((gradient * gradient).sum(axis=0))
            first_norm = norm if first_norm is None else first_norm
            if (norm <= _TOLERANCE * first_norm).all():
                break
            # Less accurate far from the solution.
            accuracy = np.minimum(np.float32(0.1), np.sqrt(norm / np.maximum(first_norm, 1e-30)))
            step = self._newton_step(gradient, self._importance * probability * (1 - probability), accuracy)
            moved = self._inputs @ step
            size = self._step_size(weights, margins, step, moved, gradient)
            weights += size * step
            margins += size * moved
        return weights

    def _newton_step(
        self, gradient: NDArray[np.float32], curvature: NDArray[np.float32], accuracy: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Conjugate gradients on `hessian @ step = -gradient`, all classes in parallel, to a relative residual [C]."""
        step = np.zeros_like(gradient)
        residual = -gradient
        direction = residual.copy()
        square = (residual * residual).sum(axis=0)
        goal = square * accuracy * accuracy
        for _ in range(_CONJUGATE_STEPS):
            open_classes = square > goal
            if not open_classes.any():
                break
            product = self._inputs.T @ (curvature * (self._inputs @ direction)) + self._penalties * direction
            slope = (direction * product).sum(axis=0)
            length = np.where(open_classes & (slope > 0), square / np.where(slope > 0, slope, 1), 0).astype(np.float32)
            step += length * direction
            residual -= length * product
            new_square = (residual * residual).sum(axis=0)
            direction = (
                residual + np.where(open_classes, new_square / np.maximum(square, 1e-30), 0).astype(np.float32) * direction
            )
            square = np.where(open_classes, new_square, square)
        return step

    def _step_size(
        self,
        weights: NDArray[np.float32],
        margins: NDArray[np.float32],
        step: NDArray[np.float32],
        moved: NDArray[np.float32],
        gradient: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """float32[C]: 1, halved until the loss falls enough (Armijo); 0 where rounding prevents a lower loss."""
        before = self._loss(weights, margins)
        expected = (gradient * step).sum(axis=0)
        size = np.ones(weights.shape[1], dtype=np.float32)
        for _ in range(12):
            too_far = (
                self._loss(weights + size * step, margins + size * moved) > before + 1e-4 * size * expected + 1e-7 * before
            )
            if not too_far.any():
                return size
            size = np.where(too_far, size / 2, size)
        return np.where(too_far, np.float32(0), size)

    def _loss(self, weights: NDArray[np.float32], margins: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[C]: near the solution losses differ by less than the rounding of a sum of thousands of float32 numbers."""
        losses = np.logaddexp(np.float32(0), -self._targets * margins)
        total: NDArray[np.float64] = (self._importance * losses).sum(axis=0, dtype=np.float64)
        total += 0.5 * (self._penalties * weights * weights).sum(axis=0, dtype=np.float64)
        return total


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(1) / (np.float32(1) + np.exp(-np.clip(values, -80, 80)))
