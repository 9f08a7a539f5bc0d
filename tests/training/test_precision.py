import pytest
import torch

from prunas.cli import main
from prunas.experiments.plan import make_setting
from prunas.recipe import RECIPES
from prunas.space import load_space
from prunas.training import precision
from prunas.training.precision import fast_bf16, fastest

CPU = torch.device("cpu")
FLAGS = {
    "flags\t\t: fpu sse2 avx512f avx512_bf16 vaes\n": True,
    "flags\t\t: fpu sse2 amx_bf16 amx_tile\n": True,
    "flags\t\t: fpu sse2 avx2 avx512f\n": False,
    "bogus\t\t: avx512_bf16\n": False,
}


@pytest.fixture
def processor(tmp_path, monkeypatch):
    def make(flags):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
        monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")

    monkeypatch.setenv("PRUNAS_DEVICE", "cpu")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    return make


@pytest.mark.parametrize(("flags", "fast"), FLAGS.items(), ids=["avx512", "amx", "neither", "elsewhere"])
def test_a_processor_is_fast_in_bf16_if_it_says_so(processor, flags, fast):
    processor(flags)
    assert fast_bf16(CPU) is fast


@pytest.mark.parametrize(
    ("limit", "fast"), [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_BF16", True), ("ALL", True)]
)
def test_a_process_may_be_kept_from_what_its_processor_can(processor, monkeypatch, limit, fast):
    processor(next(iter(FLAGS)))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert fast_bf16(CPU) is fast


def test_elsewhere_nobody_knows(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "nothing")
    assert fastest(CPU) == {"precision": "fp32"}


def test_auto_is_resolved_before_hashing(processor, small_space):
    def chosen(**changes):
        return make_setting(load_space(str(small_space)), changes=changes).recipe

    fast, _, slow, _ = FLAGS
    processor(fast)
    assert chosen(precision="auto") == chosen(precision="bf16", channels_last=True)
    assert chosen(precision="auto", channels_last=False) == chosen(precision="bf16")
    processor(slow)
    assert chosen(precision="auto").identity == chosen().identity
    assert RECIPES["paper"].precision == "fp32"


@pytest.mark.parametrize(("flags", "warned"), list(FLAGS.items())[:3])
def test_who_asks_for_emulated_bf16_is_told(processor, small_space, tmp_path, capsys, flags, warned):
    processor(flags)
    command = ["train", str(small_space), "--precision", "bf16", "--epochs", "1", "--images", "64"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", str(tmp_path / "runs"), "--json"])
    assert not ended.value.code
    said = capsys.readouterr().err
    assert ("bf16 will be slow" in said) is not warned


def test_a_transfer_is_told_too(processor, small_space, tmp_path, capsys):
    processor("flags\t\t: fpu sse2 avx2\n")
    command = [
        "transfer",
        "--from",
        str(small_space),
        "--to",
        str(small_space),
        "--no-controls",
        "--no-dense",
    ]
    shorter = ["--keep", "0.5", "--seeds", "1", "--epochs", "1", "--images", "64", "--precision", "bf16"]
    with pytest.raises(SystemExit) as ended:
        main([*command, *shorter, "--out", str(tmp_path / "runs"), "--json"])
    assert not ended.value.code
    assert capsys.readouterr().err.count("bf16 will be slow") == 1
