"""From a scene to the specification of a model for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.errors import RasterError, UsageError
from core.models.architectures import ArchitectureName, choose_parts
from core.models.encoders.build import UNET_WIDTHS
from core.models.specification import (
    MOST_INPUTS,
    BandSpecification,
    EncoderName,
    FusionName,
    ModalitySpecification,
    ModelSpecification,
    SizeName,
)
from core.scenes.grid import Scale
from core.scenes.scene import Acquisition, Scene, free_name
from core.sensors import robust_statistics

LEAST_WIDTH = 8
"""Channels of the finest level of ``unet`` below which it is not halved."""

FLAT = 1e-6
"""A band that varies less than this around its mean tells nothing; its spread counts as one."""


def specify_model(
    scene: Scene,
    architecture: ArchitectureName,
    n_classes: int,
    *,
    encoder: EncoderName | None = None,
    fusion: FusionName | None = None,
    size: SizeName | None = None,
) -> ModelSpecification:
    """A model over all acquisitions of a scene.

    Bands are normalised by the registry's statistics, so that the model transfers; where the registry has none, by the
    scene's own robust statistics, which then stay with the model.

    Args:
        scene: whose acquisitions are the inputs.
        architecture: name in the registry of architectures.
        n_classes: channels of the output.
        encoder, fusion, size: take the place of the architecture's own.

    Raises:
        UsageError: the encoder does not come in that size.
    """
    parts = choose_parts(architecture, encoder, fusion, size)
    check_count(len(scene.acquisitions))
    return ModelSpecification(
        architecture=architecture,
        stem=parts.stem,
        encoder=parts.encoder,
        size=parts.size,
        fusion=parts.fusion,
        has_shortcut=parts.stem == "statistics",
        modalities=tuple(_specify_modality(acquisition) for acquisition in scene.acquisitions),
        n_classes=n_classes,
        resolution_m=round(scene.grid.resolution_m(), 6),
    )


def with_inputs_of(specification: ModelSpecification, scenes: Sequence[Scene]) -> ModelSpecification:
    """The specification with the acquisitions of scenes that it does not know, behind its own.

    Raises:
        UsageError: two scenes mean different things by one name, or there are too many.
    """
    added: dict[str, ModalitySpecification] = {}
    for scene in scenes:
        for acquisition in scene.acquisitions:
            if acquisition.name in {entry.name for entry in specification.modalities}:
                continue
            found = _specify_modality(acquisition)
            known = added.setdefault(found.name, found)
            same = (known.sensor, known.band_names, known.finer, known.coarser)
            if same != (found.sensor, found.band_names, found.finer, found.coarser):
                raise UsageError(
                    f"The scenes have different rasters for the new input '{found.name}'.",
                    "Give rasters of the same sensor, bands and pixel size in all of them.",
                )
    modalities = (*specification.modalities, *added.values())
    check_count(len(modalities))
    return specification.model_copy(update={"modalities": modalities})


def check_count(inputs: int) -> None:
    """Raises:
    UsageError: more inputs than a model takes.
    """
    if inputs > MOST_INPUTS:
        raise UsageError(
            f"The rasters make {inputs} inputs; a model takes at most {MOST_INPUTS}.",
            "Stack rasters of one kind into one file, or leave some out.",
        )


def with_classes(specification: ModelSpecification, n_classes: int) -> ModelSpecification:
    """A base model's specification with a head for classes; a model that knew none gets the linear model beside it, too."""
    has_shortcut = specification.has_shortcut or (specification.head == "embedding" and specification.stem == "statistics")
    return specification.model_copy(
        update={"n_classes": n_classes, "head": "dense", "has_shortcut": has_shortcut and not specification.has_dates}
    )


def with_change(specification: ModelSpecification, n_classes: int) -> ModelSpecification:
    """The specification with the head of change between two dates.

    Linear models see one date and go. Nothing is left out at random in training: what is withheld from one date alone is
    change to the head.
    """
    kept = {"dropout": 0.0, "statistics_dropout": 0.0, "has_shortcut": False}
    return specification.model_copy(update={"n_classes": n_classes, "head": "change", **kept})


_HALVES: dict[tuple[EncoderName, SizeName], SizeName] = {
    ("resnet", "small"): "tiny",
    ("resunet", "large"): "base",
    ("resunet", "base"): "small",
    ("vit", "base"): "small",
    ("vit", "small"): "tiny",
}
"""Sizes of encoders of which one is the other with half the channels."""


def with_half_width(specification: ModelSpecification) -> ModelSpecification:
    """The specification with half the channels in its encoders and decoder.

    Raises:
        UsageError: its encoder does not come in half the width.
    """
    encoder, size = specification.encoder, specification.size
    if encoder == "unet":
        width = (specification.width or UNET_WIDTHS[size]) // 2
        if width >= LEAST_WIDTH:
            return specification.model_copy(update={"width": width})
    elif (encoder, size) in _HALVES:
        return specification.model_copy(update={"size": _HALVES[encoder, size]})
    raise UsageError(
        f"The model's encoder '{encoder}' of size '{size}' does not come in half its width.",
        "Train a smaller model, such as the architecture 'unet_early' in the size 'tiny'.",
    )


