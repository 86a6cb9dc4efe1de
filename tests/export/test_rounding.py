"""What rounding does to odd weights is never taken for damage, and damage never for rounding."""

import numpy as np
import pytest

from kit.export.checks.rounding import is_f16_rounded
from kit.llama_cpp.gguf import GgufFile, gguf_library

SHAPE = (64, 512)
DRAW = np.random.default_rng(0)
BELL = DRAW.normal(size=SHAPE)
WEIGHTS = {
    "a bell curve": 0.02 * BELL,
    "two values": 0.02 * np.sign(BELL),
    "three values": 0.02 * DRAW.integers(-1, 2, size=SHAPE),
    "one value": np.full(SHAPE, 0.02),
    "nothing": np.zeros(SHAPE),
    "around 1": 1 + 0.1 * BELL,
    "few large": 0.02 * DRAW.standard_t(2, size=SHAPE),
    "tiny": 1e-6 * BELL,
    "smaller than float16 holds": 1e-7 * BELL,
}
TYPES = ("Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "MXFP4", "TQ1_0", "TQ2_0", "BF16")


@pytest.fixture
def written(tmp_path):
    """``written(name, type, tensors)``: a GGUF with its float64 tensors in a type, rounded to float16 and then by
    llama.cpp's own Python package; others as they are."""

    def write(name, kind, tensors):
        gguf = gguf_library()
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        for tensor, values in tensors.items():
            if values.dtype == np.float64:
                to, as_f16 = gguf.GGMLQuantizationType[kind], values.astype(np.float16)
                writer.add_tensor(tensor, gguf.quants.quantize(as_f16.astype(np.float32), to), raw_dtype=to)
            else:
                writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return GgufFile(tmp_path / name)

    return write


def looked_at(written, of_f16, in_file, kind):
    file = written("file.gguf", kind, in_file)
    return is_f16_rounded(file, file, written("f16.gguf", "F16", of_f16))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_what_is_rounded_passes(written, weights, kind):
    check = looked_at(written, {"w": weights}, {"w": weights}, kind)
    assert check.passed, check.says


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind[:2] != "TQ"])
def test_one_row_of_zeros_among_many_is_refused(written, kind):
    spoilt = np.where(np.arange(SHAPE[0])[:, None] == 7, 0, WEIGHTS["a bell curve"])
    assert "its w is 0.1" in looked_at(written, {"w": WEIGHTS["a bell curve"]}, {"w": spoilt}, kind).says


NORM, PLACES = np.ones(8, np.float32), np.arange(4, dtype=np.int32)
WHOLE = {"w": WEIGHTS["a bell curve"], "norm": NORM, "places": PLACES}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"w": np.where(np.arange(512) == 3, np.nan, WHOLE["w"])}, "its w is nan of its size away"),
        ({"w": WHOLE["w"][:32]}, "its w has shape (32, 512), in f16 (64, 512)"),
        ({"norm": np.where(np.arange(8) == 3, np.float32(1.0001), NORM)}, "its norm is 3.5e-05 of its size away"),
        ({"places": PLACES[::-1].copy()}, "its places is 1.2 of its size away"),
        ({"more": NORM}, "its more is not in f16"),
        ({"w": None}, "its w is missing"),
    ],
)
def test_what_is_not_rounding_is_refused(written, damage, says):
    assert looked_at(written, WHOLE, WHOLE, "Q8_0").passed
    spoilt = {name: values for name, values in (WHOLE | damage).items() if values is not None}
    kind = "BF16" if says.startswith("its w is nan") else "Q8_0"
    check = looked_at(written, WHOLE, spoilt, kind)
    assert not check.passed
    assert check.says.startswith(says), check.says
