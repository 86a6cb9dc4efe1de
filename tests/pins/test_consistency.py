"""Do the pins of a set go together? Asked of every package's own metadata, for every Python that the set names."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.pins.published import PYTHONS, environment, metadata, metadata_of, pins, source, source_in

pytestmark = pytest.mark.pins

SETS = [(lock, python) for lock, pythons in PYTHONS.items() for python in pythons]
# Installed on top: a need may be met below.
BELOW = {name: ["requirements-cpu.txt"] for name in ("requirements-dev.txt", "requirements-cpu-vllm.txt")}
EXCEPTED_NEEDS = {"certifi"}  # by name: unsloth asks for one that the index does not have
# unsloth asks for xformers too, of which none is built for torch 2.11: it would complain of it at every start
# vLLM's processor build asks for torch's by the label that only some indexes put behind its version
LEFT_OUT = {"requirements.txt": "needs xformers", "requirements-cpu-vllm.txt": "needs torch==2.13.0+cpu"}


def conflicts(rows, python) -> list[str]:
    """What a set of packages lacks or has in the wrong version, a sentence each."""
    have = {row["name"]: row["version"] for row in rows}
    extras = {name: {""} for name in have}
    if "vllm" in have:
        extras["trl"].add("vllm")  # where TRL says which versions of vLLM it goes with
    found: dict[str, None] = {}
    for _ in range(3):  # an extra may ask for another package's extra
        for row in rows:
            if not SpecifierSet(row["python"] or "").contains(f"{python}.5"):
                found[f"{row['name']} {row['version']} does not run on Python {python}"] = None
            for need in map(Requirement, row["requires"]):
                name = canonicalize_name(need.name)
                wanted = need.marker is None or any(
                    need.marker.evaluate({**environment(python), "extra": extra}) for extra in extras[row["name"]]
                )
                if not wanted or name in EXCEPTED_NEEDS:
                    continue
                if name not in have:
                    found[f"{row['name']} {row['version']} needs {need}, which is not pinned"] = None
                    continue
                extras[name] |= need.extras
                if not need.specifier.contains(have[name], prereleases=True):
                    found[f"{row['name']} {row['version']} needs {need}, pinned is {have[name]}"] = None
    return list(found)


@pytest.fixture(scope="module")
def published():
    with ThreadPoolExecutor(4) as pool:  # waiting for the index
        return dict(zip(SETS, pool.map(lambda pair: metadata(*pair), SETS), strict=True))


@pytest.mark.parametrize(("lock", "python"), SETS)
def test_the_pins_go_together(published, lock, python):
    below = [row for name in BELOW.get(lock, []) for row in published[name, python]]
    found = conflicts([*below, *published[lock, python]], python)
    if lock.startswith("requirements-cpu"):  # what the kit does without is left out there on purpose; the tests do too
        found = [sentence for sentence in found if not sentence.endswith("not pinned")]
    if lock in LEFT_OUT:
        found = [sentence for sentence in found if LEFT_OUT[lock] not in sentence]
    assert [sentence for sentence in found if sentence not in conflicts(below, python)] == []


@pytest.mark.parametrize(("lock", "python"), SETS)
def test_xformers_is_built_for_the_torch_beside_it(lock, python):
    """It loads with no other, and its metadata does not say so."""
    have = dict(line.split("==") for line in pins(lock, python))
    if "xformers" in have:
        built = json.loads(source(lock, python, "xformers", "xformers/cpp_lib.json"))["version"]
        assert built["torch"].split("+")[0] == have["torch"]


def test_a_broken_pin_is_found(published):
    rows = published["requirements.txt", "3.12"]
    broken = [{**row, "version": "4.40.0"} if row["name"] == "transformers" else row for row in rows]
    assert any("transformers" in sentence for sentence in conflicts(broken, "3.12"))
    too_new = [{**row, "version": "0.99.0"} if row["name"] == "vllm" else row for row in rows]
    assert any(sentence.startswith("trl ") and "vllm" in sentence for sentence in conflicts(too_new, "3.12"))
    lacking = [row for row in rows if row["name"] != "xgrammar"]
    assert any("xgrammar" in sentence and "not pinned" in sentence for sentence in conflicts(lacking, "3.12"))


def test_verl_takes_the_adapter_folder():
    """docs/more-cards.md: it hands ``lora_adapter_path`` to PEFT, whose form the adapter has."""
    (verl,) = metadata_of("verl==0.9.1", "3.12")
    assert "lora_adapter_path:" in source_in(verl, "verl/trainer/config/model/hf_model.yaml")
    engine = source_in(verl, "verl/workers/engine/fsdp/transformer_impl.py")
    assert "PeftModel.from_pretrained(module, local_adapter_path" in engine
