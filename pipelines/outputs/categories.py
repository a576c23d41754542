"""Names and colours of classes where GDAL and QGIS look for them: beside the GeoTIFF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from models.errors import InputError
from models.spec import ClassDef
from pipelines.outputs.layout import TRANSPARENT, Layout


def sidecar(path: Path) -> Path:
    """Where GDAL keeps what a GeoTIFF cannot hold."""
    return path.with_name(f"{path.name}.aux.xml")


def write_categories(sidecar: Path, layout: Layout) -> None:
    """Add names of classes and a raster attribute table to a GDAL sidecar, and the colours of uint16.

    Entry i of names and colours is about code i. Colours of uint16 are kept here since the GeoTIFF table has 65536
    entries, 393 kB in the file and in each overview.
    """
    root = ElementTree.parse(sidecar).getroot() if sidecar.exists() else ElementTree.Element("PAMDataset")
    band = root.find("PAMRasterBand[@band='1']")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1") if band is None else band
    codes, colours = range(max(entry.code for entry in layout.classes) + 1), layout.colours
    if layout.dtype == "uint16":
        ElementTree.SubElement(band, "ColorInterp").text = "Palette"
        table = ElementTree.SubElement(band, "ColorTable")
        for code in codes:
            rgba = zip(("c1", "c2", "c3", "c4"), map(str, colours.get(code, TRANSPARENT)), strict=True)
            ElementTree.SubElement(table, "Entry", dict(rgba))
    names = {entry.code: entry.name for entry in layout.classes}
    categories = ElementTree.SubElement(band, "CategoryNames")
    for code in codes:
        ElementTree.SubElement(categories, "Category").text = names.get(code, "")
    _attribute_table(band, layout.classes)
    ElementTree.ElementTree(root).write(sidecar, encoding="utf-8")


def read_categories(path: Path) -> tuple[ClassDef, ...]:
    """The classes of a map, as `write_categories` wrote them beside it.

    Raises:
        InputError: there is no table of classes beside the map, or none that can be read.
    """
    beside = sidecar(path)
    try:
        root = ElementTree.parse(beside).getroot()
        rows = [[part.text or "" for part in row] for row in root.iterfind(".//GDALRasterAttributeTable/Row")]
        classes = [
            ClassDef(int(code), name, f"#{int(red):02x}{int(green):02x}{int(blue):02x}")
            for code, name, red, green, blue in rows
        ]
    except FileNotFoundError:
        raise InputError(f"{path}: no classes beside it; keep {beside.name}, which score wrote, with the map") from None
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{beside}: wanted a table of classes ({error}); score the scene again") from error
    if not classes:
        raise InputError(f"{beside}: holds no classes; give a map of classes as score writes it")
    return tuple(classes)


def _attribute_table(band: ElementTree.Element, classes: Sequence[ClassDef]) -> None:
    """Add GDAL's raster attribute table: code, name and colour of each class, by their usages (GDALRATFieldUsage)."""
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    fields = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    for index, (name, kind, usage) in enumerate(fields):
        column = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            ElementTree.SubElement(column, tag).text = str(value)
    for index, entry in enumerate(classes):
        line = ElementTree.SubElement(table, "Row", index=str(index))
        for value in (entry.code, entry.name, *entry.rgb):
            ElementTree.SubElement(line, "F").text = str(value)
