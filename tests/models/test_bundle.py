import dataclasses
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.backbones.hub import WeightFile, locate, read_state_dict
from models.backbones.lora import add_lora
from models.backbones.prithvi_eo import BANDS, PrithviEO, load_pretrained
from models.bundle import Base, Bundle, load_network, read_bundle, stored_whole, write_bundle, write_weights
from models.errors import InputError
from models.runtime.export import example_inputs
from models.spec import Spec
from models.training.settings import Architecture, Lora, WeatherArchitecture
from tests.specs import fine_spec, rain_spec

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
ARCHITECTURE = Architecture(overrides=TINY, decoder="fcn", channels=8, detail=4)
NAME, REPO, FILE = "prithvi_eo_v2_300_tl", "ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL", "Prithvi_EO_V2_300M_TL.pt"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as the backbone's authors publish it, in little."""
    torch.manual_seed(11)
    state = PrithviEO(NAME, overrides=TINY, tile=32).vit.state_dict()
    path = tmp_path_factory.mktemp("weights") / FILE
    torch.save({f"encoder.{key}": value for key, value in state.items()}, path)
    return path


def fine_tuned(make_network, path, mode, *, seed=3):
    """A network whose backbone came from a file, with a head and adapters that training moved."""
    network = make_network(seed=seed)
    load_pretrained(network.backbone, read_state_dict(path), source=str(path))
    if mode == "lora":
        add_lora(network.backbone, rank=4, alpha=6.0)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if mode == "full" or not name.startswith("backbone.") or name.endswith((".up", ".down")):
                parameter.add_(0.05 * torch.randn_like(parameter))
        for buffer in network.head.buffers():
            buffer.add_(1)  # running statistics of batch norms
    return network


def save(folder, network, mode, base):
    """Write what a run writes."""
    folder.mkdir(exist_ok=True)
    whole = stored_whole(base, mode)
    lora = Lora(rank=4, alpha=6.0)
    write_weights(folder, network, whole=whole)
    write_bundle(folder, Bundle(network.spec, NAME, ARCHITECTURE, base, mode=mode, whole=whole, lora=lora))
    return folder


def from_file(path, **changes):
    base = Base("file", file=path.name, sha256=WeightFile(path).sha256(), pretrained_bands=BANDS)
    return dataclasses.replace(base, **changes)


def same_answers(a, b):
    inputs = example_inputs(a.spec, batch=2)
    with torch.inference_mode():
        torch.testing.assert_close(b.predict(inputs), a.predict(inputs), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- bundle.json

IMAGERY = ("spec", "inputs", "imagery")
RAIN = Bundle(
    rain_spec(("TQV", "T2M"), ("kg m-2", "K"), (20.0, 280.0), (8.0, 9.0)),
    "prithvi_wxc_tiny",
    WeatherArchitecture({"embed_dim": 16, "mask_unit": [8, 8]}, members=2),
)


def test_a_bundle_comes_back_as_it_was_written(make_spec, tmp_path):
    bundle = Bundle(
        make_spec("regression"),
        NAME,
        Architecture(overrides=TINY, blocks=(0, 1, 1, 1)),
        Base("hub", repo=REPO, revision="0" * 40, file=FILE, sha256="1" * 64, pretrained_bands=BANDS),
        mode="lora",
        whole=False,
        lora=Lora(4, 6.0),
        data={"root": "données"},
        training={"seed": 1},
        scores={"rmse": 0.5},
        baselines={"mean": {"rmse": 1.5}},
        rounding={"bf16": {"difference": 0.01, "samples": 4.0}},
        confidence={"temperature": 1.3},
    )
    write_bundle(tmp_path, bundle)
    assert read_bundle(tmp_path) == bundle
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.json"]


@pytest.mark.parametrize(
    "spec", [RAIN.spec, fine_spec(("T2M",), ("K",), (280.0,), (9.0,), target="T2M")], ids=lambda spec: spec.task
)
def test_a_bundle_of_weather_comes_back_as_it_was_written(tmp_path, spec):
    bundle = dataclasses.replace(RAIN, spec=spec)
    write_bundle(tmp_path, bundle)
    assert read_bundle(tmp_path) == bundle


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (Base(), "random weights"),
        (Base("hub", repo="a/b", revision="c0ffee", file="w.pt"), "a/b@c0ffee"),
        (Base("file", file="w.pt", sha256="0123456789abcdef"), "w.pt (sha256 0123456789ab)"),
    ],
)
def test_a_base_in_words(base, words):
    assert str(base) == words


