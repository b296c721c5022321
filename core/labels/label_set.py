"""Labels as values: the shapes, their classes, and what became of the features that were read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.labels.scheme import ClassScheme
from core.labels.schemes import listed


@dataclass(frozen=True)
class LabelReport:
    """What was read, what was left out and why.

    Attributes:
        features_read: features in the layer.
        without_class: features whose class field is empty.
        without_geometry: features with no or an empty geometry.
        repaired: ids of the features whose geometry was invalid and could be repaired.
        unusable: ids of the features whose geometry could not be read, repaired or projected.
        outside_scene: ids of the features that do not touch the scene.
        classes_outside: label values that occur only outside the scene.
        features_per_class: in the order of the scheme.
        notes: sentences on how the class scheme came about.
        pixels_per_class: in the order of the scheme; empty until ``finish_report``.
        conflicts: pixels claimed by different classes, which no class gets.
        without_pixel: ids of the features that were left without a pixel.
        sparse_classes: names and pixels of the classes with fewer than ``minimum_pixels``.
        minimum_pixels: the fewest pixels of a class that are not remarked upon.
    """

    features_read: int
    without_class: int
    without_geometry: int
    repaired: tuple[int, ...]
    unusable: tuple[int, ...]
    outside_scene: tuple[int, ...]
    classes_outside: tuple[str, ...]
    features_per_class: tuple[int, ...]
    notes: tuple[str, ...] = ()
    pixels_per_class: tuple[int, ...] = ()
    conflicts: int = 0
    without_pixel: tuple[int, ...] = ()
    sparse_classes: tuple[tuple[str, int], ...] = ()
    minimum_pixels: int = 0

    @property
    def features_used(self) -> int:
        return sum(self.features_per_class)

    def remarks(self) -> list[str]:
        """What the user should know, a sentence each; empty where everything went in as it was."""
        remarks = list(self.notes)
        for count, text in (
            (self.without_class, "without a class were left out"),
            (self.without_geometry, "without a geometry were left out"),
            (len(self.outside_scene), "outside the scene were left out"),
        ):
            if count:
                remarks.append(f"{count} of {self.features_read} features {text}.")
        if self.classes_outside:
            remarks.append(f"Classes with labels outside the scene only: {listed(self.classes_outside)}.")
        if self.repaired:
            remarks.append(f"Invalid geometries were repaired: features {listed(self.repaired)}.")
        if self.unusable:
            remarks.append(f"Geometries that cannot be used were left out: features {listed(self.unusable)}.")
        if self.conflicts:
            remarks.append(f"{self.conflicts} pixels lie in labels of different classes and are ignored.")
        if self.without_pixel:
            remarks.append(
                "Features without a pixel of their own, because others cover them or they only graze the scene: "
                f"{listed(self.without_pixel)}."
            )
        for name, pixels in self.sparse_classes:
            remarks.append(f"The class '{name}' has {pixels} pixels; fewer than {self.minimum_pixels} teach little.")
        return remarks


@dataclass(frozen=True, eq=False)
class LabelSet:
    """The labels of a scene.

    Attributes:
        geometries: (N,) shapely polygons, points or their multi-parts, two-dimensional, valid, in ``crs``.
        crs: that of the scene's grid.
        class_index: (N,) int16, index into ``scheme.classes``.
        feature_ids: (N,) int64, the features' ids in the source.
        scheme: the classes.
        report: what became of the features read.
        source: the file they came from, for messages.
    """

    geometries: np.ndarray
    crs: str
    class_index: np.ndarray
    feature_ids: np.ndarray
    scheme: ClassScheme
    report: LabelReport
    source: str = ""

    def __post_init__(self) -> None:
        shapes = {self.geometries.shape, self.class_index.shape, self.feature_ids.shape}
        if len(shapes) != 1 or self.geometries.ndim != 1:
            raise ValueError(f"Geometries, classes and ids are one a feature; got the shapes {sorted(shapes)}.")
        if len(self) and not (self.class_index.min() >= 0 and self.class_index.max() < len(self.scheme)):
            raise ValueError("A class index lies outside the class scheme.")

    def __len__(self) -> int:
        return len(self.geometries)