def specify_for_scenes(
    scenes: Sequence[Scene],
    architecture: ArchitectureName,
    *,
    encoder: EncoderName | None = None,
    fusion: FusionName | None = None,
    size: SizeName | None = None,
) -> tuple[ModelSpecification, tuple[Scene, ...]]:
    """A model without classes over all that several scenes have, and the scenes with its names for their acquisitions.

    Rasters of two scenes are one input where role, sensor, bands and scale are the same. An input is normalised by the
    statistics of the first scene that has it, where the registry has none.

    Args:
        scenes: one or more.
        architecture, encoder, fusion, size: see ``specify_model``.

    Raises:
        UsageError: the encoder does not come in that size.
    """
    modalities: dict[tuple[str, str, tuple[str, ...], Scale], ModalitySpecification] = {}
    renamed = []
    for scene in scenes:
        own = []
        for acquisition in scene.acquisitions:
            key = (acquisition.role, acquisition.sensor.name, acquisition.bands, acquisition.scale)
            if key not in modalities:
                taken = {entry.name for entry in modalities.values()}
                name = free_name(acquisition.name, taken)
                modalities[key] = _specify_modality(acquisition).model_copy(update={"name": name})
            own.append(replace(acquisition, name=modalities[key].name))
        renamed.append(replace(scene, acquisitions=tuple(own)))
    parts = choose_parts(architecture, encoder, fusion, size)
    check_count(len(modalities))
    specification = ModelSpecification(
        architecture=architecture,
        stem=parts.stem,
        encoder=parts.encoder,
        size=parts.size,
        fusion=parts.fusion,
        head="embedding",
        modalities=tuple(modalities.values()),
        n_classes=1,
        resolution_m=round(scenes[0].grid.resolution_m(), 6),
    )
    return specification, tuple(renamed)


def _specify_modality(acquisition: Acquisition) -> ModalitySpecification:
    bands, samples = [], None
    for name in acquisition.bands:
        source = next(source for source in acquisition.files if source.band_index(name) is not None)
        # The band as this file holds it: without the registry's statistics where its values are not physical.
        band = next(band for band in source.identified.bands if band.name == name)
        if band.mean is not None and band.standard_deviation is not None:
            mean, deviation = band.mean, band.standard_deviation
        else:
            # Made once for all bands: a spectrometer has hundreds.
            samples = _physical_samples(acquisition) if samples is None else samples
            mean, deviation = _scene_statistics(acquisition, name, samples)
        bands.append(
            BandSpecification(
                name=name,
                mean=mean,
                standard_deviation=deviation if deviation > FLAT else 1.0,
                center_nm=band.center_nm,
                fwhm_nm=band.fwhm_nm,
                polarization=band.polarization if acquisition.sensor.kind == "sar" else None,
                orbit=source.identified.orbit_direction,
            )
        )
    return ModalitySpecification(
        name=acquisition.name,
        role=acquisition.role,
        sensor=acquisition.sensor.name,
        kind=acquisition.sensor.kind,
        bands=tuple(bands),
        finer=acquisition.scale.finer,
        coarser=acquisition.scale.coarser,
    )


def specify_for_other_sensors(specification: ModelSpecification, scene: Scene) -> ModelSpecification:
    """The specification with the scene's own sensors and bands in the place of those that it lacks.

    Only a model whose kernels are generated from what the bands are can do with that: its weights stay what they are.

    Args:
        specification: of such a model.
        scene: to be mapped.
    """
    found = _matched(specification, scene)
    replaced = {}
    for modality in specification.modalities:
        if modality.name not in found:
            continue
        own = _specify_modality(found[modality.name]).model_copy(update={"name": modality.name})
        if own.sensor != modality.sensor or not set(modality.band_names) <= set(own.band_names):
            replaced[modality.name] = own
            continue
        orbits = {band.name: band.orbit for band in own.bands}
        bands = tuple(band.model_copy(update={"orbit": orbits[band.name]}) for band in modality.bands)
        # The same sensor from the other side: its statistics stay the model's, its kernels are those of this orbit.
        replaced[modality.name] = modality.model_copy(update={"bands": bands})
    modalities = tuple(replaced.get(entry.name, entry) for entry in specification.modalities)
    return specification.model_copy(update={"modalities": modalities})


def _matched(specification: ModelSpecification, scene: Scene) -> dict[str, Acquisition]:
    """Which acquisition each modality is shown: its own sensor first, and one of the same kind that no other has taken."""
    found: dict[str, Acquisition] = {}
    for own_sensor in (True, False):
        for modality in specification.modalities:
            taken = {acquisition.name for acquisition in found.values()}
            free = [a for a in scene.acquisitions if a.name not in taken and _is_alike(modality, a, own_sensor)]
            if modality.name not in found and free:
                found[modality.name] = free[0]
    return found


def _is_alike(modality: ModalitySpecification, acquisition: Acquisition, own_sensor: bool) -> bool:
    if own_sensor:
        return acquisition.role == modality.role and acquisition.sensor.name == modality.sensor
    return acquisition.sensor.kind == modality.kind


Samples = list[dict[str, NDArray[np.float32]]]


def _physical_samples(acquisition: Acquisition) -> Samples:
    """Values of the pixels that were looked at when the rasters were opened, by file and band, NaN = missing."""
    samples = []
    for source in acquisition.files:
        if source.raster.description.sample is not None:
            matched = source.identified.match.bands
            stored = source.raster.description.sample[[index - 1 for _, index in matched]][:, :, None]
            physical = source.identified.calibration.apply(stored)[:, :, 0]
            samples.append({name: values for (name, _), values in zip(matched, physical, strict=True)})
    return samples


def _scene_statistics(acquisition: Acquisition, band: str, samples: Samples) -> tuple[float, float]:
    """Robust mean and standard deviation of a band over the rasters that have it.

    Raises:
        RasterError: it has no plausible value anywhere.
    """
    parts = [of_file[band] for of_file in samples if band in of_file]
    values = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if not np.isfinite(values).any():
        raise RasterError(
            f"Band {band} of '{acquisition.paths[0]}' has no plausible value anywhere that was looked at.",
            f"It was read as {acquisition.sensor.title}; set the sensor if that is wrong.",
        )
    mean, deviation = robust_statistics(values[None])
    return float(np.ravel(mean)[0]), float(np.ravel(deviation)[0])
