"""The adapter alone as a GGUF: with its base it is merged, and what llama.cpp's LoRA cannot hold is refused."""

import json
import shutil
from types import SimpleNamespace

import pytest

from kit.cli.errors import UserError
from kit.export.adapter_gguf import check_adapter_gguf, make_adapter_gguf, verified_adapter
from kit.export.checks.adapter_gguf import adds_the_change
from kit.export.checks.check import ExportRefused
from kit.export.evidence import evidence_of
from kit.export.hub_upload import upload_list
from kit.export.merge import Merged
from kit.export.modelfile import write_adapter_modelfile
from kit.export.record import ExportRecord
from kit.generation.artefacts import find_artefacts
from kit.generation.engine import Sampling
from kit.generation.open import open_engine
from kit.generation.runtime import Room, choose_runtime
from kit.llama_cpp.adapter_gguf import convert_adapter
from kit.llama_cpp.divergence import mean_kl_divergence
from kit.llama_cpp.gguf import GgufFile
from kit.storage.run_folder import ADAPTER_KIND, RunFolder
from tests.conftest import run_script


@pytest.fixture(scope="module")
def made(chain, tmp_path_factory):
    """A copy of the short run with its adapter's GGUF and that of its base in place, and the entry of export.json."""
    folder = tmp_path_factory.mktemp("adapter")
    run = RunFolder(shutil.copytree(chain / "short", folder / "short"))
    merged = Merged(run.merged, str(chain / "base"), "0")
    record = ExportRecord(run, say=lambda _: None)
    file, base = make_adapter_gguf(merged, record, folder)
    run.adapter_base.mkdir()
    shutil.copy(file, run.adapter_gguf)
    base = shutil.copy(base, run.adapter_base / base.name)
    record.ggufs[ADAPTER_KIND] = {"file": run.adapter_gguf.name}
    record.write()
    evidence = evidence_of(run)

    def verified(file=run.adapter_gguf, base=base):
        return verified_adapter(file, base, run.gguf_file("f16"), merged, record, evidence, folder)

    return SimpleNamespace(run=run, base=base, evidence=evidence, scratch=folder, verified=verified)


def test_base_and_adapter_together_are_merged_and_the_base_alone_is_not(made):
    entry = made.verified()
    (alone,) = mean_kl_divergence(made.run.gguf_file("f16"), [made.base], made.evidence.text, made.scratch)
    assert entry["mean_kl_from_f16"] < 1e-4 < 1e-3 < alone
    assert entry["base"]["file"] == "base/base.f16.gguf"
    assert entry["bytes"] < made.run.gguf_file("f16").stat().st_size / 10


def test_it_is_scored_in_a_row_of_its_own_and_answers_as_merged_does(made, monkeypatch):
    found = {artefact.name: artefact for artefact in find_artefacts([str(made.run.path)])}
    artefact = found["adapter-gguf"]
    assert artefact.base == str(made.base)
    replies = {}
    for name in ("adapter-gguf", "f16"):
        runtime = choose_runtime(found[name], vllm="off")
        with open_engine(found[name], runtime, Room(500, 40)) as engine:
            prompts = [talk[:-1] for talk in made.evidence.conversations]
            answers = [pair for batch in engine.generate(prompts, Sampling(40)) for pair in batch]
            replies[name] = {place: reply.text for place, reply in answers}
        assert runtime.precision == ("f16 + adapter GGUF" if name == "adapter-gguf" else "f16 GGUF")
    assert replies["adapter-gguf"] == replies["f16"]
    monkeypatch.setattr(RunFolder, "adapter_base", made.scratch / "nothing")
    assert "adapter-gguf" not in {artefact.name for artefact in find_artefacts([str(made.run.path)])}
    with pytest.raises(UserError, match=r"is an adapter alone: name a GGUF of its base with --base FILE\.gguf"):
        find_artefacts([str(made.run.adapter_gguf)])
    (own,) = find_artefacts([str(made.run.adapter_gguf)], base=str(made.run.gguf_file("q8_0")))
    assert own.base == str(made.run.gguf_file("q8_0"))


def test_its_modelfile_and_what_is_uploaded(made):
    text = write_adapter_modelfile(made.run, made.base).read_text(encoding="utf-8")
    assert "\nFROM ./base/base.f16.gguf\nADAPTER ./short.adapter.gguf\nTEMPLATE " in text
    assert "-f Modelfile.adapter" in text.splitlines()[0]
    written = GgufFile(made.run.adapter_gguf)
    assert written.value("general.name") == "Short Adapter"
    assert written.value("general.base_model.0.name") is None  # a path, which PEFT's model card has
    uploaded = upload_list(made.run)
    assert {"short.adapter.gguf", "Modelfile.adapter"} <= set(uploaded)
    assert "base.f16.gguf" not in uploaded


