"""Job files: what is read, and how what is wrong is named."""

from __future__ import annotations

import json

import pytest

from core.errors import UsageError
from core.jobs.schemas import FinetuneJob, MapJob, parse_job, read_job

MAP = {"kind": "map", "inputs": {"optical": ["a.tif"]}, "model": "m.safetensors", "output": "map.tif"}
TRAINING = {
    "kind": "finetune",
    "inputs": {"optical": ["a.tif"]},
    "labels": {"path": "l.gpkg", "class_field": "class"},
    "output_model": "m.safetensors",
}


def test_defaults_and_a_round_trip(tmp_path):
    job = parse_job(MAP)
    assert isinstance(job, MapJob)
    assert (job.overlap, job.format, job.device, job.extent) == (0.25, "gtiff", "auto", None)
    path = tmp_path / "job.json"
    path.write_text(job.model_dump_json())
    assert read_job(path) == job
    assert parse_job(json.loads(path.read_text())) == job


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({**MAP, "overlap": 0.8}, "map.overlap: Input should be less than or equal to 0.75 (got 0.8)"),
        ({**MAP, "format": "png"}, "map.format: Input should be 'gtiff' or 'cog' (got 'png')"),
        ({**MAP, "colour": "red"}, "map.colour: Extra inputs are not permitted (got 'red')"),
        ({**MAP, "inputs": {"optical": [1]}}, "map.inputs.optical.0: Input should be a valid string (got 1)"),
        ({**MAP, "inputs": {}}, "map.inputs: No raster was given. Give at least one of optical, sar, elevation and other."),
    ],
)
def test_what_is_wrong_is_named(job, message):
    with pytest.raises(UsageError) as caught:
        parse_job(job)
    assert caught.value.message == message


def test_everything_wrong_is_named_at_once():
    with pytest.raises(UsageError) as caught:
        parse_job({**MAP, "overlap": "half", "output": None, "depth": 3})
    for place in ("map.overlap", "map.output", "map.depth"):
        assert place in caught.value.message


def test_infinite_numbers_are_refused(tmp_path):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**MAP, "inputs": {"optical": ["a.tif"], "resolution": float("inf")}}))
    with pytest.raises(UsageError, match=r"map\.inputs\.resolution.*finite"):
        read_job(path)


def test_parts_of_a_model_are_the_architectures_own_by_default():
    job = parse_job(TRAINING)
    assert isinstance(job, FinetuneJob)
    assert (job.architecture, job.encoder, job.fusion, job.size) == ("unet_intermediate", None, None, None)
    assert job.missing_inputs == parse_job(MAP).missing_inputs == "allow"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"encoder": "resunet", "size": "tiny"},
            "'resunet' does not come in the size 'tiny'. Choose one of small, base, large.",
        ),
        ({"architecture": "vit_joint_tokens", "size": "large"}, "'vit' does not come in the size 'large'."),
        ({"encoder": "swin"}, "finetune.encoder: Input should be 'unet', 'resnet', 'resunet' or 'vit' (got 'swin')"),
        ({"fusion": "auto"}, "finetune.fusion: Input should be 'early', "),
        ({"missing_inputs": "ignore"}, "finetune.missing_inputs: Input should be 'allow' or 'require' (got 'ignore')"),
    ],
)
def test_parts_that_do_not_exist_are_named_before_anything_is_read(parts, message):
    with pytest.raises(UsageError) as caught:
        parse_job({**TRAINING, **parts})
    assert message in caught.value.message


def test_a_base_model_decides_itself_which_sizes_it_knows():
    assert parse_job({**TRAINING, "base_model": "b.safetensors", "encoder": "vit", "size": "large"})


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"mode": "linear"}, "a part of a base model, and none was given"),
        ({"mode": "scratch", "base_model": "b.safetensors"}, "starts from nothing"),
        ({"mode": "trees"}, "mode"),
    ],
)
def test_modes_that_do_not_go_with_the_rest(parts, words):
    with pytest.raises(UsageError, match=words):
        parse_job({**TRAINING, **parts})
