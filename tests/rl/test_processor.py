"""In which dtype a machine is fast, by its name and instructions."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from rl import processor


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.shutil, "which", lambda name: None)


@pytest.mark.parametrize(
    ("vendor", "flags", "native", "faster"),
    [
        ("AuthenticAMD", "fpu avx2 avx512f avx512_bf16", True, True),
        ("AuthenticAMD", "fpu avx2", False, False),
        ("GenuineIntel", "fpu avx512f", False, False),
        ("GenuineIntel", "fpu avx512_bf16", True, False),
        ("GenuineIntel", "fpu avx512_bf16 amx_bf16", True, True),
    ],
)
@pytest.mark.usefixtures("no_gpu")
def test_a_processor_is_known_by_its_instructions(
    vendor: str, flags: str, native: bool, faster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = f"vendor_id\t: {vendor}\nmodel name\t: of a kind\nflags\t\t: {flags}\n\n"
    (tmp_path / "cpuinfo").write_text(2 * f"processor\t: 0\n{core}")
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    assert processor.has_bfloat16.__wrapped__() == native
    assert processor.multiplies_bfloat16_faster.__wrapped__() == faster


@pytest.mark.parametrize("text", [None, "processor : 0\nFeatures : fp asimd bf16\n"])
@pytest.mark.usefixtures("no_gpu")
def test_an_unknown_one_is_taken_for_a_fast_one(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    assert processor.has_bfloat16.__wrapped__() and processor.multiplies_bfloat16_faster.__wrapped__()


@pytest.mark.parametrize(("answer", "native"), [("9.0\n9.0\n", True), ("8.0\n", True), ("7.5\n", False)])
def test_a_gpu_is_known_by_its_capability(answer: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processor.shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=answer))
    assert processor.has_bfloat16.__wrapped__() == native


def test_a_driver_without_a_gpu_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="No devices were found\n"))
    (tmp_path / "cpuinfo").write_text("vendor_id : AuthenticAMD\nflags : fpu avx2\n")
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    assert not processor.has_bfloat16.__wrapped__()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_not_asked(hidden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="9.0\n"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    (tmp_path / "cpuinfo").write_text("vendor_id : AuthenticAMD\nflags : fpu avx2\n")
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    assert not processor.has_bfloat16.__wrapped__()
