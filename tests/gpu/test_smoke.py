"""On a CUDA machine: does the whole chain work there, with vLLM in it? Skips itself without a card.

    python -m pytest tests/gpu

Once with the demo's model, which can learn, once with a random one of exactly Qwen2.5-0.5B's shape at default
settings, and where REAL_MODEL names a folder, two steps with that. Nothing is asserted of the loss: without a KL term
it is zero by construction. vLLM is loaded some seven times for each model; on an H100 that took one to three minutes a
time, most of it compiling.
"""

import importlib.metadata
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest
import requests

from kit.storage.run_folder import RunFolder, read_jsonl
from tests.conftest import ROOT, run_script
from tests.gpu.random_model import make_random_model

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card"),
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed"),
]

REAL_MODEL = os.environ.get("REAL_MODEL", "")
STEPS = {"demo": 6, "0.5B": 6, "real": 2}
# The least share of greedy replies through vLLM that Unsloth gives too, up to the first difference. In 16 bits
# near-ties fall either way, and noise is full of them; another adapter would differ from the first token on.
AGREEMENT = {"demo": 0.85, "0.5B": 0.3, "real": 0.5}
MOST_DIFFERENCE = 0.1  # nats a token between vLLM's log-probabilities and the trainer's, of completions just written


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    run_script("-m", "demo.problems", folder / "data")
    return folder


@pytest.fixture(scope="module")
def demo_base(folder):
    run_script("-m", "demo.base", folder / "base", "--steps", "300", "--heads", 2)  # a T4's attention takes no smaller
    return folder / "base"


