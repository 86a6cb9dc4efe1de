"""What the tests and benchmarks for cards are made of, as far as a processor can tell."""

import json

import pytest

from benchmarks.gpu import bandwidth_limit, table
from benchmarks.worker_runs import STEP_WORKER, run_worker
from kit.planning.model_shape import model_shape
from tests.gpu.random_model import make_random_model


@pytest.mark.parametrize("variant", ["kit", "bare"])
def test_both_variants_of_a_step_are_timed(chain, variant):
    sizes = ["--steps", "4", "--batch-size", "8", "--accumulation", "1", "--completion", "6"]
    figures = run_worker(STEP_WORKER, variant, chain / "base", chain / "data" / "train.jsonl", *sizes)
    assert figures["variant"] == variant, figures
    assert 0 < figures["seconds_of_generation"] < figures["seconds_a_step"]
    assert round(figures["rollout_tokens_a_second"] * figures["seconds_of_generation"]) in range(24, 97)  # 8 x 6 tokens


def test_a_run_that_fails_is_a_row_of_the_table(chain):
    failed = run_worker(STEP_WORKER, "kit", chain / "base", chain / "nowhere.jsonl")
    assert "error" in failed
    row = {"name": "kit", "cap_gib": 8.0, **failed}
    assert "UserError: --dataset" in table([row], limit=1.0)


def test_the_limit_of_bandwidth():
    shape = model_shape("unsloth/Qwen2.5-0.5B-Instruct")
    assert bandwidth_limit(shape, "Tesla T4") == pytest.approx(320e9 / (357_826_560 * 4.5 / 8 + 151936 * 896 * 2))


@pytest.mark.slow
def test_the_random_model_has_the_real_ones_shape(chain, tmp_path):
    from safetensors import safe_open

    folder = make_random_model(tmp_path / "random", chain / "base")
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert sum(weights.get_tensor(name).numel() for name in weights.keys()) == 494_032_768  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 896
    assert model_shape(str(folder)) == model_shape("unsloth/Qwen2.5-0.5B-Instruct")
