"""Forms and styles of QGIS (QML): what a person chooses from, and how answered regions look."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from models.spec import ClassDef

ANSWERS = {"not looked at": "", "agree": "agree", "another class": "class", "unsure": "unsure"}
VALUES = {"not looked at": "", "agree": "agree", "another value": "value", "unsure": "unsure"}
_LOOKS = {"": "214,39,40", "agree": "44,160,44", "class": "31,119,180", "value": "31,119,180", "unsure": "255,187,0"}
_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def regions_form(classes: Sequence[ClassDef]) -> str:
    """Regions: outlines by answer; answer and class are chosen by name, all else is only told."""
    root = _root()
    answers = ANSWERS if classes else VALUES
    _outlines(root, "answer", {value: (name, _LOOKS[value]) for name, value in answers.items()})
    fields = ElementTree.SubElement(root, "fieldConfiguration")
    _choice(fields, "answer", answers)
    if classes:
        _choice(fields, "label", {entry.name: str(entry.code) for entry in classes})
    told = ("id", "scene", "reason", "code", "class", "hectares", "confidence", "unfamiliar")
    _locked(root, told)
    return _HEAD + ElementTree.tostring(root, "unicode")


def classes_form(classes: Sequence[ClassDef], column: str) -> str:
    """Polygons filled with the colour of their class, which is chosen by name."""
    root = _root()
    if classes:
        looks = {str(entry.code): (entry.name, ",".join(map(str, entry.rgb))) for entry in classes}
        _outlines(root, column, looks, filled=True)
        fields = ElementTree.SubElement(root, "fieldConfiguration")
        _choice(fields, column, {entry.name: str(entry.code) for entry in classes})
    return _HEAD + ElementTree.tostring(root, "unicode")


def points_form(classes: Sequence[ClassDef], column: str, others: Sequence[str]) -> str:
    """Points as rings, whose class is chosen by name in a column; of the `others` the first is only told."""
    root = _root()
    renderer = ElementTree.SubElement(root, "renderer-v2", type="singleSymbol", symbollevels="0")
    symbols = ElementTree.SubElement(renderer, "symbols")
    symbol = ElementTree.SubElement(symbols, "symbol", type="marker", name="0", alpha="1")
    mark = ElementTree.SubElement(symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "pass": "0"})
    _options(mark, {"name": "circle", "color": "0,0,0,0", "outline_color": "255,255,0,255", "size": "4"})
    _choice(ElementTree.SubElement(root, "fieldConfiguration"), column, {c.name: str(c.code) for c in classes})
    editable = ElementTree.SubElement(root, "editable")
    for name in (column, *others):
        ElementTree.SubElement(editable, "field", name=name, editable=str(int(name != others[0])))
    return _HEAD + ElementTree.tostring(root, "unicode")


def choices_of(qml: str, column: str) -> dict[str, str]:
    """What a form offers for a column: values by their names; empty where it offers no list, or is no form.

    QGIS writes lists as maps of one entry each, earlier versions as one map.
    """
    if re.search(r"<!ENTITY", qml):
        return {}
    try:
        root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", qml, count=1))
    except ElementTree.ParseError:
        return {}
    found: dict[str, str] = {}
    for field in root.iterfind("./fieldConfiguration/field"):
        widget = field.find("editWidget")
        if field.get("name") != column or widget is None or widget.get("type") != "ValueMap":
            continue
        for option in widget.iterfind(".//Option[@name='map']//Option"):
            if option.get("type") in ("QString", "int", "double") and option.get("name"):
                found[str(option.get("name"))] = str(option.get("value", ""))
    return found


def _root() -> ElementTree.Element:
    return ElementTree.Element("qgis", version="3.28.0", styleCategories="Symbology|Fields|Forms")


def _choice(fields: ElementTree.Element, column: str, choices: Mapping[str, str]) -> None:
    """A list of names for a column, each of which stands for a value."""
    widget = ElementTree.SubElement(ElementTree.SubElement(fields, "field", name=column), "editWidget", type="ValueMap")
    config = ElementTree.SubElement(ElementTree.SubElement(widget, "config"), "Option", type="Map")
    listed = ElementTree.SubElement(config, "Option", name="map", type="List")
    for name, value in choices.items():
        _options(listed, {name: value})


def _locked(root: ElementTree.Element, columns: Sequence[str]) -> None:
    """Columns that a form shows and does not let change."""
    editable = ElementTree.SubElement(root, "editable")
    for column in columns:
        ElementTree.SubElement(editable, "field", name=column, editable="0")


def _outlines(
    root: ElementTree.Element, column: str, looks: Mapping[str, tuple[str, str]], *, filled: bool = False
) -> None:
    """A symbol for each value of a column: its name and its colour (r,g,b)."""
    renderer = ElementTree.SubElement(root, "renderer-v2", type="categorizedSymbol", attr=column, symbollevels="0")
    categories, symbols = (ElementTree.SubElement(renderer, name) for name in ("categories", "symbols"))
    for index, (value, (name, colour)) in enumerate(looks.items()):
        shown = {"value": value, "type": "string", "label": name, "symbol": str(index), "render": "true"}
        ElementTree.SubElement(categories, "category", shown)
        symbol = ElementTree.SubElement(symbols, "symbol", type="fill", name=str(index), alpha="1")
        fill = ElementTree.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0"})
        drawn = {
            "color": f"{colour},255",
            "style": "solid" if filled else "no",
            "outline_color": f"{colour},255",
            "outline_style": "no" if filled else "solid",
            "outline_width": "0.6",
        }
        _options(fill, drawn)


def _options(parent: ElementTree.Element, texts: Mapping[str, str]) -> None:
    """Add a map of texts as QGIS writes it."""
    held = ElementTree.SubElement(parent, "Option", type="Map")
    for name, text in texts.items():
        ElementTree.SubElement(held, "Option", name=name, value=text, type="QString")