def test_only_an_untouched_published_backbone_is_left_out():
    hub, random = Base("hub", repo=REPO, file=FILE), Base()
    assert [stored_whole(hub, mode) for mode in ("frozen", "lora", "full")] == [False, False, True]
    assert all(stored_whole(random, mode) for mode in ("frozen", "lora", "full"))


def test_what_is_no_run_is_told_from_a_run_that_has_not_ended(tmp_path):
    with pytest.raises(InputError, match="no such run folder"):
        read_bundle(tmp_path / "none")
    with pytest.raises(InputError, match="not a run folder"):
        read_bundle(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="has not ended; --resume"):
        read_bundle(tmp_path)


def change(content, *keys, value=None):
    """A bundle's text with one entry set, or taken out."""
    data = json.loads(content)
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return json.dumps(data)


DAMAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "not JSON": lambda text: "hello",
    "a list": lambda text: "[]",
    "binary": lambda text: b"\xff\xfe\x00",
    "nested deeply": lambda text: "[" * 100_000,
    "no spec": lambda text: change(text, "spec"),
    "no format": lambda text: change(text, "format"),
    "no bands": lambda text: change(text, *IMAGERY, "channels"),
    "no inputs": lambda text: change(text, "spec", "inputs"),
    "spec of text": lambda text: change(text, "spec", value="x"),
}


def refused(folder, text):
    """The line in which a bundle of some text is refused."""
    path = folder / "bundle.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        read_bundle(folder)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_bundle_is_refused_in_one_line(make_spec, tmp_path, damage):
    write_bundle(tmp_path, Bundle(make_spec(), NAME, ARCHITECTURE))
    line = refused(tmp_path, DAMAGE[damage]((tmp_path / "bundle.json").read_text()))
    assert "damaged (" in line and line.endswith("; train again or copy the run again")


WRONG = [  # where, what, and what the refusal says of it
    (("spec", "task"), 1, "task: wanted text, came 1"),
    (("spec", "answers", "class", "classes"), [{"code": 1, "name": 2, "colour": "#000000"}], "name: wanted text"),
    (
        ("spec", "answers", "class", "classes"),
        [{"code": "1", "name": "a", "colour": "#000000"}],
        "code: wanted a whole",
    ),
    (("spec", "answers", "class", "classes"), [1], "class.classes[0]: wanted a mapping of keys to values, came 1"),
    (("spec", "answers", "class", "kind"), "maps", "class: kind 'maps', wanted classes, values, quantiles"),
    ((*IMAGERY, "channels"), "RED", "imagery.channels: wanted a list, came 'RED'"),
    ((*IMAGERY, "channels"), ["RED", 4, "NIR"], "imagery.channels[1]: wanted text, came 4"),
    ((*IMAGERY, "mean"), [], "3 bands, 0 and 3 means"),
    ((*IMAGERY, "mean"), [1.0, "2", 3.0], "imagery.mean[1]: wanted a number, came '2'"),
    ((*IMAGERY, "tile"), 32.0, "imagery.tile: wanted a whole number, came 32.0"),
    ((*IMAGERY, "uses_time"), 1, "imagery.uses_time: wanted true or false, came 1"),
    ((*IMAGERY, "pixel"), 0, "pixel 0.0: wanted metres"),
    ((*IMAGERY, "pixel"), "30 m", "imagery.pixel: wanted a number, came '30 m'"),
    ((*IMAGERY, "hidden"), 1, "imagery.hidden: no such key"),
    (("backdoor",), 1, "backdoor"),
    (("backbone",), 3, "backbone: wanted text, came 3"),
    (("whole",), "yes", "whole: wanted true or false, came 'yes'"),
    (("architecture", "width"), 1, "architecture.width: no such key"),
    (("architecture", "blocks"), [0, True], "architecture.blocks[1]: wanted a whole number, came True"),
    (("architecture", "overrides"), [], "architecture.overrides: wanted a mapping of keys to values, came []"),
    (("base",), "x", "base: wanted a mapping of keys to values, came 'x'"),
    (("base", "pretrained_bands"), "BLUE", "base.pretrained_bands: wanted a list, came 'BLUE'"),
    (("lora", "rank"), 2.5, "lora.rank: wanted a whole number, came 2.5"),
    (("rounding",), {"i8": {"equal": "much"}}, "rounding.i8.equal: wanted a number, came 'much'"),
    (("rounding",), "much", "rounding: wanted a mapping of keys to values, came 'much'"),
    *(((key,), [1], f"{key}: wanted a mapping of keys to values, came [1]") for key in ("data", "training", "scores")),
    *((key, "x", f"{key[0]}: wanted a mapping of keys") for key in (("baselines",), ("confidence",))),
    (("confidence",), {"sets": {"0.9": "much"}}, "confidence.sets.0.9: wanted a number, came 'much'"),
    (("confidence",), {"sets": {"0.95": 0.1}}, "confidence.sets.0.95: wanted 0.9 or 0.8"),
    (("confidence",), {"sets": {"0.9": 7.0}}, "confidence.sets: wanted probabilities"),
    (("confidence",), {"temperature": 0.0}, "confidence.temperature 0: wanted about 1"),
    (("confidence",), {"temperature": float("nan")}, "confidence.temperature nan: wanted about 1"),
    (("confidence",), {"intervals": {"0.9": {"code": 1}}}, "confidence.intervals.0.9.code: no such key"),
    *(
        (("confidence",), {"intervals": {"0.9": change}}, "confidence.intervals.0.9: wanted ends of the answer")
        for change in (
            {"low": 99},
            {"high": -1},
            {"low": 1, "high": 0},
            {"knots": [0.0]},
            {"knots": [0.0], "below": [1.0], "above": [-1.0]},
            {"floor": -1.0},
            {"stretch": -1.0},
            {"stretch": float("inf")},
        )
    ),
    (("confidence",), {"unfamiliar": {"limit": float("nan")}}, "confidence.unfamiliar: wanted shares"),
]


