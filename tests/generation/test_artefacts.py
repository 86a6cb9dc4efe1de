"""What a path is, and what of it decides how it answers: told from all of its files, before anything is loaded."""

import json
import shutil
import struct

import numpy as np
import pytest

from kit.cli.errors import UserError
from kit.cli.signals import StopRequest
from kit.generation.artefacts import Kind, check_askable, find_artefacts, fingerprint
from kit.llama_cpp.gguf import gguf_library
from kit.storage.hub import check_model, fetch, is_hub_id, local_folder, weights_bytes
from kit.storage.weight_files import tensor_files
from kit.training.base_fetching import fetching

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:46\nsize 988\n"


def safetensors(file, values=(1.0,)):
    """A file of one tensor."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, 4 * len(values)]}})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode() + struct.pack(f"<{len(values)}f", *values))


def model(folder, **config):
    safetensors(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def adapter(folder, base):
    safetensors(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "base_model_name_or_path": str(base)}))
    return folder


def gguf(file, file_type=None):
    """A file of metadata alone."""
    writer = gguf_library().GGUFWriter(file, "llama")
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


def found(path, **options):
    (artefact,) = find_artefacts([str(path)], **options)
    return artefact


def mark(path):
    return fingerprint(found(path))


READ = [
    "generation_config.json", "chat_template.jinja", "vocab.bpe", "tokenizer.model", "modeling_own.py", "weights.bin",
    "shards/model-00002-of-00002.safetensors", "additional_chat_templates/tool.jinja",
]  # fmt: skip
UNREAD = ["README.md", ".cache/huggingface/x.lock", "checkpoint-50/optimizer.pt", "scores.json", "transcripts/a.jsonl"]


@pytest.mark.parametrize("name", READ + UNREAD)
def test_what_an_engine_may_read_is_in_the_fingerprint(tmp_path, name):
    base = model(tmp_path / "base")
    lora = adapter(tmp_path / "lora", base)
    marks = [(mark(base), mark(lora))]
    for content in ("one", "two"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(content)
        marks.append((mark(base), mark(lora)))
    assert [len(set(of)) for of in zip(*marks, strict=True)] == ([1, 1] if name in UNREAD else [3, 3])


def test_a_link_is_what_it_leads_to(tmp_path):
    base = model(tmp_path / "base")
    (base / "model.safetensors").rename(tmp_path / "blob")
    (base / "model.safetensors").symlink_to(tmp_path / "blob")
    (base / "loop").symlink_to(base)
    (tmp_path / "link").symlink_to(base)
    before = mark(tmp_path / "link")
    assert before == mark(base)
    safetensors(tmp_path / "blob", (2.0,))
    assert mark(tmp_path / "link") != before
    (tmp_path / "blob").unlink()
    with pytest.raises(UserError, match=r"lacks model\.safetensors"):
        found(base)


def test_a_folder_is_a_model_or_an_adapter_by_all_of_its_files(tmp_path):
    base = model(tmp_path / "base")
    lora = adapter(tmp_path / "lora", base)
    (lora / "config.json").write_text("{}")  # as some tools leave it there
    assert (found(lora).kind, found(lora).base) == (Kind.ADAPTER, str(base))
    both = adapter(model(tmp_path / "both"), base)
    for left in ("adapter_model.safetensors", "adapter_config.json"):  # first with both, then with the second alone
        with pytest.raises(UserError, match="an adapter and a full model at once"):
            found(both)
        (both / left).unlink()
    assert found(both).kind is Kind.MODEL
    safetensors(both / "adapter_model.safetensors")
    with pytest.raises(UserError, match="an adapter and a full model at once"):
        found(both)
    (both / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no \.safetensors weights"):  # an adapter's are none of its own
        check_model(str(both))


@pytest.mark.parametrize(
    ("left_out", "put_in", "words"),
    [
        ("adapter_model.safetensors", "", "holds adapter_config.json and no adapter_model.safetensors"),
        ("adapter_config.json", "", "holds adapter weights and no adapter_config.json"),
        ("adapter_model.safetensors", "adapter_model.bin", "convert them (pickled weights can run code)"),
    ],
)
def test_half_an_adapter_is_refused_in_words(tmp_path, left_out, put_in, words):
    lora = adapter(tmp_path / "lora", model(tmp_path / "base"))
    (lora / left_out).unlink()
    if put_in:
        (lora / put_in).write_bytes(b"\x80")
    with pytest.raises(UserError) as refused:
        found(lora)
    assert words in str(refused.value)


def test_an_adapter_that_names_no_base_is_refused_in_words(tmp_path):
    lora = adapter(tmp_path / "lora", model(tmp_path / "base"))
    for config in ('{"base_model_name_or_path": null}', "[]", "{"):
        (lora / "adapter_config.json").write_text(config)
        with pytest.raises(UserError, match="names no base model"):
            found(lora)


def test_weights_that_cannot_be_read_are_refused_before_they_are_loaded(tmp_path):
    base = model(tmp_path / "base")
    whole = (base / "model.safetensors").read_bytes()
    for content, words in (
        (POINTER.encode(), "cloned without git-lfs, model.safetensors is a pointer"),
        (whole[:-1], f"cut short, {len(whole) - 1} of {len(whole)} bytes"),
        (whole[:20], "cut short"),
        (b"", "cut short"),
        (b"<html>not found</html>", "is no safetensors file"),
    ):
        (base / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=words):
            found(base)
    (base / "model.safetensors").write_bytes(whole)
    (base / "tokenizer.json").write_text(POINTER)
    with pytest.raises(UserError, match=r"tokenizer\.json is a pointer"):
        found(base)


def test_shards_are_all_there_or_it_is_said_which_lack(tmp_path):
    base = model(tmp_path / "base")
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    for name in names:
        safetensors(base / name)
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors\.index\.json"):
        found(base)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(zip("abc", names, strict=True))}))
    before = mark(base)
    safetensors(base / names[1], (3.0,))
    assert mark(base) != before
    (base / names[1]).unlink()
    with pytest.raises(UserError, match=f"lacks {names[1]}"):
        found(base)


def test_weights_that_lie_there_twice_count_once(tmp_path):
    """As in Mistral's repositories, whose own loader reads the second file."""
    base = tmp_path / "base"
    for name in ("consolidated", "model-00001-of-00002", "model-00002-of-00002"):
        safetensors(base / f"{name}.safetensors")
    (base / "config.json").write_text("{}")
    index = {"weight_map": {name: f"model-0000{name}-of-00002.safetensors" for name in "12"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    shards = sorted(base.glob("model-*.safetensors"))
    assert tensor_files(base) == shards
    assert weights_bytes(str(base)) == sum(file.stat().st_size for file in shards)
    for file in shards:
        file.unlink()
    (base / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"holds no \.safetensors weights"):
        found(base)


def test_a_neighbour_is_never_taken_for_the_base(tmp_path):
    """Only of the Hub's repositories does the name say which one holds the 16-bit weights."""
    model(tmp_path / "base")
    quantized = model(tmp_path / "base-bnb-4bit", quantization_config={"load_in_4bit": True})
    lora = adapter(tmp_path / "lora", quantized)
    with pytest.raises(UserError, match=r"base-bnb-4bit holds quantized weights.*with --base, or score it on"):
        found(lora)
    in_4bit = found(lora, base_4bit=True)
    assert in_4bit.base == str(quantized)
    before = fingerprint(in_4bit)
    safetensors(quantized / "model.safetensors", (2.0,))
    assert fingerprint(in_4bit) != before
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text(f"settings:\n  model: {quantized}\n")
    with pytest.raises(UserError, match=r"16-bit ones are needed: name their folder or Hub id with --base"):
        find_artefacts([str(run)])


def fetched(cache, repository):
    """The folder of the Hub client's in which the files of a repository are."""
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    return place / "snapshots" / "abc"


def test_a_model_of_which_a_part_was_fetched_is_not_here_and_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = model(fetched(tmp_path, "someone/model"))
    weights = next(folder.glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="someone/model is only in part on this machine and HF_HUB_OFFLINE is set"):
        check_model("someone/model")
    assert weights_bytes("someone/model") == 0  # nobody here knows
    with pytest.raises(UserError, match="someone/model could not be fetched"):  # as there is no Hub
        fetch("someone/model")
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake_hub(weights, whole))
    fetch("someone/model")
    assert weights_bytes("someone/model") == len(whole)
    weights.unlink()
    with fetching("someone/model", StopRequest()):
        pass
    check_model("someone/model")
    assert local_folder("someone/model") == folder
    (folder / "tokenizer.json").unlink()  # a start that was stopped before it came: no reason to miss its template
    with pytest.raises(UserError, match="not on this machine"):
        local_folder("someone/model")


def fake_hub(file, content):
    """A Hub that has one file, and a README that nobody asks for, in place of the one that is not here."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(_, allow_patterns=None, local_files_only=False, **__):
        if local_files_only:  # what its client says since it keeps a repository's list of files
            raise LocalEntryNotFoundError("The cached snapshot is incomplete: 1 file is missing (README.md)")
        assert "*.safetensors" in allow_patterns
        file.write_bytes(content)
        return str(file.parent)

    return snapshot_download


def test_paths_and_hub_ids_are_told_apart(tmp_path, monkeypatch):
    assert is_hub_id("Qwen/Qwen2.5-0.5B-Instruct")
    assert not is_hub_id("models/qwen-base")
    assert not any(map(is_hub_id, ("my models/qwen", "C:/models", "mis preguntas/año")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    adapter(fetched(tmp_path, "someone/lora"), "some/base")
    with pytest.raises(UserError, match="hf download someone/lora"):  # else its base would not be in the fingerprint
        found("someone/lora")
    model(fetched(tmp_path, "someone/model"))
    assert found("someone/model").kind is Kind.MODEL
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        found(tmp_path / "notes.txt")


def test_a_gguf_is_called_by_its_file_and_is_of_the_type_that_it_says(tmp_path):
    types = gguf_library().LlamaFileType
    official = gguf(tmp_path / "qwen2.5-0.5b-instruct-q4_k_m.gguf", types.MOSTLY_Q4_K_M)
    assert (found(official).name, found(official).number_type) == ("qwen2.5-0.5b-instruct-q4_k_m", "q4_k_m")
    renamed = gguf(tmp_path / "Mine.Q4_0.GGUF", types.MOSTLY_Q8_0 | 1024)
    assert (found(renamed).name, found(renamed).number_type) == ("Mine.Q4_0", "q8_0")
    silent = gguf(tmp_path / "Mine-IQ4_XS.gguf")
    assert (found(silent).kind, found(silent).number_type) == (Kind.GGUF, "iq4_xs")
    assert found(gguf(tmp_path / "v2.5.gguf")).number_type is None
    blob = shutil.copy(official, tmp_path / "sha256-46")  # as Ollama keeps them
    assert found(blob).kind is Kind.GGUF


def test_in_a_run_folder_a_gguf_is_called_by_its_type(tmp_path):
    run = tmp_path / "run"
    (run / "gguf").mkdir(parents=True)
    (run / "run.yaml").write_text(f"settings:\n  model: {model(tmp_path / 'base')}\n")
    for name in ("run.q8_0", "split.q4_k_m-00001-of-00002", "split.q4_k_m-00002-of-00002", "v2.5"):
        gguf(run / "gguf" / f"{name}.gguf")
    assert {artefact.name for artefact in find_artefacts([str(run)])} == {"base", "q8_0", "q4_k_m", "v2.5"}


def test_a_gguf_that_was_cut_short_is_refused_in_words(tmp_path):
    file = tmp_path / "x.f32.gguf"
    writer = gguf_library().GGUFWriter(file, "qwen2")
    writer.add_tensor("output.weight", np.zeros((64, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for kept in (-1000, 40):
        file.write_bytes(file.read_bytes()[:kept])
        with pytest.raises(UserError, match=r"x\.f32\.gguf is no whole GGUF file .* fetch it again"):
            check_askable([found(file)])


def test_a_split_gguf_is_all_of_its_parts(tmp_path):
    first, second = (gguf(tmp_path / f"x-0000{number}-of-00002.gguf") for number in (1, 2))
    assert found(first).name == "x"
    before = mark(first)
    with second.open("ab") as file:
        file.write(b"more")
    assert mark(first) != before
    with pytest.raises(UserError, match=r"part 2 of 2 .* name the first, x-00001-of-00002\.gguf"):
        found(second)
    second.write_text(POINTER)
    with pytest.raises(UserError, match="git lfs pull"):
        found(first)
    second.unlink()
    with pytest.raises(UserError, match=r"x-00002-of-00002\.gguf is not beside it"):
        found(first)
