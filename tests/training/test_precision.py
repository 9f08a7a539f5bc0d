import pytest
import torch

from prunas.cli import main
from prunas.experiments.forecast import forecast
from prunas.experiments.plan import make_plan, make_setting
from prunas.recipe import RECIPES
from prunas.spaces.load import load_space
from prunas.training import precision, step
from prunas.training.precision import algorithm_search, fast_bf16, fastest, float32_arithmetic

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


@pytest.fixture
def defaults():
    """Afterwards torch multiplies as a fresh process does."""
    yield
    float32_arithmetic(torch.device("cuda"), convolutions="tf32", products="ieee")


@pytest.mark.parametrize("convolutions", ["ieee", "tf32"])
@pytest.mark.parametrize("products", ["ieee", "tf32"])
def test_old_and_new_switches_of_float32_agree(defaults, convolutions, products):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    for before in ("tf32", "ieee"):
        float32_arithmetic(torch.device("cuda"), convolutions=before, products=before)
        float32_arithmetic(CPU, convolutions="tf32", products="tf32")  # says nothing to CUDA
        assert (cudnn.conv.fp32_precision, matmul.fp32_precision) == (before, before)
        float32_arithmetic(torch.device("cuda"), convolutions=convolutions, products=products)
        assert (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == (convolutions, convolutions)
        assert matmul.fp32_precision == products
        # torch raises here if the two kinds of switches contradict each other.
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (convolutions == "tf32", products == "tf32")
        assert torch.get_float32_matmul_precision() == ("high" if products == "tf32" else "highest")


def test_a_search_for_algorithms_is_as_before_afterwards():
    before = torch.backends.cudnn.benchmark
    with algorithm_search(True):
        with pytest.raises(ZeroDivisionError), algorithm_search(False):
            assert not torch.backends.cudnn.benchmark
            raise ZeroDivisionError
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark is before


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_a_forecast_is_timed_in_the_precision_of_the_trainings(processor, small_space, monkeypatch, kind):
    setting = make_setting(load_space(str(small_space)), changes={"epochs": 1, "precision": kind})
    plan = make_plan(setting, ["uniform"], seeds=1, controls=False, dense=False)
    computed, told = set(), []
    linear = torch.nn.Linear.forward

    def noting(self, x):
        computed.add((output := linear(self, x)).dtype)
        return output

    monkeypatch.setattr(torch.nn.Linear, "forward", noting)
    monkeypatch.setattr(step, "arithmetic", lambda recipe, device: told.append(recipe.precision))
    forecast(plan).seconds(plan)
    assert computed == {torch.bfloat16 if kind == "bf16" else torch.float32}
    assert set(told) == {kind}