@pytest.mark.parametrize(("keys", "value", "words"), WRONG, ids=lambda part: part if isinstance(part, str) else "")
def test_what_is_of_another_type_is_refused_by_its_key(make_spec, tmp_path, keys, value, words):
    write_bundle(tmp_path, Bundle(make_spec(), NAME, ARCHITECTURE))
    line = refused(tmp_path, change((tmp_path / "bundle.json").read_text(), *keys, value=value))
    assert "damaged (" in line and words in line


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("answers", "rain", "levels"), [0.5, 0.4], "levels [0.5, 0.4]: wanted two or more that rise"),
        (("answers", "rain", "levels"), 0.5, "rain.levels: wanted a list, came 0.5"),
        (("answers", "rain", "window"), [0, 1, 2], "rain.window: wanted 2 entries, came 3"),
        (("inputs", "weather", "units"), ["K", None], "weather.units[1]: wanted text, came nothing"),
    ],
)
def test_a_damaged_bundle_of_weather_is_refused_by_its_key(tmp_path, keys, value, words):
    write_bundle(tmp_path, RAIN)
    line = refused(tmp_path, change((tmp_path / "bundle.json").read_text(), "spec", *keys, value=value))
    assert "damaged (" in line and words in line


@pytest.mark.parametrize("made_in", [2, 99, "2", None])
def test_another_format_says_how_to_train_again(make_spec, tmp_path, made_in):
    write_bundle(tmp_path, Bundle(make_spec(), NAME, ARCHITECTURE))
    content = json.loads((tmp_path / "bundle.json").read_text()) | {"format": made_in}
    line = refused(tmp_path, json.dumps(content))
    assert f"wanted format 4, came {made_in}, of another version of earthtune; train it again" in line
    assert line.endswith(f"earthtune finetune {tmp_path / 'recipe.yaml'} --out ANOTHER")


# ---------------------------------------------------------------- weights


def test_a_whole_bundle_needs_nothing_else(make_network, published, tmp_path):
    network = fine_tuned(make_network, published, "full")
    folder = save(tmp_path / "run", network, "full", from_file(published))
    again = load_network(folder)
    assert not again.training
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    same_answers(network, again)


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_a_bundle_of_an_untouched_backbone_holds_what_was_trained_only(make_network, published, tmp_path, mode):
    network = fine_tuned(make_network, published, mode)
    folder = save(tmp_path / "run", network, mode, from_file(published))
    keys = set(load_file(folder / "model.safetensors"))
    adapters = {key for key in keys if key.startswith("backbone.")}
    assert len(adapters) == (2 * 2 * 2 if mode == "lora" else 0)  # two factors, two layers, two blocks
    assert keys - adapters == {k for k in network.state_dict() if not k.startswith("backbone.")}
    same_answers(network, load_network(folder, weights=published))


