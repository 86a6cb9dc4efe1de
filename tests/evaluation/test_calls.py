"""What a call of evaluate.py means: which rows, asked how, compared with what. Nothing answers here."""

import errno
import json
import re
import sys
from itertools import chain

import pytest

import evaluate
from kit.cli.errors import UserError
from kit.evaluation.call import baseline_of, check_everything
from kit.evaluation.cautions import cautions, of_exports
from kit.evaluation.failures import explained
from kit.numbers.reading import use_decimal_mark
from kit.storage.atomic import file_hash
from kit.storage.run_folder import RunFolder, append_jsonl
from kit.task.prompt_length import reckoned_prompt_length
from kit.task.questions import fingerprint
from kit.task.task import take_task
from kit.task.trained_questions import write_trained_on
from tests.generation.test_artefacts import adapter, model

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture
def called(tmp_path, monkeypatch):
    """``called(*arguments)`` is what ``check_everything`` makes of a command line."""
    (tmp_path / "q.jsonl").write_text('{"question": "7 / 2?", "answer": "3,5"}\n')
    base = model(tmp_path / "base")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    for name, settings in {"one": {}, "other": {"max_completion_length": 64}, "begun": {}}.items():
        run = RunFolder(tmp_path / name)
        if name != "begun":
            adapter(run.adapter, base)
            adapter(run.warm_start, base)
            adapter(run.checkpoints / "step-50", base)
        run.path.mkdir(exist_ok=True)
        settings = {"model": str(base), "decimal_mark": "comma", "max_completion_length": 200} | settings
        run.write({"settings": settings, "system_prompt": "Be brief."})

    def check(*arguments):
        paths = [str(tmp_path / argument) if (tmp_path / argument).exists() else argument for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--dataset", str(tmp_path / "q.jsonl"), *paths])
        args = evaluate.read_arguments()
        return args, *check_everything(args)

    yield check
    use_decimal_mark("point")
    take_task("gsm8k")


def test_a_checkpoint_and_a_warm_start_never_take_the_place_of_the_adapter(called):
    for path, name in {
        "one/adapter": "adapter",
        "one/warm_start": "warm_start",
        "one/checkpoints/step-50": "step-50",
    }.items():
        _, (artefact,), *_ = called(path)
        assert artefact.name == name


def test_a_run_without_an_adapter_is_a_baseline_by_its_base(called):
    args, artefacts, *_ = called("one", "--baseline", "begun")
    assert baseline_of(args, artefacts) == "base"
    assert baseline_of(called("one")[0], artefacts) is None


@pytest.fixture
def told(called):
    """``told(*arguments)`` is what the reader of the scores is told beforehand."""

    def cautions_of(*arguments):
        args, artefacts, questions, _, settings = called(*arguments)
        of_runs = cautions(args, questions, settings).values()
        return [*chain(*of_runs), *of_exports(artefact.path for artefact in artefacts)]

    return cautions_of


def test_a_further_run_that_was_trained_otherwise_is_told_so(told, tmp_path):
    assert told("one", "--baseline", "one/warm_start") == []
    (said,) = told("one", "other")
    assert said.startswith("other was trained with another max_completion_length, and is asked here as all")
    other = RunFolder(tmp_path / "other")
    other.write(other.read() | {"settings": other.read()["settings"] | {"task": "choice"}})
    assert told("one", "other")[0].startswith("other was trained with another max_completion_length and task, and is")


def test_questions_that_a_run_was_trained_on_are_told_however_they_come(told, called, tmp_path):
    one, other = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "other")
    (question,) = called("one")[2]
    write_trained_on(other, [question | {"question": " 7 /  2?"}])
    assert told("one") == []
    assert "q.jsonl holds the questions that other was trained on: name new ones with --dataset for a score" in told(
        "one", "other", "--limit", "1"
    )
    write_trained_on(one, [question])
    (tmp_path / "more.jsonl").write_text((tmp_path / "q.jsonl").read_text() + '{"question": "9 / 2?", "answer": "4,5"}')
    (said,) = told("one", "--dataset", str(tmp_path / "more.jsonl"))
    assert said.startswith("1 of the 2 questions of more.jsonl are ones that one was trained on: name new ones")
    assert told("one", "--dataset", str(tmp_path / "more.jsonl"), "--split", "test[1:]") == []