def test_on_another_model_than_the_base_it_is_refused(made):
    with pytest.raises(ExportRefused, match="does not answer as merged does"):
        made.verified(base=made.run.gguf_file("f16"))  # the change, twice


def test_twice_the_adapter_and_no_adapter_are_refused(made, tmp_path):
    adapter = shutil.copytree(made.run.adapter, tmp_path / "adapter")
    config = adapter / "adapter_config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(content | {"lora_alpha": 2 * content["lora_alpha"]}), encoding="utf-8")
    convert_adapter(adapter, made.run.merged, tmp_path / "twice.gguf", "twice")
    with pytest.raises(ExportRefused, match=r"what it adds to .* is 1 of the change off \(and 27 more\)"):
        made.verified(file=tmp_path / "twice.gguf")
    with pytest.raises(ExportRefused, match="was trained and is not in it"):
        made.verified(file=made.run.gguf_file("f16"))


def trained(chain, folder, **config):
    """An adapter of PEFT's on the demo's base, far from zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]} | config
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(chain / "base"), LoraConfig(**options))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    adapted.save_pretrained(folder)
    return folder


OTHERS = [
    ({"use_rslora": True}, "root of its rank"),
    ({"alpha_pattern": {"q_proj": 1}}, "a scale for each module"),
    ({"use_dora": True}, "lora_magnitude_vector.* besides LoRA's factors"),
    ({"modules_to_save": ["norm"]}, "norm.* besides LoRA's factors"),
    ({"bias": "lora_only"}, "q_proj.*bias.* besides LoRA's factors"),
    ({"target_modules": ["q_proj", "lm_head"]}, "output head, which in this base is the embedding too"),
]


@pytest.mark.parametrize(("config", "words"), OTHERS)
def test_what_llama_cpp_would_drop_or_scale_otherwise_is_refused(chain, tmp_path, config, words):
    adapter = trained(chain, tmp_path / "adapter", **config)
    run = RunFolder(tmp_path / "run", str(chain / "base"))
    with pytest.raises(UserError, match=rf"--adapter-gguf: .*{words}.*: leave the option out"):
        check_adapter_gguf(adapter, run)


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"rank_pattern": {"q_proj": 2}}, *(config for config, _ in OTHERS)])
def test_the_gate_sees_it_too_where_nobody_has_refused_it(chain, made, tmp_path, config):
    """What the converter takes all the same must not pass: it drops norms and knows one scale."""
    adapter = trained(chain, tmp_path / "adapter", **config)
    try:
        convert_adapter(adapter, made.run.merged, tmp_path / "adapter.gguf", "it")
    except UserError:
        assert "rank_pattern" not in config
        return
    check = adds_the_change(tmp_path / "adapter.gguf", made.base, adapter, str(chain / "base"))
    assert check.passed == ("rank_pattern" in config), check.says


def test_a_refused_adapter_leaves_nothing(chain, tmp_path):
    run = RunFolder(shutil.copytree(chain / "short", tmp_path / "short"))
    config = run.adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}), encoding="utf-8")
    refused = run_script("merge_and_export.py", run.path, "--adapter-gguf", check=False)
    assert refused.returncode == 2
    assert "root of its rank" in refused.stderr
    assert not run.adapter_gguf.exists()
    assert not run.adapter_base.exists()


@pytest.mark.slow
def test_the_command_makes_it_alone_and_checks_it_again(chain, tmp_path):
    run = RunFolder(shutil.copytree(chain / "short", tmp_path / "short"))
    shutil.rmtree(run.gguf)
    said = run_script("merge_and_export.py", run.path, "--adapter-gguf").stdout
    assert sorted(path.name for path in run.gguf.iterdir()) == ["Modelfile.adapter", "base", "short.adapter.gguf"]
    assert "--lora" in said
    assert "Modelfile.adapter" in said
    recorded = json.loads(run.export_file.read_text(encoding="utf-8"))
    assert list(recorded["gguf"]) == ["adapter"]
    assert all(result["passed"] for result in recorded["checks"]["short.adapter.gguf"].values())
    shutil.copy(run.adapter_base / "base.f16.gguf", run.adapter_gguf)
    refused = run_script("merge_and_export.py", run.path, "--check", check=False)
    assert refused.returncode == 3
    assert "was trained and is not in it" in refused.stderr
