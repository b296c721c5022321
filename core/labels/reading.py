"""Vector files to labels: every feature that cannot be used is counted or named, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyogrio.errors
import pyogrio.raw
import shapely
from pyproj import Transformer
from pyproj.exceptions import ProjError

from core.errors import LabelError, NothingInsideError
from core.labels.label_set import LabelReport, LabelSet
from core.labels.scheme import ClassScheme
from core.labels.schemes import StyleClass, class_text, extended_scheme, listed, match_classes, resolve_with_notes
from core.scenes.grid import Bounds, Grid, parsed_crs, same_crs

FILE_ERRORS = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.GeometryError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.FieldError,
)
_POINTS = (shapely.GeometryType.POINT, shapely.GeometryType.MULTIPOINT)
_POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
_LINES = (
    shapely.GeometryType.LINESTRING,
    shapely.GeometryType.LINEARRING,
    shapely.GeometryType.MULTILINESTRING,
)


@dataclass(frozen=True)
class _Features:
    """Features as the file has them."""

    ids: np.ndarray  # (N,) int64
    geometries: np.ndarray  # (N,) object, None where missing or unreadable
    unreadable: np.ndarray  # (N,) bool, there are bytes, and they are no geometry
    values: np.ndarray  # (N,) of the class field
    crs: str

    def select(self, kept: np.ndarray) -> _Features:
        return _Features(self.ids[kept], self.geometries[kept], self.unreadable[kept], self.values[kept], self.crs)


@dataclass(frozen=True, eq=False)
class Shapes:
    """The features of a file that touch a scene, and what became of the others.

    Attributes:
        geometries: (N,) shapely, two-dimensional, valid, in the system of the scene's grid.
        ids: (N,) int64, the features' ids in the source.
        texts: (N,) of the field; None where no field was asked for.
        features_read, without_text, without_geometry: numbers of features.
        outside_scene, repaired, unusable: ids, as in ``LabelReport``.
        texts_outside: texts that occur only outside the scene.
    """

    geometries: np.ndarray
    ids: np.ndarray
    texts: np.ndarray
    features_read: int
    without_text: int
    without_geometry: int
    outside_scene: tuple[int, ...]
    repaired: tuple[int, ...]
    unusable: tuple[int, ...]
    texts_outside: tuple[str, ...]


def read_shapes(path: str | Path, field: str | None, grid: Grid, layer: str | None = None) -> Shapes:
    """The features of a vector file that touch a scene and have a text in a field, in any coordinate reference system.

    Heights are dropped, invalid polygons repaired, collections reduced to their polygons or points.

    Args:
        path: GeoPackage, Shapefile, GeoJSON, FlatGeobuf or another vector format that GDAL reads.
        field: that has to be filled, text or whole numbers; None for shapes alone.
        grid: of the scene; the shapes are brought into its system.
        layer: of a file with several; by default the only one that has shapes and the field.

    Raises:
        LabelError: the file, the layer, the field or the system is missing; a shape is a line; nothing lies inside the
            scene.
    """
    features = _read_features(str(path), layer, field)
    total = len(features.ids)
    texts = np.array([class_text(value) for value in features.values], dtype=object)
    missing = np.array([shape is None or shape.is_empty for shape in features.geometries], bool) & ~features.unreadable
    empty = np.array([text is None for text in texts], bool) if field is not None else np.zeros(total, bool)
    kept = ~(missing | empty)
    features, texts = features.select(kept), texts[kept]
    if not len(texts):
        what = f"both a geometry and a class in '{field}'" if field is not None else "a geometry"
        raise LabelError(
            f"No feature of '{path}' has {what}: of {total} features "
            f"{int(empty.sum())} have no class and {int(missing.sum())} no geometry.",
            "Fill the class field, or choose another one." if field is not None else "Draw polygons first.",
        )
    _refuse_lines(path, features)
    geometries, repaired, usable = _prepared(path, features, grid)
    inside = usable.copy()
    inside[usable] = _touching(geometries[usable], grid)
    if not inside.any():
        raise NothingInsideError(_nothing_inside(path, geometries[usable], grid), "Check that both have the right CRS.")
    outside_only = set(texts[usable & ~inside]) - set(texts[inside]) if field is not None else set()
    return Shapes(
        geometries[inside],
        features.ids[inside],
        texts[inside],
        features_read=total,
        without_text=int(empty.sum()),
        without_geometry=int((missing & ~empty).sum()),
        outside_scene=tuple(features.ids[usable & ~inside].tolist()),
        repaired=tuple(features.ids[repaired & inside].tolist()),
        unusable=tuple(features.ids[~usable].tolist()),
        texts_outside=tuple(sorted(outside_only)),
    )


def read_labels(
    path: str | Path,
    class_field: str,
    grid: Grid,
    *,
    layer: str | None = None,
    entries: Sequence[StyleClass] = (),
    class_scheme: str = "auto",
    scheme: ClassScheme | None = None,
    extends: bool = False,
    fewest_classes: int = 2,
) -> LabelSet:
    """The labels of a scene from a vector file: polygons, points or both; see ``read_shapes``.

    A feature is kept if it touches the scene.

    Args:
        path, grid, layer: see ``read_shapes``.
        class_field: the field that holds the class, text or whole numbers.
        entries: classes of the layer's style.
        class_scheme: name or path of a class scheme, or ``auto``: made from the field.
        scheme: classes that are already fixed, such as a model's; then entries and ``class_scheme`` do not count.
        extends: whether further classes of the field are added to a fixed scheme all of whose own occur.
        fewest_classes: that have to occur.

    Raises:
        LabelError: as ``read_shapes``; there is one class only; or a value is no class of the scheme.
    """
    shapes = read_shapes(path, class_field, grid, layer)
    scheme, notes = _scheme_of(shapes.texts.tolist(), entries, class_scheme, scheme)
    if extends:
        scheme, notes = extended_scheme(scheme, shapes.texts.tolist())
    lookup = match_classes(scheme, shapes.texts)
    class_index = np.array([lookup[text] for text in shapes.texts], np.int16)
    present = np.unique(class_index)
    if len(present) < fewest_classes:
        where = f"; {listed(shapes.texts_outside)} lie outside it" if shapes.texts_outside else ""
        raise LabelError(
            f"All labels of '{path}' inside the scene are of one class, '{scheme.classes[present[0]].name}'{where}.",
            "Draw at least two classes inside the scene.",
        )
    report = label_report(shapes, tuple(np.bincount(class_index, minlength=len(scheme)).tolist()), notes)
    return LabelSet(shapes.geometries, grid.crs, class_index, shapes.ids, scheme, report, str(path))


def label_report(shapes: Shapes, features_per_class: tuple[int, ...], notes: tuple[str, ...]) -> LabelReport:
    """What became of the features of labels."""
    return LabelReport(
        features_read=shapes.features_read,
        without_class=shapes.without_text,
        without_geometry=shapes.without_geometry,
        repaired=shapes.repaired,
        unusable=shapes.unusable,
        outside_scene=shapes.outside_scene,
        classes_outside=shapes.texts_outside,
        features_per_class=features_per_class,
        notes=notes,
    )


def has_field(path: str, layer: str | None, class_field: str, field: str) -> bool:
    """Whether the layer that ``read_labels`` reads has a field.

    Raises:
        LabelError: the layer is missing.
    """
    name = layer_name(path, layer, class_field)
    return field in pyogrio.read_info(path, layer=name)["fields"].tolist()


def read_texts(path: str, layer: str | None, class_field: str, field: str) -> dict[int, str | None]:
    """Another field of the layer that ``read_labels`` reads, by the features' ids; None where it is empty.

    Raises:
        LabelError: the layer or the field is missing, or the field holds neither text nor whole numbers.
    """
    name = layer_name(path, layer, class_field)
    check_layer(path, name, field, pyogrio.read_info(path, layer=name))
    _, ids, _, columns = pyogrio.raw.read(path, layer=name, columns=[field], read_geometry=False, return_fids=True)
    return {int(number): class_text(value) for number, value in zip(ids, columns[0], strict=True)}


def _scheme_of(
    values: list[object], entries: Sequence[StyleClass], class_scheme: str, fixed: ClassScheme | None
) -> tuple[ClassScheme, tuple[str, ...]]:
    if fixed is not None:
        return fixed, ()
    resolved = resolve_with_notes(values, entries, class_scheme)
    return resolved.scheme, resolved.notes


def _read_features(path: str, layer: str | None, class_field: str | None) -> _Features:
    if not path.startswith("/vsi") and not Path(path).exists():
        raise LabelError(f"The label file '{path}' does not exist.", "Check the path.")
    _refuse_cut_shapefile(path)
    try:
        name = layer_name(path, layer, class_field)
        info = pyogrio.read_info(path, layer=name, force_feature_count=True)
        check_layer(path, name, class_field, info)
        columns = [] if class_field is None else [class_field]
        _, ids, shapes, values = pyogrio.raw.read(path, layer=name, columns=columns, force_2d=True, return_fids=True)
    except FILE_ERRORS as error:
        raise LabelError(
            f"The label file '{path}' cannot be read: {str(error).split('; It might help')[0].rstrip('.')}.",
            "It may be damaged, or no vector file; GeoPackage, Shapefile, GeoJSON and FlatGeobuf can be read.",
        ) from None
    if len(ids) < info["features"]:
        raise LabelError(
            f"The label file '{path}' is damaged: it announces {info['features']} features and yields {len(ids)}.",
            "Export the layer again.",
        )
    if not len(ids):
        raise LabelError(f"The layer '{name}' of '{path}' has no features.", "Draw polygons or points first.")
    geometries = shapely.from_wkb(shapes, on_invalid="ignore")
    unreadable = np.array([raw is not None and shape is None for raw, shape in zip(shapes, geometries, strict=True)], bool)
    held = values[0] if class_field is not None else np.full(len(ids), None, object)
    return _Features(ids, geometries, unreadable, held, info["crs"])


def _refuse_cut_shapefile(path: str) -> None:
    """GDAL reads what is left of a Shapefile and gives the rest no geometry; its header says how long it should be."""
    if Path(path).suffix.lower() != ".shp" or not Path(path).is_file():
        return
    with Path(path).open("rb") as file:
        announced = 2 * int.from_bytes(file.read(28)[24:], "big")  # the length in 16-bit words, at byte 24
    if Path(path).stat().st_size < announced:
        raise LabelError(
            f"The label file '{path}' is cut off: it has {Path(path).stat().st_size} of {announced} bytes.",
            "Copy or export it again.",
        )


def layer_name(path: str, layer: str | None, class_field: str | None) -> str:
    """The layer asked for, or the only one with shapes, or the only one of these with the field."""
    layers = [(str(name), kind) for name, kind in pyogrio.list_layers(path)]
    if layer is not None:
        if layer not in [name for name, _ in layers]:
            raise LabelError(
                f"'{path}' has no layer '{layer}'. Its layers are {listed([name for name, _ in layers])}.",
                "Name one of them.",
            )
        return layer
    candidates = [name for name, kind in layers if kind is not None]
    if not candidates:
        raise LabelError(f"'{path}' holds a table without shapes.", "Give a layer of polygons or points.")
    if len(candidates) > 1 and class_field is None:
        raise LabelError(f"'{path}' has several layers: {listed(candidates)}.", "Give a file with one of them.")
    if len(candidates) > 1:
        with_field = [name for name in candidates if class_field in pyogrio.read_info(path, layer=name)["fields"].tolist()]
        if len(with_field) != 1:
            raise LabelError(
                f"'{path}' has several layers, and {len(with_field)} of them have the field '{class_field}': "
                f"{listed(candidates)}.",
                "Name the layer.",
            )
        candidates = with_field
    return candidates[0]


def check_layer(path: str, name: str, class_field: str | None, info: dict[str, Any]) -> None:
    fields = info["fields"].tolist()
    if class_field is not None and class_field not in fields:
        raise LabelError(
            f"The layer '{name}' of '{path}' has no field '{class_field}'. Its fields are {listed(fields)}.",
            "Name one of them; a Shapefile cuts field names after ten characters.",
        )
    if not info["crs"]:
        raise LabelError(
            f"The layer '{name}' of '{path}' has no coordinate reference system.",
            "Assign it one in QGIS (Layer, Set CRS) and save it.",
        )


def _refuse_lines(path: str | Path, features: _Features) -> None:
    types = shapely.get_type_id(features.geometries)
    lines = features.ids[np.isin(types, _LINES)]
    if len(lines):
        raise LabelError(
            f"'{path}' holds lines (features {listed(lines.tolist(), most=5)}); labels are polygons or points.",
            "Leave the lines out, or buffer them into polygons.",
        )


def _prepared(path: str | Path, features: _Features, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Geometries in the grid's system, which were repaired (N,) bool, and which can be used (N,) bool."""
    geometries = _projected(path, features.geometries, features.crs, grid.crs)
    finite = ~features.unreadable & np.isfinite(shapely.bounds(geometries)).all(axis=1)
    if not finite.any() and not features.unreadable.all():
        raise LabelError(
            f"The labels of '{path}' have no place in the scene's system: their coordinates do not fit their own "
            f"system, {parsed_crs(features.crs).name}.",
            "Check the label layer's CRS; it is probably set wrongly.",
        )
    repaired = np.zeros(len(geometries), bool)
    usable = finite.copy()
    for index in np.flatnonzero(finite):
        shape = _polygons_or_points(geometries[index])
        if shape is not None and not shape.is_valid:
            shape = _polygons_or_points(shapely.make_valid(shape, method="structure", keep_collapsed=False))
            repaired[index] = True
        geometries[index] = shape
        usable[index] = shape is not None
    return geometries, repaired & usable, usable


