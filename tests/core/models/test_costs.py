"""What a forward pass is said to take beside what it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.models.costs import _LiveBytes, forward_bytes, forward_cost
from core.models.encoders.vit import VITS
from core.models.inference import for_inference
from core.models.registry import build_model, count_parameters
from core.models.specification import FusionName, HeadName
from tests.core.models.specifications import FUSIONS, MODALITY_SETS, combination, modality, specification

ROOT = Path(__file__).resolve().parents[3]


def test_memory_grows_with_the_area_the_width_and_the_inputs() -> None:
    usual = forward_bytes(specification("unet_early", "usual", width=24), 64, 64)
    assert forward_bytes(specification("unet_early", "usual", width=24), 128, 64) == pytest.approx(2 * usual, rel=1e-6)
    assert forward_bytes(specification("unet_early", "usual", width=48), 64, 64) > usual
    assert forward_bytes(specification("unet_early", "one", width=24), 64, 64) <= usual
    # The decoder holds what it interpolates, the finest level, and both side by side.
    assert usual > 4 * 64 * 64 * 2 * (48 + 24)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_parameters_are_those_of_the_model(fusion: FusionName) -> None:
    wanted = combination("per_sensor", "unet", fusion)
    assert forward_cost(wanted).parameters == count_parameters(build_model(wanted))


def operations_of_convolutions(model: torch.nn.Module, values: dict[str, torch.Tensor]) -> int:
    """Of the layers alone: a stem's kernels are no layer."""
    counted = 0

    def count(module: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * output.shape[-1] * output.shape[-2] * module.weight.numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)  # type: ignore[arg-type]
    with torch.no_grad():
        model(values)
    return counted


def test_operations_are_those_of_the_convolutions() -> None:
    wanted = specification("unet_early", "one", stem="per_sensor", width=8, depth=2)
    model = build_model(wanted).eval()
    counted = operations_of_convolutions(model, {"aerial_rgb": torch.zeros(1, 3, 64, 64)})
    stem = 2 * 64 * 64 * 3 * 8
    assert forward_cost(wanted).flops_per_pixel == pytest.approx((counted + stem) / 64**2, rel=1e-6)


def test_operations_of_attention_count() -> None:
    """Twice tokens x tokens x channels, for the scores and for the mean, with a multiplication and an addition each."""
    channels, blocks, _ = VITS["tiny"]
    wanted = combination("per_sensor", "vit", "joint_tokens", "one")
    cost = forward_cost(wanted)
    model = build_model(wanted).eval()
    patch = model.fusion.strides[0]
    side = -(-64 // model.step) * model.step
    tokens = 1 + (side // patch) ** 2
    attention = blocks * 4 * tokens**2 * channels / side**2
    linear = sum(m.weight.numel() for m in model.fusion.encoder.modules() if isinstance(m, torch.nn.Linear))
    others = cost.flops_per_pixel - attention - 2 * linear * tokens / side**2
    # What is left is the stem and the head, whose cost is that of convolutions.
    counted = operations_of_convolutions(model, {"aerial_rgb": torch.zeros(1, 3, side, side)})
    stem = 2 * (side // patch) ** 2 * patch**2 * 3 * channels
    assert others == pytest.approx((counted + stem) / side**2, rel=1e-3)


def test_twice_the_width_takes_about_four_times_the_operations() -> None:
    narrow, wide = (forward_cost(specification("unet_early", "one", stem="per_sensor", width=width)) for width in (16, 32))
    assert 3.3 < wide.flops_per_pixel / narrow.flops_per_pixel < 4
    assert 1.5 < wide.bytes_per_pixel / narrow.bytes_per_pixel < 2.5


@pytest.mark.parametrize("head", ["scene", "embedding", "change"])
def test_every_head_has_a_cost(head: HeadName) -> None:
    dense = forward_cost(combination("per_sensor", "unet", "early"))
    found = forward_cost(combination("per_sensor", "unet", "early", head=head))
    assert found.flops_per_pixel > 0
    assert (found.flops_per_pixel > 1.5 * dense.flops_per_pixel) == (head == "change")


def test_asking_leaves_the_random_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    forward_cost(combination("generated", "unet", "late"))
    assert torch.equal(torch.random.get_rng_state(), state)


ASKED = """
import sys

from core.models.costs import forward_bytes
from core.models.registry import model_step, receptive_radius
from tests.core.models.specifications import specification

for name in ("unet_early", "unet_any_sensor", "resunet_intermediate", "unet_asymmetric_attention"):
    wanted = specification(name, "three", width=None)
    print(model_step(wanted), receptive_radius(wanted), forward_bytes(wanted, 64, 64))
    assert "torch._dynamo" not in sys.modules, name
"""


def test_what_a_model_needs_is_found_without_loading_the_compiler_of_torch() -> None:
    # It takes a second and 70 MiB, in every process that maps.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, env=environment)
    assert told.returncode == 0, told.stderr


MEASURED = """
from pathlib import Path

import torch

from core.models.costs import forward_bytes
from core.models.inference import for_inference
from core.models.registry import build_model
from tests.core.models.specifications import inputs, specification


def peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


SIDE = 96
for name in ("unet_early", "unet_late", "unet_asymmetric_attention", "unet_joint_tokens", "unet_any_sensor",
             "resunet_intermediate"):
    wanted = specification(name, "three", width=None)
    model, values = for_inference(build_model(wanted).eval()), inputs(wanted, SIDE, SIDE)
    with torch.inference_mode():
        # Weights are put in their place, and libraries loaded.
        model(inputs(wanted, 32, 32))
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        model(values)
    print(name, peak() - before, forward_bytes(wanted, SIDE, SIDE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process can be asked for on Linux only")
def test_a_process_stays_below_the_memory_that_is_said() -> None:
    # Memory that is free is given back at once, so that one model does not run in what another left.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", MEASURED], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in told.stdout.splitlines()]
    assert len(lines) == 6
    for name, taken, said in lines:
        assert 0.2 * int(said) < int(taken) <= int(said), name


@pytest.mark.parametrize("n_classes", [5, 20])
@pytest.mark.parametrize("modalities", ["usual", "three", "four"])
def test_inputs_with_gaps_take_no_more_than_is_said(modalities: str, n_classes: int) -> None:
    """Most of the linear models beside a network are asked of such a tile, each of which makes scores of every pixel."""
    four = (*MODALITY_SETS["three"], modality("thermal", 1, "other"))
    wanted = specification("unet_intermediate", n_classes=n_classes, width=16, has_shortcut=True)
    wanted = wanted.model_copy(update={"modalities": four if modalities == "four" else MODALITY_SETS[modalities]})
    model, side = for_inference(build_model(wanted).eval()), 128
    torch.manual_seed(0)
    values = {}
    for entry in wanted.modalities:
        own = side * entry.finer // entry.coarser
        gone = torch.rand(1, 1, own // 16, own // 16).lt(0.25).repeat_interleave(16, 2).repeat_interleave(16, 3)
        values[entry.name] = torch.randn(1, len(entry.bands), own, own).masked_fill(gone, torch.nan)
    memory = _LiveBytes()
    with torch.no_grad(), memory:
        model(values)
    said = forward_cost(wanted).bytes_per_pixel * side * side
    assert 0.5 * said < memory.peak < said