@pytest.fixture(scope="module", params=["demo", "0.5B", *(["real"] if REAL_MODEL else [])])
def trained(request, folder):
    """A run folder, trained with a kill -9 in the middle, exported and evaluated."""
    name, data = request.param, folder / "data"
    noise = ["--learning-rate", "1e-3", "--warmup-steps", "1", "--rewards", "tests/gpu/rewards_for_noise.py:letters"]
    if name == "demo":
        base, learning = request.getfixturevalue("demo_base"), ["--config", "tests/short.yaml"]
    elif name == "0.5B":
        base = make_random_model(folder / "random", request.getfixturevalue("demo_base"))
        learning = [*noise, "--max-completion-length", "128"]
    else:
        base, learning = REAL_MODEL, [*noise, "--max-completion-length", "48", "--num-generations", "4",
                                      "--batch-size", "4", "--gradient-accumulation-steps", "1"]  # fmt: skip
    run = RunFolder(folder / f"run-{name}")
    command = ["train_lora.py", *learning, "--vllm", "require", "--model", base, "--dataset", data / "train.jsonl",
               "--output-dir", run.path, "--max-steps", STEPS[name], "--save-steps", STEPS[name] // 2,
               "--eval-questions", 8, "--eval-every", STEPS[name] // 2]  # fmt: skip
    killed_after_a_checkpoint([sys.executable, *map(str, command)], run, STEPS[name] // 2)
    resumed = run_script(*command)
    assert f"after step {STEPS[name] // 2}" in resumed.stdout
    run_script("merge_and_export.py", run.path, "--gguf", "q8_0")
    heldout, limit = data / "heldout.jsonl", 16 if name == "real" else 64
    run_script("evaluate.py", run.path, "--dataset", heldout, "--limit", limit, "--max-completion-length", 48)
    return run, heldout


def killed_after_a_checkpoint(command, run, step):
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    while process.poll() is None and not (run.checkpoints / f"step-{step}").is_dir():
        time.sleep(0.2)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # vLLM's own processes too
    process.wait()
    assert (run.checkpoints / f"step-{step}").is_dir(), "it ended before its first checkpoint"


def test_vllm_wrote_the_completions(trained):
    run, _ = trained
    assert run.read()["machine"]["vllm"] is True
    rows = run.steps()
    assert [row["step"] for row in rows] == list(range(1, STEPS[run.path.name.removeprefix("run-")] + 1))
    assert all("sampling_difference" in row for row in rows)  # TRL has it only from vLLM's own log-probabilities


def test_the_trainers_own_vllm_answered_the_held_out_questions_too(trained):
    run, _ = trained
    name = run.path.name.removeprefix("run-")
    looked = [row["step"] for row in read_jsonl(run.metrics_file) if row.get("heldout")]
    assert looked == [0, STEPS[name] // 2, STEPS[name]]  # where it cannot, training goes on without
    first, last = (
        [row["reply"] for row in read_jsonl(run.held_out / f"{step}.jsonl")] for step in ("base", f"step-{STEPS[name]}")
    )
    assert first != last


def test_rewards_are_finite_and_spread_and_skipped_steps_are_reported(trained):
    rows = trained[0].steps()
    assert all(math.isfinite(row["reward"]) for row in rows)
    assert all(row.get("skipped") or math.isfinite(row["grad_norm"]) for row in rows)  # fp16 skips what overflows
    assert any(row["reward_std"] > 0 for row in rows)
    assert not any(alarm["name"] == "unchanged" for row in rows for alarm in row.get("alarms", []))


def test_the_adapter_changed_and_the_next_rollout_used_it(trained):
    run, _ = trained
    assert json.loads(run.export_file.read_text())["checks"]["adapter"]["trained"]["passed"]
    assert max(row["sampling_difference"] for row in run.steps()) < MOST_DIFFERENCE
    texts = {
        name: [row["reply"] for row in read_jsonl(run.path / "transcripts" / f"{name}.jsonl")]
        for name in ("base", "adapter")
    }
    changed = sum(a != b for a, b in zip(texts["base"], texts["adapter"], strict=True))
    assert changed > len(texts["base"]) / 4  # so a rollout with the old weights would show as a difference above


def test_vllm_and_unsloth_evaluate_the_same_model(trained):
    run, data = trained
    questions = 8 if run.path.name == "run-real" else 64
    said = run_script("-m", "tests.gpu.agreement", run.adapter, data, "vLLM", "transformers", questions).stdout
    assert float(said.split("AGREEMENT")[1]) >= AGREEMENT[run.path.name.removeprefix("run-")]


def test_the_export_passed_its_gate(trained):
    run, _ = trained
    assert run.merged.is_dir()
    assert list(run.gguf.glob("*.q8_0.gguf"))
    checks = json.loads(run.export_file.read_text())["checks"]
    assert {"adapter", "merged"} < set(checks)
    assert all(check["passed"] for of in checks.values() for check in of.values())


@pytest.mark.skipif(
    torch.cuda.device_count() < 2 and "IMITATED_CAPABILITY" not in os.environ, reason="there is one card"
)
def test_two_cards_make_one_run(folder, demo_base):
    """vLLM in each of two processes, the step at full length before, held-out questions answered by both."""
    run = RunFolder(folder / "two")
    done = run_script(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2, "train_lora.py", "--config",
        "tests/short.yaml", "--vllm", "require", "--model", demo_base, "--dataset", folder / "data" / "train.jsonl",
        "--output-dir", run.path, "--max-steps", 2, "--batch-size", 8, "--save-steps", 1, "--eval-questions", 8,
        env=os.environ | {"IMITATED_CARDS": "2"},
    )  # fmt: skip
    assert "vLLM generates the rollouts" in done.stdout
    assert [row["step"] for row in run.steps()] == [1, 2]
    assert len(read_jsonl(run.samples_file)) == 2 * 16
    assert max(row["sampling_difference"] for row in run.steps()) < MOST_DIFFERENCE
    assert len(read_jsonl(run.held_out / "step-2.jsonl")) == 8
    assert run.has_adapter


def test_a_server_with_two_engines_answers_for_a_model(folder, demo_base, tmp_path):
    """`vllm serve` on two cards, or in two processes of a processor, as docs/more-cards.md has it."""
    imitated = "IMITATED_CAPABILITY" in os.environ
    if not imitated and torch.cuda.device_count() < 2:
        pytest.skip("there is one card")
    data = ("--dataset", folder / "data" / "heldout.jsonl", "--limit", 60, "--max-completion-length", 48)
    run_script("evaluate.py", demo_base, *data, "--vllm", "off", "--output-dir", tmp_path / "here")
    environment = {name: value for name, value in os.environ.items() if name != "IMITATED_CAPABILITY"}
    if imitated:
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "PYTHONPATH": known_as_vllm(tmp_path / "metadata")}
    port = 20_000 + os.getpid() % 20_000
    with running(
        "-m", "vllm.entrypoints.cli.main", "serve", demo_base, "--data-parallel-size", 2, "--port", port, "--host",
        "127.0.0.1", "--dtype", "float32", "--max-model-len", 512, "--enforce-eager", env=environment,
    ) as server:  # fmt: skip
        wait_until_it_serves(f"http://127.0.0.1:{port}/health", server)
        served = run_script(
            "evaluate.py", demo_base, *data, "--server", f"http://127.0.0.1:{port}", "--output-dir", tmp_path / "there"
        )
    assert "as served" in served.stdout
    here, there = (
        {line["question"]: line["reply"] for line in read_jsonl(next((tmp_path / place / "transcripts").iterdir()))}
        for place in ("here", "there")
    )
    assert len(there) == 60
    assert sum(here[question] == there[question] for question in there) >= 58  # near-ties may fall otherwise


@contextmanager
def running(*arguments, **options):
    """A program of this interpreter in the background, with all that it starts."""
    process = subprocess.Popen([sys.executable, *map(str, arguments)], start_new_session=True, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def known_as_vllm(folder):
    """The server looks for its own version under vLLM's name, which the build for processors does not have."""
    version = f"{importlib.metadata.version('vllm-cpu')}+cpu"
    package = folder / f"vllm-{version}.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    return str(folder)


def wait_until_it_serves(address, process):
    while process.poll() is None:
        try:
            if requests.get(address, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(1)
    raise AssertionError(f"the server ended with status {process.returncode}")