def _projected(path: str | Path, geometries: np.ndarray, source_crs: str, target_crs: str) -> np.ndarray:
    try:
        if same_crs(source_crs, target_crs):
            return geometries.copy()
        transformer = Transformer.from_crs(parsed_crs(source_crs), parsed_crs(target_crs), always_xy=True)
    except ProjError as error:
        raise LabelError(
            f"The coordinate reference system of '{path}' is not usable: {error}.", "Assign the layer another one."
        ) from None
    projected = shapely.transform(geometries, transformer.transform, interleaved=False)
    return np.asarray(projected, dtype=object)


def _polygons_or_points(shape: Any) -> Any:
    """The polygons of a geometry, else its points, else None."""
    kind = shapely.get_type_id(shape)
    if kind in _POLYGONS or kind in _POINTS:
        return None if shape.is_empty else shape
    parts = shapely.get_parts(shape)
    while np.isin(shapely.get_type_id(parts), shapely.GeometryType.GEOMETRYCOLLECTION).any():
        parts = shapely.get_parts(parts)
    parts = shapely.get_parts(parts)
    types = shapely.get_type_id(parts)
    for wanted, join in ((_POLYGONS, shapely.multipolygons), (_POINTS, shapely.multipoints)):
        chosen = parts[np.isin(types, wanted) & ~shapely.is_empty(parts)]
        if len(chosen):
            return join(chosen)
    return None


def _touching(geometries: np.ndarray, grid: Grid) -> np.ndarray:
    scene = shapely.box(*grid.bounds)
    shapely.prepare(scene)
    return np.asarray(shapely.intersects(scene, geometries), bool)


def _nothing_inside(path: str | Path, geometries: np.ndarray, grid: Grid) -> str:
    if not len(geometries):
        return f"No geometry of '{path}' can be used: none can be read or repaired."
    labels = Bounds(*(float(value) for value in shapely.total_bounds(geometries)))
    digits = 6 if grid.is_geographic else 1

    def text(bounds: Bounds) -> str:
        return (
            f"x {bounds.left:.{digits}f} to {bounds.right:.{digits}f}, y {bounds.bottom:.{digits}f} to {bounds.top:.{digits}f}"
        )

    return (
        f"No label of '{path}' lies inside the scene. In {parsed_crs(grid.crs).name} the labels cover {text(labels)} "
        f"and the scene {text(grid.bounds)}."
    )
