"""What is chosen for machines that are not here."""

import pytest

from kit.cli.errors import UserError
from kit.planning.engine_choice import choose_engine
from kit.planning.hardware import Machine

LAPTOP = Machine(card=None)
T4 = Machine("Tesla T4", (7, 5), 14.6, has_vllm=True)
RTX_3060 = Machine("NVIDIA GeForce RTX 3060", (8, 6), 11.6, has_vllm=True)


@pytest.mark.parametrize(("machine", "dtype"), [(LAPTOP, "float32"), (T4, "float16"), (RTX_3060, "bfloat16")])
def test_number_type_follows_the_compute_capability(machine, dtype):
    assert choose_engine(machine).dtype == dtype


def test_vllm_is_on_where_card_and_package_are():
    assert choose_engine(T4).use_vllm
    assert not choose_engine(T4, vllm="off").use_vllm
    assert not choose_engine(LAPTOP).use_vllm
    assert "no CUDA card" in choose_engine(LAPTOP).reason
    assert not choose_engine(Machine("Tesla T4", (7, 5), 14.6, has_vllm=False)).use_vllm


def test_require_refuses_instead_of_falling_back():
    with pytest.raises(UserError, match="no CUDA card"):
        choose_engine(LAPTOP, vllm="require")


def test_a_processor_has_vllm_where_its_build_is_and_takes_the_heads():
    machine = Machine(card=None, has_vllm=True)
    assert choose_engine(machine, head=64).use_vllm
    assert not choose_engine(machine, "off", head=64).use_vllm
    assert "no attention heads of 16" in choose_engine(machine, head=16).reason
    with pytest.raises(UserError, match="no attention heads of 16"):
        choose_engine(machine, "require", head=16)
