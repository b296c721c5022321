"""Class schemes: the shipped ones, a user's own file, and the one that a label layer itself implies."""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import LabelError
from core.labels.palette import colours_for
from core.labels.scheme import ClassScheme, LandCoverClass

MOST_CLASSES = 255
"""Class rasters are uint8 and 0 is nodata."""

_LISTED = 20
"""An error message lists no more values than a reader takes in."""


class StyleClass(Protocol):
    """A class as a layer's style shows it."""

    @property
    def value(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def colour(self) -> str: ...


class _ClassRecord(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: int = Field(ge=1, le=MOST_CLASSES)
    name: str = Field(min_length=1)
    colour: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")
    value: str | None = Field(None, min_length=1)


class _SchemeRecord(BaseModel):
    """The file of a class scheme."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    title: str = ""
    source: str = ""
    classes: list[_ClassRecord] = Field(min_length=2, max_length=MOST_CLASSES)


def _shipped() -> dict[str, Traversable]:
    folder = files("core").joinpath("resources", "class_schemes")
    return {entry.name.removesuffix(".json"): entry for entry in folder.iterdir() if entry.name.endswith(".json")}


def available_schemes() -> tuple[str, ...]:
    """Names of the shipped class schemes, sorted."""
    return tuple(sorted(_shipped()))


def load_scheme(name_or_path: str | Path) -> ClassScheme:
    """A shipped class scheme by its name, or one from a JSON file.

    The file is an object with ``name`` and ``classes``, a list of objects with ``code`` (1 to 255), ``name``,
    ``colour`` (``#rrggbb``) and, on wish, ``value``: what label fields hold for the class, where that is not the name.
    ``title`` and ``source`` are for the reader.

    Raises:
        LabelError: there is no such scheme or file, or the file is no class scheme; the message names the entry.
    """
    shipped = _shipped()
    origin: Traversable | Path = shipped.get(str(name_or_path), Path(name_or_path))
    try:
        text = origin.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(
            f"There is no class scheme '{name_or_path}': {error.strerror or error}.",
            f"Name one of {', '.join(available_schemes())}, or give the path of a scheme's JSON file.",
        ) from None
    except UnicodeDecodeError:
        raise LabelError(f"The class scheme '{name_or_path}' is not a text file.", "Save it as UTF-8 JSON.") from None
    try:
        record = _SchemeRecord.model_validate(json.loads(text))
        return ClassScheme(
            record.name,
            tuple(
                LandCoverClass(entry.code, entry.name, entry.colour.lower(), entry.value or entry.name)
                for entry in record.classes
            ),
        )
    except json.JSONDecodeError as error:
        raise LabelError(f"The class scheme '{name_or_path}' is not JSON: {error}.") from None
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, entry['loc'])) or 'file'}: {entry['msg']}"
            for entry in error.errors(include_url=False, include_context=False)
        )
        raise LabelError(f"The class scheme '{name_or_path}' is not valid: {places}.") from None
    except ValueError as error:
        raise LabelError(f"The class scheme '{name_or_path}' is not valid: {error}") from None


def class_text(value: object) -> str | None:
    """What a label field holds for one feature, as text: numbers without a decimal point, text without blanks around.

    Returns:
        None where the field is empty (NULL, NaN, blank text).

    Raises:
        LabelError: a number with a fraction, or neither text nor a number.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip() or None
    # numpy's booleans are no numbers to Python and Python's are; both are a class 'true' and a class 'false'.
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return "true" if value else "false"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isnan(number):
            return None
        if number.is_integer():
            return str(int(number))
        raise LabelError(
            f"The class field holds {number:g}: classes are text or whole numbers.",
            "Choose the field that holds the class, not a measurement.",
        )
    raise LabelError(
        f"The class field holds a {type(value).__name__}: classes are text or whole numbers.",
        "Choose another field, or write the class into a text field.",
    )


def find_class(scheme: ClassScheme, text: str) -> int | None:
    """The index of the class that a label's text means, or None.

    A class is recognised by its value, then by its code, then by its name, whatever the case. Where the scheme's values
    are themselves numbers, a number means a value and never a code: the two may be numbered differently.
    """
    for index, entry in enumerate(scheme.classes):
        if entry.value == text:
            return index
    folded = _folded(text)
    for index, entry in enumerate(scheme.classes):
        if _folded(entry.value) == folded:
            return index
    if _is_integer(text) and not any(_is_integer(entry.value) for entry in scheme.classes):
        code = int(text)
        return scheme.codes.index(code) if code in scheme.codes else None
    for index, entry in enumerate(scheme.classes):
        if _folded(entry.name) == folded:
            return index
    return None


def match_classes(scheme: ClassScheme, texts: Iterable[str]) -> dict[str, int]:
    """The class index of every text.

    Raises:
        LabelError: some are no class of the scheme; they are named, and so are the classes.
    """
    found = {text: find_class(scheme, text) for text in sorted(set(texts))}
    unknown = [text for text, index in found.items() if index is None]
    if unknown:
        classes = [f"{entry.code} {entry.name}" for entry in scheme.classes]
        raise LabelError(
            f"The class scheme '{scheme.name}' has no class for the label values {listed(unknown)}. "
            f"Its classes are {listed(classes, most=MOST_CLASSES)}.",
            "Rename the values, or choose another class scheme or field.",
        )
    return {text: index for text, index in found.items() if index is not None}


def extended_scheme(scheme: ClassScheme, texts: Iterable[str]) -> tuple[ClassScheme, tuple[str, ...]]:
    """A scheme with further classes for the texts that it has none for, and a sentence that says so. Where one of its own
    classes does not occur it stays as it is: then one of the texts is more likely to be another name of that class.
    """
    found = {text: find_class(scheme, text) for text in sorted(set(texts))}
    unknown, _ = _joined_spellings({text for text, index in found.items() if index is None})
    free = [code for code in range(MOST_CLASSES, 0, -1) if code not in scheme.codes]
    if not unknown or len(set(found.values()) - {None}) < len(scheme) or len(unknown) > len(free):
        return scheme, ()
    colours = colours_for(unknown, [entry.colour for entry in scheme.classes])
    codes = sorted(free[: len(unknown)])
    added = [LandCoverClass(code, text, colour, text) for code, text, colour in zip(codes, unknown, colours, strict=True)]
    note = f"The reference has classes that the map has not, each of them an error where it occurs: {listed(unknown)}."
    return ClassScheme(scheme.name, (*scheme.classes, *added)), (note,)


@dataclass(frozen=True)
class ResolvedScheme:
    """A class scheme and what was decided on the way to it, as sentences for the user."""

    scheme: ClassScheme
    notes: tuple[str, ...]


def resolve_with_notes(values: Sequence[object], entries: Sequence[StyleClass], class_scheme: str) -> ResolvedScheme:
    """The class scheme of a label layer, of the classes that occur in it.

    A named scheme gives those of its classes that occur, whatever the style says. Else (``auto``), where the style has
    entries, names, colours and order come from them, and values without an entry follow. Else they are made from the
    field: sorted, numbers keeping themselves as codes where all lie in 1 to 255, with colours that their names suggest.

    Args:
        values: what the class field holds, empty ones included.
        entries: of the layer's style; none where it has no categories.
        class_scheme: a shipped scheme's name, a path, or ``auto``.

    Raises:
        LabelError: more than 255 classes, or values that the named scheme does not have.
    """
    texts = {text for text in map(class_text, values) if text is not None}
    if not texts:
        raise LabelError("The class field is empty in all features.", "Fill it, or choose another field.")
    if class_scheme != "auto":
        named = load_scheme(class_scheme)
        used = set(match_classes(named, texts).values())
        kept = tuple(entry for index, entry in enumerate(named.classes) if index in used)
        return ResolvedScheme(ClassScheme(named.name, kept), ())
    spellings, notes = _joined_spellings(texts)
    if len(spellings) > MOST_CLASSES:
        raise LabelError(
            f"The class field holds {len(spellings)} different values; a map has at most {MOST_CLASSES} classes.",
            "Choose the field that holds the class, not an identifier.",
        )
    if entries:
        return _from_style(spellings, entries, notes)
    names = sorted(spellings, key=_sort_key(spellings))
    return ResolvedScheme(_made("labels", names, names, colours_for(names)), tuple(notes))


def _from_style(spellings: list[str], entries: Sequence[StyleClass], notes: list[str]) -> ResolvedScheme:
    held = {_folded(text): text for text in spellings}
    values, names, colours = [], [], []
    unused = []
    for entry in entries:
        key = _folded(re.sub(r"^(-?\d+)\.0+$", r"\1", entry.value.strip()))
        if key in held:
            values.append(held.pop(key))
            names.append(entry.name.strip() or values[-1])
            colours.append(entry.colour.lower())
        elif key and key not in map(_folded, values):
            unused.append(entry.name.strip() or entry.value)
    extra = sorted(held.values(), key=_sort_key(list(held.values())))
    if unused:
        notes.append(f"Classes of the layer's style without a label inside the scene were left out: {listed(unused)}.")
    if extra:
        notes.append(f"Label values that the layer's style does not have got a colour of their own: {listed(extra)}.")
    colours += colours_for(extra, colours)
    return ResolvedScheme(_made("layer style", values + extra, names + extra, colours), tuple(notes))


def _made(name: str, values: list[str], names: list[str], colours: list[str]) -> ClassScheme:
    numbered = all(_is_integer(value) and 1 <= int(value) <= MOST_CLASSES for value in values)
    codes = [int(value) for value in values] if numbered else list(range(1, len(values) + 1))
    return ClassScheme(
        name,
        tuple(
            LandCoverClass(code, title, colour, value)
            for code, title, colour, value in zip(codes, names, colours, values, strict=True)
        ),
    )


def _joined_spellings(texts: set[str]) -> tuple[list[str], list[str]]:
    """Texts that differ in case or inner blanks are one class; the first in order gives its spelling."""
    groups: dict[str, list[str]] = {}
    for text in sorted(texts):
        groups.setdefault(_folded(text), []).append(text)
    notes = [
        f"The label values {listed(group)} differ in spelling only and were taken as one class."
        for group in groups.values()
        if len(group) > 1
    ]
    return [group[0] for group in groups.values()], notes


def _sort_key(texts: Sequence[str]) -> Callable[[str], Any]:
    if all(map(_is_integer, texts)):
        return int
    return lambda text: (text.casefold(), text)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _is_integer(text: str) -> bool:
    """Whether the text is a whole number as Python writes it: '7' is, '07' is text."""
    return re.fullmatch(r"0|-?[1-9][0-9]*", text) is not None


def listed(items: Sequence[object], most: int = _LISTED) -> str:
    """Quoted, separated by commas, and cut off with a count where there are many."""
    shown = ", ".join(f"'{item}'" for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
