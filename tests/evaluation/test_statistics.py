"""The statistics, against SciPy and statsmodels on random tables, and against counting by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.proportion import proportion_confint

from kit.evaluation.statistics import majority_is_right, mcnemar, paired_interval, pass_at_k, wilson

SHARES = st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(SHARES, st.floats(0.5, 0.999))
def test_wilson_agrees_with_scipy_and_statsmodels(share, confidence):
    right, total = share
    ours = wilson(right, total, confidence)
    theirs = binomtest(right, total).proportion_ci(confidence, method="wilson")
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours == pytest.approx(proportion_confint(right, total, alpha=1 - confidence, method="wilson"), abs=1e-12)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_mcnemar_agrees_with_scipy_and_statsmodels(won, lost):
    p_value = mcnemar(won, lost)
    assert p_value == mcnemar(lost, won)
    if won + lost:
        assert p_value == pytest.approx(binomtest(won, won + lost, 0.5).pvalue, abs=1e-12)
    assert p_value == pytest.approx(their_mcnemar([[5, won], [lost, 7]], exact=True).pvalue, abs=1e-12)


def test_a_paired_interval_covers_as_often_as_it_says():
    """Too where the models hardly ever disagree; there Wald's own interval has no width half of the time."""
    rng = np.random.default_rng(1)
    for won, lost, total in ((0.25, 0.1, 40), (0.02, 0.01, 200), (0.02, 0.0, 40)):
        tables = rng.multinomial(total, [won, lost, 1 - won - lost], size=4_000)
        intervals = [paired_interval(int(a), int(b), total) for a, b, _ in tables]
        assert 0.93 < np.mean([low <= won - lost <= high for low, high in intervals]) <= 1


@pytest.mark.parametrize(("samples", "right"), [(n, c) for n in range(1, 7) for c in range(n + 1)])
def test_pass_at_k_counts_the_draws(samples, right):
    replies = [True] * right + [False] * (samples - right)
    for k in range(1, samples + 1):
        draws = list(combinations(replies, k))
        assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_pass_at_k_is_unbiased_where_its_naive_form_is_not():
    """With a chance of 0.3 a sample, pass@4 is 1 - 0.7 ** 4; taking the share of 8 samples as the chance is not."""
    rng = np.random.default_rng(1)
    right = rng.binomial(8, 0.3, size=20_000)
    assert np.mean([pass_at_k(8, c, 4) for c in right]) == pytest.approx(1 - 0.7**4, abs=0.01)
    assert np.mean(1 - (1 - right / 8) ** 4) < 1 - 0.7**4 - 0.03


@given(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=1, max_size=8))
def test_majority_shares_out_one_vote(answers):
    total = sum(majority_is_right(answers, gold.__eq__) for gold in (1, 2, 3))
    assert total == pytest.approx(0 if set(answers) == {None} else 1)


@pytest.mark.parametrize("wrong", [lambda: wilson(3, 2), lambda: wilson(0, 0), lambda: pass_at_k(4, 1, 5)])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(ValueError, match=r"no share|needs at least"):
        wrong()
