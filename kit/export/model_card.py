"""The model card: README.md in the Hub's form, with the scoreboard, the recipe, and commands to paste."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from kit.evaluation.cautions import called
from kit.evaluation.run_scores import own_scores
from kit.evaluation.score_tables import markdown_table
from kit.export.evidence import example_question
from kit.export.modelfile import gguf_of, ollama_name
from kit.storage.atomic import write_whole
from kit.storage.hub import is_remote
from kit.storage.run_folder import RunFolder, read_jsonl
from kit.storage.run_rows import policy_of
from kit.task.trained_questions import number_trained_on

_GREEDY = '{"temperature": 0}'


def write_card(run: RunFolder, repository: str | None = None) -> Path:
    """Write the run folder's README.md from run.yaml, export.json and, where there is one, scores.json.

    Args:
        run: a run folder with ``merged/``.
        repository: the Hub repository that the commands name; without one they name the run folder's own paths.
    """
    trained = run.read()
    export = run.exported()
    parts = [
        _front_matter(trained),
        f"# {run.path.resolve().name}",
        _about(run, trained),
        _scores(run),
        _files(export),
        _commands(run, trained, repository),
        _recipe(trained),
        _how_it_went(run, trained),
    ]
    card = run.model_card
    write_whole(card, "\n\n".join(part for part in parts if part) + "\n")
    return card


def _front_matter(trained: dict[str, Any]) -> str:
    model, dataset = trained["settings"]["model"], trained["settings"].get("dataset", "")
    about: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gguf"] if "adopted" in trained else ["grpo", "trl", "unsloth", "gguf"],
    }
    about |= {"base_model": model} if is_remote(model) else {}
    about |= {"datasets": [dataset]} if is_remote(dataset) else {}
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---"


def _screened(run: RunFolder) -> int | None:
    """How many questions ``--screen`` kept, where it was used."""
    if not run.screen_file.exists():
        return None
    return len(json.loads(run.screen_file.read_text(encoding="utf-8"))["kept"])


def _about(run: RunFolder, trained: dict[str, Any]) -> str:
    settings = trained["settings"]
    base = settings["model"] if is_remote(settings["model"]) else Path(settings["model"]).name
    prompt = f"\n\n```text\n{trained['system_prompt']}\n```"
    if "adopted" in trained:
        return f"`{base}` with an adapter that was trained elsewhere. Its scores are with this system prompt:{prompt}"
    data, steps = trained["data"], trained.get("adapter", {}).get("step", settings["max_steps"])
    questions = number_trained_on(run)
    if questions is None:  # a run of an older kit
        questions = data["questions"] - settings.get("eval_questions", 0)
    screened = _screened(run)
    kept = f"{screened} of " if screened is not None else ""
    warm = trained.get("warm_start", {})
    start = f", after a warm start on {warm['learned_from']} of its own replies in format" if warm.get("done") else ""
    return (
        f"`{base}` fine-tuned with GRPO on {kept}{questions} questions (fingerprint `{data['fingerprint']}`) for "
        f"{steps} steps{start}. It was trained with this system prompt and needs it:{prompt}"
    )


def _scores(run: RunFolder) -> str:
    if not (scores := own_scores(run)):
        return ""
    count, asked = scores["rows"][0]["questions"], f"`{called(scores['dataset'])}`, {scores['split']}"
    remarks = "".join(f"\n- {remark}" for remark in scores["remarks"])
    return (
        f"## Scores\n\n{count} questions ({asked}), one greedy answer each, the same prompt and grader for all; "
        f"percent right with 95 % intervals.\n\n{markdown_table(scores)}{chr(10) + remarks if remarks else ''}"
    )


def _files(export: dict[str, Any]) -> str:
    if not export.get("gguf"):
        return ""
    lines = ["## GGUF files", "", "| file | MB | bits per weight | mean KL from f16, nats |", "|---|---|---|---|"]
    for entry in export["gguf"].values():
        divergence = entry.get("mean_kl_from_f16")
        shown = "" if divergence is None else f"{divergence:.4f}"
        bits = f"{entry['bits_per_weight']:.2f}" if "bits_per_weight" in entry else "adapter alone"
        bits += ", by importance matrix" if "imatrix" in entry else ""
        lines.append(f"| {entry['file']} | {entry['bytes'] / 1e6:.0f} | {bits} | {shown} |")
    return "\n".join(lines)


def _commands(run: RunFolder, trained: dict[str, Any], repository: str | None) -> str:
    merged = repository or str(run.merged)
    name = ollama_name(run.path.resolve().name)
    prompt = json.dumps(trained["system_prompt"], ensure_ascii=False)  # JSON's escape would be half a character
    length = trained["settings"]["max_completion_length"]
    question = example_question(trained)
    said = shlex.quote(question)
    python = (
        "from transformers import pipeline\n\n"
        f'ask = pipeline("text-generation", {json.dumps(merged)})\n'
        f'messages = [{{"role": "system", "content": {prompt}}},\n'
        f'            {{"role": "user", "content": {json.dumps(question, ensure_ascii=False)}}}]\n'
        f'print(ask(messages, max_new_tokens={length}, do_sample=False)[0]["generated_text"][-1]["content"])'
    )
    blocks = [
        f"## Use\n\ntransformers:\n\n```python\n{python}\n```",
        "vLLM, greedy as scored:\n\n"
        f"```bash\nvllm serve {shlex.quote(merged)} --override-generation-config '{_GREEDY}'\n```",
    ]
    gguf = gguf_of(run)
    if gguf:
        file = shlex.quote(gguf)
        fetch = f"hf download {repository} {file} Modelfile --local-dir .\n"
        where = fetch if repository else f"cd {shlex.quote(str(run.gguf))}\n"
        asked = trained["system_prompt"].replace("'", "'\\''")
        blocks.append(f"llama.cpp:\n\n```bash\n{where}llama-cli -m {file} --temp 0 -st -sys '{asked}' -p {said}\n```")
        blocks.append(
            "Ollama (the Modelfile sets system prompt, template, stop token and temperature 0):\n\n"
            f"```bash\n{where}ollama create {name} -f Modelfile\n"
            f"ollama run {name} {said}\n```"
        )
    if run.adapter_gguf.exists():
        file = shlex.quote(run.adapter_gguf.name)
        blocks.append(
            "llama.cpp, the adapter alone on a GGUF of the base (Ollama: `Modelfile.adapter` names both):\n\n"
            f"```bash\nllama-server -m BASE.gguf --lora {file}\n```"
        )
    return "\n\n".join(blocks)


def _recipe(trained: dict[str, Any]) -> str:
    if "adopted" in trained:
        return ""
    keep = ("learning_rate", "lora_rank", "lora_alpha", "num_generations", "temperature", "beta", "seed")
    settings = {name: trained["settings"][name] for name in keep if name in trained["settings"]}
    facts = settings | {"rewards": trained["reward_weights"], "versions": trained["versions"]}
    return f"## Training\n\n```yaml\n{yaml.safe_dump(facts, sort_keys=False)}```"


def _how_it_went(run: RunFolder, trained: dict[str, Any]) -> str:
    """The held-out answers of the run, and each alarm that it raised, once."""
    rows = read_jsonl(run.metrics_file)
    scores = [(policy_of(row), row["heldout"]) for row in rows if row.get("heldout")]
    alarms = {alarm["name"]: (row["step"], alarm["says"]) for row in rows[::-1] for alarm in row.get("alarms", [])}
    lines = [f"- step {step}, *{name}*: {says}" for name, (step, says) in list(alarms.items())[::-1]]
    if scores:
        right = ", ".join(f"{policy} {score['flexible']['accuracy']:.0%}" for policy, score in scores)
        kept = policy_of(trained["adapter"]) if "adapter" in trained else scores[-1][0]
        lines.insert(
            0,
            f"{scores[0][1]['questions']} questions of the training data were set aside. Right in any form: {right}. "
            f"This adapter: {kept}.\n",
        )
    return "\n".join(["## How training went", "", *lines]) if lines else ""
