"""Options of a command, from the signature and docstring of its function and of the dataclasses that it takes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from importlib import import_module
from inspect import Parameter, cleandoc, signature
from pathlib import Path
from typing import Any, get_type_hints

from models.errors import InputError
from models.types import Say, entry, fields_of, is_list, is_record, nearest, only
from pipelines.cli.table import Command
from pipelines.recipes.reading import RECIPES, is_switch, read_recipe, typed, typed_list
from pipelines.recipes.recipe import SceneRecipe

FILLED = ("progress", "say", "debug", "name", "meter")  # parameters that the command line fills in itself
RUNS = ("run", "bundle", "for", "rain")  # options that take a run, which may lie at hf://org/name@revision


@dataclass(frozen=True)
class Option:
    """What a person may say.

    Attributes:
        name: as it is typed after --, and a recipe's key.
        kind: its type.
        default: its value where nothing is said; MISSING where something has to be.
        help: what it does.
        part: the parameter that it becomes, or whose dataclass it is a field of.
        heading: what it stands under in the help, where that follows from its place in a recipe.
        positional: whether it comes without its name.
        several: whether it takes all words that follow.
    """

    name: str
    kind: Any
    default: Any
    help: str
    part: str
    heading: str = ""
    positional: bool = False
    several: bool = False

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is MISSING

    def value(self, words: Sequence[str]) -> Any:
        """What was typed, as its type asks for it."""
        where = self.name.upper() if self.positional else f"--{self.name}"
        if is_list(self.kind) and self.positional:
            return [typed(word, entry(self.kind), where) for word in words]
        return typed_list(words, self.kind, where) if is_list(self.kind) else typed(words[-1], self.kind, where)


def with_folders(typed: Mapping[str, Any], options: Sequence[Option], say: Say) -> dict[str, Any]:
    """What was typed, with the folder of each run that is named by its address, hf://org/name@revision.

    Raises:
        InputError: no run there, or one whose files are not those of its hashes.
        RunError: the Hub cannot be reached, and it is not in the cache.
    """

    def here(word: str) -> str:
        from pipelines.publishing.pull import run_folder  # the hub client: for those who ask for it

        return str(run_folder(word, say)) if word.startswith("hf://") else word

    takers = {o.name for o in options if o.name in RUNS or (o.name == "backbone" and o.positional)}
    return {name: [here(word) for word in words] if name in takers else words for name, words in typed.items()}


@dataclass(frozen=True)
class Call:
    """A command's function and what may be said to it.

    Attributes:
        function: what is called.
        told: makes the `Outcome` of what it returns.
        options: in the order of the signature.
        kinds: parameters that are dataclasses, and which.
        recipe: the parameter that comes from a recipe file, if any.
    """

    function: Callable[..., Any]
    told: Callable[..., Any]
    options: tuple[Option, ...]
    kinds: Mapping[str, type]
    recipe: str | None

    def arguments(self, said: Mapping[str, Any], voice: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the function, from the values of options by their names and what the command line fills in."""
        known = signature(self.function).parameters
        made = {name: voice[name] for name in FILLED if name in known}
        for option in self.options:
            if option.name in said and option.part not in self.kinds:
                made[option.part] = said[option.name]
        for part, kind in self.kinds.items():
            given = {o.name: said[o.name] for o in self.options if o.part == part and o.name in said}
            if part == self.recipe:
                made[part] = read_recipe(given.pop(part), kind, given)
            else:
                given |= {name: voice[name] for name in FILLED if name in fields_of(kind)}
                made[part] = kind(**given)
        return made


def call_of(command: Command, recipe: Path | None = None) -> Call:
    """The function of a command; a recipe's task decides which options it has."""
    module, _, name = command.function.partition(":")
    home = import_module(module)
    function = getattr(home, name)
    docs, hints = described(function), get_type_hints(function)
    options: list[Option] = []
    kinds: dict[str, type] = {}
    from_file = None
    for parameter in signature(function).parameters.values():
        part = parameter.name
        if part in FILLED:
            continue
        positional, kind = parameter.kind is not Parameter.KEYWORD_ONLY, hints[part]
        if is_record(kind) and positional:  # a positional dataclass is a recipe, read from a file
            from_file, kind = part, _recipe_kind(recipe)
            told = f"{docs[part]}: {', '.join(recipe_names())}"
            options.append(Option(part, Path, MISSING, told, part, positional=True))
        if is_record(kind):
            kinds[part] = kind
            options += options_of(kind, part, required=not positional)
            continue
        default = MISSING if parameter.default is Parameter.empty else parameter.default
        spelled, several = command.spelled.get(part, part), part in command.several
        options.append(Option(spelled, kind, default, docs[part], part, positional=positional, several=several))
    return Call(function, home.told, tuple(options), kinds, from_file)


