"""The gate for GGUF files: others in their place, types that rounding spoils, files of earlier exports."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from kit.cli.errors import UserError
from kit.export import ggufs
from kit.export.checks.check import ExportRefused
from kit.export.checks.gguf import carries_training, metadata_agrees
from kit.export.evidence import evidence_of
from kit.export.ggufs import check_ggufs, make_ggufs
from kit.export.hub_upload import upload_list
from kit.export.merge import merged_as_it_is
from kit.export.modelfile import remove_those_of_nothing
from kit.export.record import ExportRecord
from kit.export.staging import staging
from kit.llama_cpp.gguf import CONVERTED, GgufFile, convert, quantize
from kit.storage.generation_settings import GREEDY_METADATA
from kit.storage.run_folder import RunFolder
from tests.conftest import run_script
from tests.export.test_export import (
    check,
    edit_json,
    edit_weights,
    no_chat_template,
    other_end_of_turn,
    padding_is_end_of_turn,
)


@pytest.fixture
def run(chain, tmp_path):
    """A copy of the short run, whose files are exchanged."""
    return RunFolder(shutil.copytree(chain / "short", tmp_path / "short"))


def test_an_f16_gguf_of_the_base_is_refused(run, base_gguf):
    shutil.copy(base_gguf, run.gguf_file("f16"))
    with pytest.raises(ExportRefused) as refused:
        check(run)
    assert "does not answer as merged does" in str(refused.value)
    assert "of its size away from f16's (and " in str(refused.value)
    assert " more) is not merged's: it is of other weights" in str(refused.value)


def test_a_quantized_gguf_of_the_base_is_refused(run, base_gguf):
    quantize(base_gguf, run.gguf_file("q8_0"), "q8_0")
    with pytest.raises(ExportRefused, match=r"short\.q8_0\.gguf: .*made from other weights"):
        check(run)


def zeros(matrix):
    matrix.zero_()


def rows_reversed(matrix):
    matrix.copy_(matrix.flip(0))


def a_twentieth_more(matrix):
    matrix.mul_(1.05)


def one_row_of_zeros(matrix):
    matrix[3].zero_()


_MATRIX, _NORM, _EMBEDDING = (
    "model.layers.1.mlp.down_proj.weight", "model.layers.1.input_layernorm.weight", "model.embed_tokens.weight",
)  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "what", "kind"),
    [
        (zeros, _MATRIX, "q8_0"), (rows_reversed, _MATRIX, "q4_0"), (a_twentieth_more, _MATRIX, "q8_0"),
        (zeros, _MATRIX, "tq2_0"), (a_twentieth_more, _NORM, "q4_0"), (one_row_of_zeros, _MATRIX, "q4_0"),
        (a_twentieth_more, _EMBEDDING, "bf16"),
    ],
)  # fmt: skip
def test_a_gguf_with_one_spoilt_tensor_is_refused(run, tmp_path, spoil, what, kind):
    """Whether training changed it or not, and however wide a step of the type is."""
    file = gguf_of_spoilt(run, tmp_path, spoil, what, kind)
    named = GgufFile(file).name_of(what)
    with pytest.raises(
        ExportRefused, match=rf"{kind}\.gguf: its {named} is .* from f16's.* of other weights or damaged"
    ):
        check(run)


def test_an_f16_gguf_is_merged_itself_where_memory_is_too_small_to_ask_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.export.weights.free_memory_bytes", lambda: 1_000_000)
    file = gguf_of_spoilt(run, tmp_path, zeros, _MATRIX, "f16")
    readable = GgufFile(file)
    said = carries_training(readable, readable, run.merged, run.merge_base(), lambda _: (None, None))
    assert (said.passed, "blk.1.ffn_down.weight is not merged's" in said.says) == (False, True)
    with pytest.raises(ExportRefused, match=r"f16\.gguf: its blk\.1\.ffn_down\.weight is .* from f16's"):
        check(run)  # a new f16 is made beside it


def gguf_of_spoilt(run, tmp_path, spoil, what, kind):
    """The run's GGUF of a kind, made from its merged folder with one tensor spoilt."""
    spoilt = shutil.copytree(run.merged, tmp_path / "spoilt")
    edit_weights(spoilt / "model.safetensors", lambda weights: spoil(weights[what]))
    convert(spoilt, tmp_path / "x.gguf", kind if kind in CONVERTED else "f16", "short")
    if kind in CONVERTED:
        shutil.copy(tmp_path / "x.gguf", run.gguf_file(kind))
    else:
        quantize(tmp_path / "x.gguf", run.gguf_file(kind), kind)
    return run.gguf_file(kind)