@pytest.mark.parametrize("mode", ["frozen", "lora"])
def test_the_base_is_taken_from_the_hub_at_its_commit(make_network, published, tmp_path, hub, mode):
    commit = hub.publish(REPO, {FILE: published.read_bytes()})
    hub.publish(REPO, {FILE: b"a later file"})
    found = locate(REPO, FILE, revision=commit)
    base = Base("hub", REPO, found.revision, FILE, found.sha256(), BANDS)
    network = fine_tuned(make_network, published, mode)
    folder = save(tmp_path / "run", network, mode, base)
    same_answers(network, load_network(folder))
    hub.stop()
    same_answers(network, load_network(folder))


def test_without_its_base_a_bundle_says_what_it_needs(make_network, published, tmp_path):
    network = fine_tuned(make_network, published, "frozen")
    folder = save(tmp_path / "run", network, "frozen", from_file(published))
    with pytest.raises(InputError, match=r"its backbone is Prithvi_EO_V2_300M_TL\.pt \(sha256 .*--weights"):
        load_network(folder)


def test_another_file_than_the_recorded_base_is_refused(make_network, published, tmp_path):
    network = fine_tuned(make_network, published, "frozen")
    folder = save(tmp_path / "run", network, "frozen", from_file(published))
    other = {key: value + 1 for key, value in torch.load(published, weights_only=True).items()}
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt: not the base of this bundle.*sha256 differs"):
        load_network(folder, weights=tmp_path / "other.pt")


def last(state):
    return max(key for key in state if key.startswith("head."))


TENSORS = {
    "foreign": lambda s: s | {"backbone.vit.evil": torch.zeros(2)},
    "missing": lambda s: {k: v for k, v in s.items() if k != last(s)},
    "shape": lambda s: s | {last(s): torch.zeros(7)},
}


@pytest.mark.parametrize("case", TENSORS)
@pytest.mark.parametrize("mode", ["full", "frozen"])
def test_weights_that_do_not_fit_their_bundle_are_refused(make_network, published, tmp_path, case, mode):
    network = fine_tuned(make_network, published, mode)
    folder = save(tmp_path / "run", network, mode, from_file(published))
    path = folder / "model.safetensors"
    save_file(TENSORS[case](load_file(path)), path)
    write_bundle(folder, read_bundle(folder))
    with pytest.raises(InputError, match=r"model\.safetensors: does not fit its bundle\.json \(tensor (back|head)"):
        load_network(folder, weights=published)


def test_weights_are_those_that_bundle_json_was_written_for(make_network, published, tmp_path):
    network = fine_tuned(make_network, published, "full")
    folder = save(tmp_path / "run", network, "full", from_file(published))
    before = (folder / "bundle.json").read_text()
    write_weights(folder, make_network(seed=8), whole=True)
    with pytest.raises(InputError, match=r"model\.safetensors: not the file that bundle\.json .*its sha256 differs"):
        load_network(folder)
    write_weights(folder, network, whole=True)
    same_answers(network, load_network(folder))
    (folder / "bundle.json").write_text(before.replace(read_bundle(folder).sha256, ""))
    with pytest.raises(InputError, match=r"model\.safetensors: not the file .*it tells of none"):
        load_network(folder)


def test_weights_that_are_no_numbers_are_refused(make_network, published, tmp_path):
    network = fine_tuned(make_network, published, "full")
    with torch.no_grad():
        list(network.head.parameters())[-1].view(-1)[0] = float("nan")
    folder = save(tmp_path / "run", network, "full", from_file(published))
    with pytest.raises(InputError, match=r"model\.safetensors: tensor head\..* holds NaN"):
        load_network(folder)


@pytest.mark.parametrize("content", [None, b"", b"not tensors at all"])
def test_missing_and_damaged_weights_are_refused(make_network, published, tmp_path, content):
    folder = save(tmp_path / "run", fine_tuned(make_network, published, "full"), "full", from_file(published))
    path = folder / "model.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_network(folder)


def test_a_bundle_holds_no_pickle(make_network, published, tmp_path):
    folder = save(tmp_path / "run", fine_tuned(make_network, published, "full"), "full", from_file(published))
    assert {path.name for path in folder.iterdir()} == {"bundle.json", "model.safetensors"}
    assert Spec.from_json(json.loads((folder / "bundle.json").read_text())["spec"]) == read_bundle(folder).spec


# ---------------------------------------------------------------- writing


def test_failing_writes_leave_a_run_as_it_was(make_network, published, tmp_path, monkeypatch):
    network = fine_tuned(make_network, published, "full")
    folder = save(tmp_path / "run", network, "full", from_file(published))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TypeError):
        write_bundle(folder, Bundle(network.spec, NAME, ARCHITECTURE, scores={"rmse": object()}))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_weights(folder, make_network(seed=8), whole=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
