"""GGUF types on a model 256 wide, where K-quants are K-quants: the demo's width of 64 makes them fall back."""

import pytest

from kit.cli.errors import UserError
from kit.export.checks.rounding import is_f16_rounded
from kit.llama_cpp.build import GGUF_TYPES
from kit.llama_cpp.gguf import CONVERTED, NEED_IMATRIX, GgufFile, convert, quantize, with_readable_weights
from kit.llama_cpp.imatrix import make_imatrix


@pytest.fixture(scope="module")
def f16(chain, tmp_path_factory):
    """A random two-layer Qwen2, 256 wide, with the real tokenizer, and with rows that are tiny beside the others."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("wide")
    config = AutoConfig.from_pretrained(chain / "base")
    config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.head_dim = 256, 512, 2, 64
    config.layer_types = config.layer_types[:2]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data[:8] *= torch.logspace(-1.5, -5, 8)[:, None]
    model.to(torch.bfloat16).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(chain / "base").save_pretrained(folder / "model")
    convert(folder / "model", folder / "f16.gguf", "f16", "wide")
    return folder / "f16.gguf"


@pytest.fixture(scope="module")
def imatrix(f16, tmp_path_factory):
    text = " ".join(f"{number} apples and {number} more are {2 * number}." for number in range(200))
    return make_imatrix(f16, text, "sums", tmp_path_factory.mktemp("imatrix"))


@pytest.mark.parametrize(
    ("kind", "layers"), [("q4_k_m", {"q4_k", "q6_k"}), ("q6_k", {"q6_k"}), ("q3_k_s", {"q3_k", "q6_k"})]
)
def test_k_quants_are_k_quants_where_the_width_allows(f16, tmp_path, kind, layers):
    quantize(f16, tmp_path / "x.gguf", kind)
    gguf = GgufFile(tmp_path / "x.gguf")
    assert set(gguf.tensor_types) == {*layers, "f32"}
    assert gguf.rows_not_in_blocks == (0, 15)
    assert gguf.bits_per_weight < 6.6


@pytest.mark.parametrize("kind", ["q8_0", "q6_k", "q5_k_s", "q4_k_m", "iq4_xs", "iq4_nl", "q3_k_s", "q2_0"])
def test_what_llama_quantize_rounds_is_not_taken_for_damage(f16, tmp_path, kind):
    quantize(f16, tmp_path / "x.gguf", kind)
    gguf = GgufFile(tmp_path / "x.gguf")
    check = is_f16_rounded(gguf, with_readable_weights(gguf, tmp_path), GgufFile(f16))
    assert check.passed, check.says


@pytest.mark.parametrize("kind", NEED_IMATRIX)
def test_what_needs_an_importance_matrix_is_known(f16, tmp_path, kind):
    with pytest.raises(UserError, match="imatrix"):
        quantize(f16, tmp_path / "x.gguf", kind)


@pytest.mark.slow
@pytest.mark.release
@pytest.mark.parametrize("kind", NEED_IMATRIX)
def test_with_one_it_can_be_made(f16, imatrix, tmp_path, kind):
    quantize(f16, tmp_path / "x.gguf", kind, imatrix)
    gguf = GgufFile(tmp_path / "x.gguf")
    assert is_f16_rounded(gguf, gguf, GgufFile(f16)).passed
    low = {name for name in gguf.tensor_types if name.startswith(("iq1", "iq2", "iq3", "q2"))}
    assert low, gguf.tensor_types
    assert gguf.bits_per_weight < 6.5  # nearly all of it is the embedding, in some of them q6_k: 6.56


@pytest.mark.slow
@pytest.mark.release
@pytest.mark.parametrize("kind", sorted({*GGUF_TYPES} - {*NEED_IMATRIX, *CONVERTED}))
def test_every_other_type_can_be_made(f16, tmp_path, kind):
    quantize(f16, tmp_path / "x.gguf", kind)
    assert 1 < GgufFile(tmp_path / "x.gguf").bits_per_weight < 9
