"""The model card says what a run did to the model, not only its settings."""

import ast
import json
import re

import yaml

from kit.evaluation.transcripts import transcript_file
from kit.export.model_card import write_card
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, append_jsonl
from kit.task.trained_questions import write_trained_on

WORSE = {"name": "worse than the base", "says": "It is making the model worse."}


def score(right):
    return {"questions": 100, "flexible": {"accuracy": right / 100}}


def test_held_out_answers_and_alarms_are_told(tmp_path):
    run = RunFolder(tmp_path)
    run.path.mkdir(exist_ok=True)
    trained = {
        "settings": Settings(model="m").as_config(), "data": {"questions": 900, "fingerprint": "f"}, "versions": {},
        "system_prompt": "p", "reward_weights": {}, "adapter": {"step": 10},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(trained))
    append_jsonl(
        run.metrics_file, {"step": 0, "heldout": score(18)}, {"step": 0, "heldout": score(19), "warm_start": True},
        {"step": 10, "heldout": score(20)}, {"step": 11},
        {"step": 20, "heldout": score(3), "alarms": [WORSE]}, {"step": 40, "heldout": score(2), "alarms": [WORSE]},
    )  # fmt: skip
    card = write_card(run).read_text()
    assert "Right in any form: base 18%, warm start 19%, step 10 20%, step 20 3%, step 40 2%." in card
    assert "This adapter: step 10." in card
    assert "fine-tuned with GRPO on 800 questions" in card
    assert card.count("*worse than the base*") == 1
    assert "step 20, *worse than the base*: It is making" in card
    run.write(trained | {"adapter": {"step": 0, "warm_start": True}})
    write_trained_on(run, [{"question": f"{number}?"} for number in range(790)])
    run.screen_file.write_text('{"kept": [1, 2, 3]}')
    card = write_card(run).read_text()
    assert "This adapter: warm start." in card
    assert "fine-tuned with GRPO on 3 of 790 questions" in card


def test_scores_are_of_this_run_and_say_what_was_asked(tmp_path):
    run, other = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "other")
    trained = {
        "settings": Settings(model="m").as_config(), "data": {"questions": 900, "fingerprint": "f"}, "versions": {},
        "system_prompt": "p", "reward_weights": {},
    }  # fmt: skip
    for each in (run, other):
        each.path.mkdir()
        each.write(trained)
    run.transcripts.mkdir()
    run.adapter.mkdir()
    share = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
    rows = [
        {"name": name, "path": str(path), "engine": "transformers", "questions": 2, "made_by": name,
         "precision": "float32", "format_rate": 1.0, "strict": share, "flexible": share}
        for name, path in {"base": "m", "adapter": run.adapter, "other-adapter": other.adapter}.items()
    ]  # fmt: skip
    for row in rows:
        line = {"made_by": row["name"], "question": "q", "gold": "1", "reply": "", "strict": False, "flexible": False}
        append_jsonl(transcript_file(run.path, row["name"]), *({"index": place, **line} for place in range(2)))
    cautions = {"one": ["Beware."], "other": ["It was trained on these."]}
    scores = {"rows": rows, "cautions": cautions, "dataset": "openai/gsm8k", "split": "test", "settings": {}}
    run.scores_file.write_text(json.dumps(scores))
    card = write_card(run).read_text()
    assert "2 questions (`openai/gsm8k`, test), one greedy answer each" in card
    assert "| adapter | 50.0" in card
    assert "other-adapter" not in card
    assert "- Beware." in card
    assert "It was trained on these." not in card


def test_a_run_that_measured_nothing_says_nothing_of_it_and_its_python_can_be_read(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump({"settings": Settings(model="m").as_config(), "data": {"questions": 9, "fingerprint": "f"},
                        "versions": {}, "system_prompt": "p 😀", "reward_weights": {}})
    )  # fmt: skip
    card = write_card(run).read_text(encoding="utf-8")
    assert "How training went" not in card
    (python,) = re.findall(r"```python\n(.*?)```", card, re.S)
    ast.parse(python)
    assert '"p 😀"' in python  # in JSON's escape, Python reads two halves of a character