def test_a_quantized_gguf_that_counts_positions_otherwise_is_refused(run, tmp_path):
    other = RunFolder(shutil.copytree(run.path, tmp_path / "other"))

    def another_base_of_positions(config):  # transformers 4 writes it at the top
        config.get("rope_parameters", config)["rope_theta"] = 5_000.0

    edit_json(other.merged / "config.json", another_base_of_positions)
    convert(other.merged, tmp_path / "x.gguf", "f16", "short")
    quantize(tmp_path / "x.gguf", run.gguf_file("q8_0"), "q8_0")
    with pytest.raises(ExportRefused, match=r"q8_0\.gguf: qwen2\.rope\.freq_base not as in f16"):
        check(run)


def test_a_type_that_only_llama_cpps_programs_read_passes(run):
    quantize(run.gguf_file("f16"), run.gguf_file("q2_0"), "q2_0")
    of_q2_0 = check(run)["short.q2_0.gguf"]
    assert of_q2_0["carries_adapter"]["passed"]
    assert 0 < of_q2_0["carries_adapter"]["change_in_steps"] < 1


def test_a_gguf_that_holds_twice_the_change_is_refused(chain, tmp_path):
    """Rounded, it is near enough to merged; what was trained is in it more than once."""
    run = RunFolder(chain / "short")
    twice = shutil.copytree(run.merged, tmp_path / "twice")
    base = load_file(chain / "base" / "model.safetensors")

    def again(weights):
        for name, tensor in weights.items():
            tensor.copy_(2 * tensor.float() - base[name].float())

    edit_weights(twice / "model.safetensors", again)
    convert(twice, tmp_path / "x.gguf", "f16", "short")
    quantize(tmp_path / "x.gguf", tmp_path / "x.q8_0.gguf", "q8_0")
    file = GgufFile(tmp_path / "x.q8_0.gguf")
    check = carries_training(file, file, run.merged, run.merge_base(), lambda _: (None, None))
    assert not check.passed
    assert "made from other weights" in check.says
    assert check.numbers["share"] == pytest.approx(2, abs=0.1)


def test_a_file_that_somebody_put_in_the_place_of_the_exported_one_is_said(run):
    exported = run.exported()["gguf"]["f16"]["sha256"]
    convert(run.merged, run.gguf_file("f16"), "f16", "another name")
    said: list[str] = []
    record = ExportRecord(run, said.append)
    with staging(run) as scratch:
        check_ggufs(merged_as_it_is(record, evidence_of(run)), record, evidence_of(run), scratch)
    assert [line for line in said if "is not the file that was exported" in line] == [
        "short.f16.gguf is not the file that was exported: its sha256 is another"
    ]
    assert record.ggufs["f16"]["sha256"] != exported


def test_no_file_is_measured_by_an_f16_of_an_earlier_merge(run):
    said: list[str] = []
    record = ExportRecord(run, said.append)
    for of_merge in (record.ggufs["f16"]["merged_sha256"], "of an earlier merge"):
        record.ggufs["f16"]["merged_sha256"] = of_merge
        with staging(run) as scratch:
            check_ggufs(merged_as_it_is(record, evidence_of(run)), record, evidence_of(run), scratch)
        assert ("converting merged to an f16 GGUF" in said) == (of_merge == "of an earlier merge")


def test_of_several_types_those_that_pass_are_kept(run, base_gguf, monkeypatch):
    def of_the_base_where_few_bits(f16, target, kind, imatrix=None):
        quantize(base_gguf if kind == "q4_0" else f16, target, kind, imatrix)

    monkeypatch.setattr(ggufs, "quantize", of_the_base_where_few_bits)
    shutil.rmtree(run.gguf)
    record, evidence = ExportRecord(run, say=lambda _: None), evidence_of(run)
    with staging(run) as scratch:
        refused = make_ggufs(merged_as_it_is(record, evidence), ["q4_0", "q8_0"], record, evidence, scratch)
    assert [*refused] == ["q4_0"]
    assert [file.name for file in run.gguf.iterdir()] == ["short.q8_0.gguf"]
    assert [*record.ggufs] == ["q8_0"]
    record.content["gguf"]["q4_0"] = record.ggufs["q8_0"] | {"file": "short.q4_0.gguf"}  # one that passed before
    record.content["checks"]["short.q4_0.gguf"] = {"of": "the file that stays"}
    shutil.copy(run.gguf_file("q8_0"), run.gguf_file("q4_0"))
    with staging(run) as scratch:
        make_ggufs(merged_as_it_is(record, evidence), ["q4_0", "q8_0"], record, evidence, scratch)
    assert record.content["checks"]["short.q4_0.gguf"] == {"of": "the file that stays"}
    run.gguf_file("q4_0").unlink()
    with staging(run) as scratch, pytest.raises(ExportRefused, match=r"q4_0\.gguf: .*made from other weights"):
        make_ggufs(merged_as_it_is(record, evidence), ["q4_0"], record, evidence, scratch)
    assert [file.name for file in run.gguf.iterdir()] == ["short.q8_0.gguf"]