def test_of_a_run_of_an_older_kit_all_of_its_questions_are_known_again(told, called, tmp_path):
    run = RunFolder(tmp_path / "one")
    record = run.read()
    run.write(record | {"data": {"fingerprint": fingerprint(called("one")[2])}})
    assert any("q.jsonl holds the questions that one was trained on" in said for said in told("one"))
    run.write(record)
    assert told("one") == []
    append_jsonl(run.samples_file, {"step": 1, "question": "7 / 2?"})
    assert any("q.jsonl holds the questions that one was trained on" in said for said in told("one"))


def test_a_run_that_is_asked_otherwise_than_it_was_trained_says_so(told):
    assert told("one", "--max-completion-length", "200") == []
    (said,) = told("one", "--max-completion-length", "2048", "--decimal-mark", "comma")
    assert said == "one was trained with another max_completion_length than it is asked with"


def test_another_runs_model_never_takes_the_place_of_ones_own(called, tmp_path):
    _, artefacts, *_ = called("one/warm_start", "other/adapter")
    assert artefacts[0].name == "warm_start"
    assert artefacts[1].name.endswith("other-adapter")
    with pytest.raises(UserError, match=r"is another run than .*whose scores would stand there as its own"):
        called("one/adapter", "--output-dir", str(tmp_path / "other"))


def test_memory_and_disk_that_run_out_while_answering_are_said(called, tmp_path):
    settings = called("one")[-1]
    for error, words in (
        (MemoryError(), "lower --batch-size from 64 to 32; what has been answered is kept"),
        (OSError(errno.ENOSPC, "No space left on device"), "is full (OSError): make room; what has been"),
    ):
        with pytest.raises(UserError, match=re.escape(words)), explained(tmp_path, settings):
            raise error


def test_files_of_an_export_before_further_training_are_told_so(told, tmp_path):
    run = RunFolder(tmp_path / "one")
    (model(run.merged) / "chat_template.jinja").write_text(TEMPLATE)
    for hashed, is_told in ((file_hash(run.adapter / "adapter_model.safetensors"), False), ("another", True)):
        run.export_file.write_text(json.dumps({"merged": {"adapter_sha256": hashed}}))
        assert any("was trained further since its export" in each for each in told("one")) == is_told


def test_a_tasks_own_example_is_read_by_the_mark_of_its_run(called, tmp_path):
    task = {"system_prompt": "<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>", "answer": "number",
            "example": {"question": "7 / 2?", "reasoning": "half of 7", "answer": "3,50"}}  # fmt: skip
    (tmp_path / "halves.yaml").write_text(json.dumps(task))
    assert called("one/adapter", "--task", "halves.yaml")[-1].decimal_mark == "comma"


def test_where_there_is_no_task_no_answer_is_blamed(called):
    with pytest.raises(UserError) as refused:
        called("one", "--task", "nowhere.yaml")
    (problem,) = refused.value.problems
    assert "nowhere.yaml" in problem


def test_a_folder_that_cannot_be_made_is_named(called, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written to.*: name a folder with --output-dir"):
        called("one", "--output-dir", str(tmp_path / "file" / "sub"))


@pytest.mark.parametrize(
    ("question", "tokens"),  # of Qwen2.5's tokenizer, which has a token for each digit
    [
        (", ".join(str(number) for number in range(300)), 1388),
        ("How many apples does Ana have now? " * 20, 161),
        ("1 2 3\n4 5 6\n" * 30, 360),
    ],
)
def test_no_prompt_is_longer_than_reckoned_nor_half_as_long(question, tokens):
    assert tokens <= reckoned_prompt_length([question], "") <= 2.2 * tokens + 16
