"""Which kernel runs where, and what is said when the one asked for cannot. No GPU is needed for a choice."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from longvila.errors import ConfigError
from longvila.parallel.heads import UniformHeads
from longvila.parallel.kernels import (
    KERNEL_NAMES,
    CpuFlash,
    CudaCudnn,
    CudaEfficient,
    CudaFlash,
    FlashAttn2,
    FlashAttn3,
    FlashAttn4,
    Kernel,
    Plain,
    pick_kernel,
)
from longvila.parallel.kernels.pick import AUTO, Site, kernel_for
from tests.parallel.flash_attn_stand_in import PACKAGES, module

AMPERE, ADA, HOPPER, BLACKWELL, RTX_BLACKWELL = (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)
ONE = (UniformHeads(slice(0, 1), slice(0, 1)),)


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kernel_for.cache_clear()
    for name in (*(package.__name__ for package in PACKAGES.values()), "flash_attn_3.flash_attn_interface"):
        monkeypatch.setitem(sys.modules, name, None)
    yield
    kernel_for.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, PACKAGES[name].__name__, PACKAGES[name])


def site(capability: tuple[int, int], *, dtype: torch.dtype = torch.bfloat16, head_size: int = 128) -> Site:
    return Site("cuda", capability, dtype, head_size)


@pytest.mark.parametrize(
    ("capability", "installed", "kernel"),
    [
        (HOPPER, "234", FlashAttn3),
        (HOPPER, "24", FlashAttn4),
        (HOPPER, "2", FlashAttn2),
        (HOPPER, "", CudaFlash),
        (BLACKWELL, "234", FlashAttn4),
        (BLACKWELL, "23", FlashAttn2),
        (BLACKWELL, "3", CudaFlash),
        (RTX_BLACKWELL, "234", FlashAttn4),
        ((11, 0), "23", CudaFlash),  # flash-attn 2 is not built for it
        (AMPERE, "234", FlashAttn2),
        (ADA, "34", CudaFlash),
        ((7, 5), "234", Plain),
    ],
)
def test_auto_takes_the_best_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: str, kernel: type[Kernel]
) -> None:
    install(monkeypatch, (f"flash_attn_{version}" for version in installed))
    assert type(kernel_for(site(capability), "auto")) is kernel


@pytest.mark.parametrize(
    ("where", "kernel"),
    [
        (site(HOPPER, dtype=torch.float32), CudaEfficient),
        (site(HOPPER, dtype=torch.float64), Plain),
        (site(HOPPER, dtype=torch.float16, head_size=257), Plain),
        (site(HOPPER, head_size=256), FlashAttn3),
        (site(BLACKWELL, head_size=136), FlashAttn2),
        (Site("cpu", (0, 0), torch.float64, 300), CpuFlash),
        (Site("mps", (0, 0), torch.float16, 64), Plain),
    ],
)
def test_auto_takes_what_suits_the_tensors(
    monkeypatch: pytest.MonkeyPatch, where: Site, kernel: type[Kernel]
) -> None:
    install(monkeypatch, PACKAGES)
    assert type(kernel_for(where, "auto")) is kernel


def test_every_name_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, PACKAGES)
    wanted = {
        "flash_attn_2": FlashAttn2,
        "flash_attn_3": FlashAttn3,
        "flash_attn_4": FlashAttn4,
        "torch_flash": CudaFlash,
        "cudnn": CudaCudnn,
        "plain": Plain,
    }
    for name, kernel in wanted.items():
        assert type(kernel_for(site(HOPPER), name)) is kernel
    assert type(kernel_for(site(HOPPER, dtype=torch.float32), "efficient")) is CudaEfficient
    assert isinstance(pick_kernel(torch.empty(1, 1, 8), ONE, name="cpu"), CpuFlash)
    assert set(KERNEL_NAMES) == {"auto", "efficient", "cpu", *wanted}
    assert set(KERNEL_NAMES) - set(AUTO) == {"auto", "cudnn"}


@pytest.mark.parametrize(
    ("name", "where", "says"),
    [
        (
            "flash",
            site(HOPPER),
            "attention_kernel=flash is unknown. Use one of auto, flash_attn_2, flash_attn_3, flash_attn_4, "
            "torch_flash, cudnn, efficient, cpu, plain.",
        ),
        (
            "cudnn",
            Site("cpu", (0, 0), torch.bfloat16, 64),
            "attention_kernel=cudnn runs on cuda, but the tensors are on cpu. Use attention_kernel=auto.",
        ),
        (
            "cpu",
            site(HOPPER),
            "attention_kernel=cpu runs on cpu, but the tensors are on cuda. Use attention_kernel=auto.",
        ),
        (
            "torch_flash",
            site(HOPPER, dtype=torch.float32),
            "attention_kernel=torch_flash takes float16 or bfloat16, but the tensors are float32. "
            "Convert them, or use attention_kernel=auto.",
        ),
        (
            "efficient",
            site(HOPPER, dtype=torch.float64),
            "attention_kernel=efficient takes float32, but the tensors are float64. "
            "Convert them, or use attention_kernel=auto.",
        ),
        (
            "flash_attn_3",
            site(RTX_BLACKWELL),
            "attention_kernel=flash_attn_3 has no code for a device of compute capability 12.0. "
            "Use attention_kernel=auto.",
        ),
        (
            "flash_attn_4",
            site(AMPERE),
            "attention_kernel=flash_attn_4 has no code for a device of compute capability 8.0. "
            "Use attention_kernel=auto.",
        ),
        (
            "flash_attn_4",
            site(BLACKWELL, head_size=192),
            "attention_kernel=flash_attn_4 takes head sizes up to 128 here, but the LLM has 192. "
            "Use attention_kernel=auto.",
        ),
        (
            "flash_attn_2",
            site(AMPERE),
            "attention_kernel=flash_attn_2 needs flash-attn 2.7 or later, which cannot be imported here. "
            "Install it with `pip install flash-attn --no-build-isolation`, or use attention_kernel=auto.",
        ),
        (
            "flash_attn_3",
            site(HOPPER),
            "attention_kernel=flash_attn_3 needs flash-attn 3 of December 2025 or later, which cannot be "
            "imported here. Install it with `pip install --no-build-isolation "
            '"git+https://github.com/Dao-AILab/flash-attention#subdirectory=hopper"`, '
            "or use attention_kernel=auto.",
        ),
        (
            "flash_attn_4",
            site(HOPPER),
            "attention_kernel=flash_attn_4 needs flash-attn 4, which cannot be imported here. "
            "Install it with `pip install flash-attn-4`, or use attention_kernel=auto.",
        ),
    ],
)
def test_what_cannot_run_is_refused(name: str, where: Site, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        kernel_for(where, name)
    assert str(refused.value) == says


@pytest.mark.parametrize("kernel", [FlashAttn2, FlashAttn3, FlashAttn4])
def test_a_kernel_without_its_package_is_refused(kernel: type[Kernel]) -> None:
    with pytest.raises(ConfigError, match=rf"{kernel.__name__} needs .* Install it with `pip install .*`\."):
        kernel()


def test_flash_attn_3_may_be_in_a_package_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn_3.flash_attn_interface", PACKAGES["flash_attn_3"])
    assert type(kernel_for(site(HOPPER), "auto")) is FlashAttn3


def test_a_package_too_old_to_take_two_sides_of_a_window_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def old(q: Tensor, k: Tensor, v: Tensor, window_size: tuple[int, int] = (-1, -1)) -> None: ...

    name = PACKAGES["flash_attn_2"].__name__
    monkeypatch.setitem(sys.modules, name, module(name, _flash_attn_forward=old, _flash_attn_backward=old))
    assert type(kernel_for(site(AMPERE), "auto")) is CudaFlash


def test_the_custom_ops_of_torch_that_packages_have_today_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def op(q: Tensor, window_size_left: int, window_size_right: int) -> Tensor:
        return q.clone()

    custom = torch.library.custom_op("longvila_tests::flash_attn_forward", op, mutates_args=())
    name = PACKAGES["flash_attn_2"].__name__
    found = module(name, _flash_attn_forward=custom, _flash_attn_backward=custom)
    monkeypatch.setitem(sys.modules, name, found)
    assert type(kernel_for(site(AMPERE), "auto")) is FlashAttn2


def test_a_broken_package_is_passed_over_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> ModuleType:
        raise ImportError("undefined symbol: _ZN3c10")

    monkeypatch.setattr(importlib, "import_module", broken)
    with caplog.at_level(logging.WARNING):
        assert type(kernel_for(site(AMPERE), "auto")) is CudaFlash
    assert "flash_attn.flash_attn_interface is installed, but cannot be imported: undefined" in caplog.text


def test_the_choice_is_made_for_the_tensors_given(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, PACKAGES)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: HOPPER)
    with FakeTensorMode():
        q = torch.empty(4, 2, 64, device="cuda", dtype=torch.float16)
    assert isinstance(pick_kernel(q, ONE), FlashAttn3)
    assert isinstance(pick_kernel(q, ONE, name="torch_flash"), CudaFlash)
    with pytest.raises(ConfigError, match="the tensors are float16"):
        pick_kernel(q, ONE, name="efficient")
