"""Which licences a run may have, by that of the weights that it started from; and the file that says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

from models.backbones.catalogue import VARIANTS, WXC_VARIANTS
from models.bundle import Bundle
from models.errors import InputError

_APACHE = "apache-2.0"
_WAIVERS = ("cc0-1.0", "unlicense", "wtfpl", "0bsd", "mit-0", "pddl", "publicdomain")
_KEPT = {  # what a base wants of those who pass its weights on, also within others
    _APACHE: "a copy of its licence, and its notices (section 4)",
    "cdla-permissive-2.0": "the text of its agreement beside the data (section 2.1)",
}
# Not to be joined with Apache-2.0: https://www.apache.org/licenses/GPL-compatibility.html
_AGAINST_APACHE = ("gpl-2.0", "gpl-1.0", "lgpl-2.0", "lgpl-2.1")
_TEXTS: Mapping[str, str] = {_APACHE: "Apache-2.0.txt"}
_ADDRESSES = {
    _APACHE: "https://www.apache.org/licenses/LICENSE-2.0",
    "cdla-permissive-2.0": "https://cdla.dev/permissive-2-0/",
}


def base_licence(bundle: Bundle) -> str | None:
    """The licence of the weights that a run started from, in small letters; None for random ones."""
    if bundle.base.source == "random":
        return None
    variant = {**VARIANTS, **WXC_VARIANTS}.get(bundle.backbone)
    return variant.licence.lower() if variant and variant.licence else None


def chosen(asked: str | None, bundle: Bundle) -> str:
    """The licence that a run is published under: the one asked for, or its base's.

    Raises:
        InputError: none is asked for where no base has one, one that is no name, or one that the base does not allow.
    """
    base = base_licence(bundle)
    if asked is None and base is None:
        raise InputError(f"the run began with {bundle.base}, which have no licence; choose one: --licence apache-2.0")
    name = (asked or base or "").lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,60}", name):
        raise InputError(f"licence {asked!r}: wanted a name as SPDX has it, such as Apache-2.0 or CC-BY-4.0")
    if base and name in _WAIVERS:
        why = f"{name} waives what {base} of {bundle.base} wants: {_KEPT.get(base, 'its terms')}"
        raise InputError(f"licence {asked}: {why}; take {base}, or another that keeps them")
    if base == _APACHE and re.sub(r"-(only|or-later)$", "", name) in _AGAINST_APACHE and "later" not in name:
        why = f"its terms forbid those on patents of {base}, which {bundle.base} is under"
        raise InputError(f"licence {asked}: {why}; take {base}, or GPL-3.0")
    return name


def told(licence: str, bundle: Bundle) -> str:
    """The licence and that of the base, in words."""
    base = base_licence(bundle)
    own = f"This model is licensed under {licence} ({address(licence)})."
    of_base = f" It is made from {bundle.base}, licensed under {base} ({address(base)}), changed by fine-tuning."
    return own + (of_base if base else "")


def text(licence: str, bundle: Bundle) -> str:
    """LICENSE: the terms, or where they are, and those of the base."""
    names = dict.fromkeys((licence, base_licence(bundle) or licence))
    texts = [_text_of(_TEXTS[name]) for name in names if name in _TEXTS]
    return "\n\n".join([told(licence, bundle), *texts]) + "\n"


def address(licence: str | None) -> str:
    """Where the terms are; SPDX lists all by name."""
    return _ADDRESSES.get(licence or "", "https://spdx.org/licenses/")


def _text_of(name: str) -> str:
    return resources.files("pipelines.publishing").joinpath(name).read_text(encoding="utf-8").strip("\n")
