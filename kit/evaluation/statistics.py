"""How sure is a score? Interval, paired test, and what several samples a question say.

Pure Python, exact where it can be, checked against SciPy and statsmodels in ``tests/evaluation/test_statistics.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from math import comb, sqrt
from statistics import NormalDist
from typing import Any


def wilson(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share, as (low, high) in 0 to 1.

    It stays inside 0 to 1 and keeps its coverage for shares near the ends and for few questions (E. B. Wilson, 1927).

    >>> low, high = wilson(65, 132)
    >>> f"{low:.3f} to {high:.3f}"
    '0.409 to 0.577'

    Raises:
        ValueError: ``total`` is not positive, or ``right`` is not between 0 and ``total``.
    """
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} right of {total} is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * sqrt(share * (1 - share) / total + spread / (4 * total))
    return (0.0 if right == 0 else middle - half), (1.0 if right == total else middle + half)


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided p-value of McNemar's test, from the questions on which two models disagree.

    How often would two equally good models split ``won + lost`` disagreements at least as unevenly as this? Questions
    that both get right, or both wrong, say nothing about the difference (Q. McNemar, 1947; exact binomial form).

    >>> mcnemar(8, 1)
    0.0390625
    """
    disagreements = won + lost
    tail = sum(comb(disagreements, count) for count in range(min(won, lost) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**disagreements)))


def paired_interval(won: int, lost: int, total: int) -> tuple[float, float]:
    """95 % interval for a difference of two shares of the same ``total`` questions, as (low, high) in -1 to 1.

    Wald's, after half a question is added to each cell of the paired table: it keeps its coverage for few questions,
    and has a width where no two models disagree (A. Agresti and Y. Min, 2005).

    >>> low, high = paired_interval(won=9, lost=3, total=40)
    >>> f"{low:+.2f} to {high:+.2f}"
    '-0.02 to +0.31'
    """
    z = NormalDist().inv_cdf(0.975)
    difference, disagreements, cells = won - lost, won + lost + 1, total + 2
    half = z * sqrt(disagreements - difference**2 / cells) / cells
    return max(difference / cells - half, -1.0), min(difference / cells + half, 1.0)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that at least one of ``k`` of the ``samples`` replies, drawn without putting back, is right.

    The unbiased estimator of Chen et al., "Evaluating Large Language Models Trained on Code" (2021).

    >>> pass_at_k(samples=4, right=1, k=2)
    0.5

    Raises:
        ValueError: ``k`` is not between 1 and ``samples``.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}")
    return float(1 - Fraction(comb(samples - right, k), comb(samples, k)))


def majority_is_right(answers: Sequence[Hashable | None], is_right: Callable[[Any], bool]) -> float:
    """maj@k for one question: is the most frequent answer a right one? ``None`` stands for no readable answer.

    Among answers that are equally frequent one is picked at random, so a tie counts as the chance of the pick.

    >>> majority_is_right([7, 7, 9, None], (7).__eq__), majority_is_right([7, 9], (7).__eq__)
    (1.0, 0.5)
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    first = [answer for answer, count in votes.items() if count == most]
    return sum(map(is_right, first)) / len(first)