def test_a_type_whose_steps_the_base_lies_on_says_that_rounding_takes_the_change(chain, base_gguf, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantize(base_gguf, tmp_path / "coarse.gguf", "q4_0")
    coarse, on_grid, moved = GgufFile(tmp_path / "coarse.gguf"), tmp_path / "on-grid", tmp_path / "moved"
    model = AutoModelForCausalLM.from_pretrained(chain / "base", dtype=torch.float32)
    torch.manual_seed(0)
    for folder, step in ((on_grid, 0.0), (moved, 2e-4)):
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name and coarse.bits(name):
                parameter.data = torch.from_numpy(coarse.matrix(name).copy()) + step * torch.randn(parameter.shape)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(chain / "base").save_pretrained(folder)
    convert(moved, tmp_path / "f16.gguf", "f16", "moved")
    for kind, passes in (("f16", True), ("q4_0", False)):
        if kind != "f16":
            quantize(tmp_path / "f16.gguf", tmp_path / f"{kind}.gguf", kind)
        file = GgufFile(tmp_path / f"{kind}.gguf")
        check = carries_training(file, file, moved, str(on_grid), lambda _: (0.5, 0.25))
        assert check.passed == passes, check.says
    assert "rounding takes the change away. Its answers are 0.5 nats a token from f16's and 0.25 from" in check.says


def test_a_gguf_of_a_tokenizer_with_another_end_of_turn_is_refused(run, tmp_path):
    other = RunFolder(shutil.copytree(run.path, tmp_path / "other"))
    other_end_of_turn(other)
    no_chat_template(other)
    convert(other.merged, run.gguf_file("f16"), "f16", "short")
    with pytest.raises(ExportRefused) as refused:
        check(run)
    assert "the end-of-turn token is 151643, in merged 151645" in str(refused.value)
    assert "the chat template is not merged's" in str(refused.value)


def test_a_gguf_that_stops_nowhere_or_asks_for_sampling_is_refused(run, tmp_path, monkeypatch):
    other = RunFolder(shutil.copytree(run.path, tmp_path / "other"))
    padding_is_end_of_turn(other)
    monkeypatch.setattr("kit.llama_cpp.gguf.GREEDY_METADATA", GREEDY_METADATA | {"general.sampling.temp": 0.7})
    convert(other.merged, run.gguf_file("f16"), "f16", "short")
    said = metadata_agrees(GgufFile(run.gguf_file("f16")), run.merged).says
    assert "the pad token is the end-of-turn token" in said
    assert "it asks for sampling that it was not scored with (general.sampling.temp 0." in said


def test_files_of_an_earlier_name_or_of_other_weights_do_not_stay_beside_the_new(run):
    renamed = RunFolder(run.path.rename(run.path.with_name("renamed")))
    assert {file.name for file in renamed.gguf.glob("*.gguf")} == {"short.f16.gguf", "short.q8_0.gguf"}
    run_script("merge_and_export.py", renamed.path, "--check")
    recorded = json.loads(renamed.export_file.read_text(encoding="utf-8"))
    assert all((renamed.gguf / entry["file"]).exists() for entry in recorded["gguf"].values())
    run_script("merge_and_export.py", renamed.path, "--only-gguf", "--gguf", "q8_0")
    (renamed.gguf / "own.gguf").touch()
    assert {file.name for file in renamed.gguf.glob("*.gguf")} == {"short.f16.gguf", "renamed.q8_0.gguf", "own.gguf"}
    assert {name for name in upload_list(renamed) if "gguf" in name} == {"short.f16.gguf", "renamed.q8_0.gguf"}
    record, evidence = ExportRecord(renamed, say=lambda _: None), evidence_of(renamed)
    others = replace(merged_as_it_is(record, evidence), sha256="of other weights")
    with staging(renamed) as scratch:
        with pytest.raises(UserError):
            make_ggufs(others, ["no type"], record, evidence, scratch)
        assert renamed.gguf_file("q8_0").exists()  # what failed costs nothing
        make_ggufs(others, ["f16"], record, evidence, scratch)
    assert {file.name for file in renamed.gguf.glob("*.gguf")} == {"renamed.f16.gguf", "own.gguf"}
    assert list(record.ggufs) == ["f16"]
    assert not {"short.f16.gguf", "renamed.q8_0.gguf"} & {*record.content["checks"]}
    remove_those_of_nothing(renamed)
    assert not renamed.modelfile.exists()