def _recipe_kind(path: Path | None) -> type[Any]:
    """What kind of recipe a file holds; without one the help starts in no time, for tasks bring torch."""
    if path is None:
        return SceneRecipe
    from pipelines.tasks.task import recipe_kind

    return recipe_kind(path)


def options_of(kind: type, part: str, *, required: bool, prefix: str = "", heading: str = "") -> Iterator[Option]:
    """Options from the fields of a dataclass; those of a dataclass in it have its name before their own."""
    docs, types = described(kind), fields_of(kind)
    for field in dataclasses.fields(kind):
        name, inner = f"{prefix}{field.name}", types[field.name]
        if field.name in FILLED or not field.metadata.get("option", True):
            continue
        if is_record(inner):
            title = f"--{name}: {docs[field.name]}"
            yield from options_of(inner, part, required=required, prefix=f"{name}.", heading=title)
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        default = None if default is MISSING and not required else default  # a recipe holds it
        yield Option(name, inner, default, docs.get(field.name, ""), part, heading)


def recipe_names() -> list[str]:
    """Recipes that come with earthtune."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(words: Sequence[str]) -> Path | None:
    """The recipe that is named first: a file, or the name of one that comes with earthtune.

    Raises:
        InputError: there is none.
    """
    names = ", ".join(recipe_names())
    if not words:
        raise InputError(f"a recipe is wanted first: a YAML file, or one that comes with earthtune ({names})")
    if words[0].startswith("-"):
        return None
    shipped = RECIPES / f"{words[0]}.yaml"
    path = shipped if shipped.is_file() and not Path(words[0]).is_file() else Path(words[0])
    if not path.is_file():
        raise InputError(f"{words[0]}: no such recipe file, nor one that comes with earthtune ({names})")
    return path


@cache
def described(what: Any) -> dict[str, str]:
    """What the docstring says of each argument of a function, or of each attribute of a dataclass and its parents."""
    found: dict[str, str] = {}
    for one in reversed(what.__mro__) if isinstance(what, type) else (what,):
        section = re.search(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", cleandoc(one.__doc__ or ""), re.MULTILINE)
        for told in re.split(r"^ {4}(?=\w+: )", section[1], flags=re.MULTILINE)[1:] if section else ():
            name, _, text = told.partition(": ")
            found[name] = " ".join(text.split()).replace(". (", " (").removesuffix(".")
    return found


def respelled(words: Sequence[str], options: Sequence[Option], flags: Sequence[str]) -> list[str]:
    """Words as the parser takes them: _ for - in a name, each value after =, switches that stand alone with =true.

    Raises:
        InputError: an option that is not there, or one without its value.
    """
    known = {f"--{option.name}": option for option in options if not option.positional}
    known |= {"--date": known["--dates"]} if "--dates" in known else {}
    plain: list[str] = []
    rest = list(words)
    while rest:
        name, mark, value = (word := rest.pop(0)).partition("=")
        name = f"--{name[2:].replace('-', '_')}"
        if not word.startswith("--") or name in flags:
            plain.append(name if word.startswith("--") else word)
            continue
        if name not in known:
            raise InputError(f"{name}: no such option; {nearest(name, [*known, *flags])}")
        option = known[name]
        if not mark and is_switch(option.kind):
            value = rest.pop(0) if rest[:1] in (["true"], ["false"]) else "true"
        elif not mark:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{name}: wanted a value after it, nothing came")
            value = rest.pop(0)
        plain.append(f"--{option.name}={value}")
        while is_list(option.kind) and not mark and rest and (option.several or _continues(option, rest[0])):
            if rest[0].startswith("--"):
                break
            plain.append(f"--{option.name}={rest.pop(0)}")
    return plain


def _continues(option: Option, word: str) -> bool:
    """Whether a word is one more number of a list of them: -100 30 -70 45."""
    if {int, float}.isdisjoint(getattr(only(option.kind), "__args__", ())):
        return False
    try:
        float(word)
    except ValueError:
        return False
    return True
