"""Chips: windows, labels, splits, augmentation."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.spec import IMAGERY
from models.training.settings import Training
from pipelines.recipes.recipe import Data, SceneRecipe
from pipelines.samples import sets
from pipelines.samples.chips import Chips, Reader, find_chips, find_images
from pipelines.samples.names import read_groups
from pipelines.samples.sets import BatchSampler, EpochSampler, ItemSet
from pipelines.samples.variation import augment, missing_frames
from pipelines.tasks.imagery import check
from tests.runs import BANDS, CLASSES, make_chip, make_chips, write
from tests.specs import scene_spec


def spec_of(tile=32):
    return scene_spec("segmentation", BANDS, (1000.0,) * 6, (500.0,) * 6, tile=tile, patch=16, classes=CLASSES)


def data_of(root, **changes):
    return dataclasses.replace(Data(root, images="*_hls.tif", labels="*_lc.tif"), **changes)


def test_sample_is_the_file(chips):
    spec, data = spec_of(), data_of(chips)
    (chip, *_) = find_chips(data, spec, seed=0)
    sample, (bands, codes) = Reader(spec, data)(chip), make_chip(0)
    np.testing.assert_array_equal(sample.x[:, 0], bands)
    np.testing.assert_array_equal(np.array([10, 30, 80])[sample.y], codes[0])
    assert sample.valid.all()


def test_large_images_are_cut_and_small_ones_padded(tmp_path):
    bands, codes = make_chip(2, side=40)
    bands[:, 5, 7] = -9999
    write(tmp_path / "a_hls.tif", bands, names=BANDS, nodata=-9999)
    write(tmp_path / "a_lc.tif", codes)
    spec, data = spec_of(), data_of(tmp_path)
    chips = find_chips(data, spec, seed=0, split=False)
    assert [chip.name for chip in chips] == ["a_hls_0_0", "a_hls_0_32", "a_hls_32_0", "a_hls_32_32"]
    sample = Reader(spec, data)(chips[0])
    assert sample.y[5, 7] == -1 and not sample.valid[5, 7]
    assert sample.x[0, 0, 5, 7] == pytest.approx(sample.x[0, 0][sample.valid].mean(), rel=1e-5)
    wide = spec_of(64)
    (chip,) = find_chips(data, wide, seed=0, split=False)
    sample = Reader(wide, data)(chip)
    assert sample.x.shape == (6, 1, 64, 64) and not sample.valid[40:].any() and (sample.y[:, 40:] == -1).all()


def test_bands_in_files_of_their_own_are_the_same_chip(chips, tmp_path):
    for i in range(2):
        bands, codes = make_chip(i)
        for name, band in zip(BANDS, bands, strict=True):
            write(tmp_path / name.lower() / f"[{i}]_{name[:2]}.tif", band[None], nodata=-9999)
        write(tmp_path / f"[{i}]_lc.tif", codes, nodata=0)
    images = {name: f"{name.lower()}/*_{name[:2]}.tif" for name in BANDS[::-1]}
    found = find_chips(data_of(tmp_path, images=images), spec_of(), seed=0, split=False)
    one = Reader(spec_of(), data_of(tmp_path, images=images))(found[1])
    other = Reader(spec_of(), data_of(chips))(find_chips(data_of(chips), spec_of(), seed=0)[1])
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.y, other.y)


def test_fill_that_nothing_declares_is_no_ground_to_learn_from(tmp_path):
    bands, codes = make_chip(2)
    bands[:, :, :10] = 0
    write(tmp_path / "a_hls.tif", bands, names=BANDS)
    write(tmp_path / "a_lc.tif", codes)
    for find_fill in (True, False):
        data = data_of(tmp_path, find_fill=find_fill)
        tile = Reader(spec_of(), data)(find_chips(data, spec_of(), seed=0, split=False)[0])
        assert (tile.y[:, :10] == -1).all() == find_fill and tile.valid[:, 10:].all() and (tile.y[:, 10:] >= 0).all()
        assert bool((tile.x[:, 0, :, :10] == 0).all()) != find_fill


def test_what_is_wrong_with_files_is_told_before_torch_is_imported(tmp_path):
    code = (
        "import sys; from pipelines.cli.main import main; "
        f"print(main(['finetune', 'landuse', '--data.root', {str(tmp_path)!r}]), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "2 False" and "no images match" in done.stderr


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("chip,group\nHLS.T10SDH.v1.4,g1\nHLS.T10SDH.v1.5,g2\n", {"HLS.T10SDH.v1.4": "g1", "HLS.T10SDH.v1.5": "g2"}),
        ("\ufeffgroup,chip\r\ng1,a/x_hls.tif\r\n", {"x_hls": "g1"}),
        ("chip,group\nx,g1\nx.tif,g2\n", "in the groups g1 and g2"),
        ("chip,group\nx\n", "no chip or no group"),
        ("chip,place\nx,g1\n", "wanted columns chip and group, came chip, place"),
        ("", "it is empty"),
    ],
)
def test_groups_are_read_by_whole_names(tmp_path, text, right):
    (tmp_path / "g.csv").write_text(text, encoding="utf-8")
    if isinstance(right, dict):
        assert read_groups(tmp_path / "g.csv") == right
    else:
        with pytest.raises(InputError, match=right):
            read_groups(tmp_path / "g.csv")


def test_groups_never_fall_into_two_splits(tmp_path):
    make_chips(tmp_path, 12)
    rows = "\n".join(f"c{i:02d},g{i // 3}" for i in range(12))
    (tmp_path / "groups.csv").write_text(f"chip,group\n{rows}\n")
    chips = find_chips(data_of(tmp_path, groups="groups.csv"), spec_of(), seed=1)
    splits = {group: {chip.split for chip in chips if chip.group == group} for group in {c.group for c in chips}}
    assert len(splits) == 4 and all(len(s) == 1 for s in splits.values())
    assert {chip.split for chip in chips} == {"train", "val", "test"}
    (tmp_path / "groups.csv").write_text("chip,group\nc00,g\n")
    with pytest.raises(InputError, match="no group for"):
        find_chips(data_of(tmp_path, groups="groups.csv"), spec_of(), seed=1)


def test_lists_are_obeyed_and_leaks_refused(tmp_path):
    make_chips(tmp_path, 4)
    for name, lines in {"train": "c00_hls\nc01_hls", "val": "c02_hls", "test": "c03_hls"}.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    data = data_of(tmp_path, train="train.txt", val="val.txt", test="test.txt")
    assert [c.split for c in find_chips(data, spec_of(), seed=0)] == ["train", "train", "val", "test"]
    (tmp_path / "test.txt").write_text("c03_hls\nc00_hls")
    with pytest.raises(InputError, match="leak"):
        find_chips(data, spec_of(), seed=0)


@given(st.integers(0, 2**32), st.booleans())
def test_bands_labels_and_features_turn_together(seed, jitter):
    """Each is a picture of the row and column that a pixel came from, so they agree wherever they went."""
    place = np.arange(16.0).reshape(4, 4).astype(np.float32)
    item = {IMAGERY: np.stack([place] * 6)[:, None], "y": place.astype(np.int64), "features": place[None, None]}
    training = Training(gain=0.1 if jitter else 0, offset=0)
    out = augment(item, (500.0,) * 6, training, np.random.default_rng(seed))
    np.testing.assert_array_equal(out["y"], out["features"][0, 0])
    ratio = out[IMAGERY][:, 0].reshape(6, -1)[:, out["y"].ravel() > 0] / out["y"].ravel()[out["y"].ravel() > 0]
    np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones_like(ratio), rtol=1e-5)
    if not jitter:
        np.testing.assert_allclose(ratio, 1)


def test_all_eight_symmetries_come():
    item = {IMAGERY: np.arange(9.0, dtype=np.float32).reshape(1, 1, 3, 3), "y": np.zeros((3, 3), np.int64)}
    seen = {augment(item, (500.0,), Training(), np.random.default_rng(i))[IMAGERY].tobytes() for i in range(200)}
    assert len(seen) == 8


def test_items_are_a_function_of_seed_epoch_and_index(chips):
    spec, data = spec_of(), data_of(chips)
    found = find_chips(data, spec, seed=0)
    samples = Chips(spec, data, found, Training(gain=0.1))
    first, again, other = (ItemSet(samples, found, seed=seed) for seed in (1, 1, 2))
    assert (first[3, 2][IMAGERY] == again[3, 2][IMAGERY]).all()
    assert not (first[3, 2][IMAGERY] == first[4, 2][IMAGERY]).all()
    assert not (first[3, 2][IMAGERY] == other[3, 2][IMAGERY]).all()
    assert (first[2][IMAGERY] == Reader(spec, data)(found[2]).x).all()


def test_dates_and_places_are_not_turned(chips):
    spec, data = spec_of().revised(uses_time=True, uses_location=True), data_of(chips)
    found = find_chips(data, spec, seed=0)
    items = ItemSet(Chips(spec, data, found), found, seed=0)
    assert all((items[epoch, 0][name] == items[0][name]).all() for epoch in range(8) for name in ("time", "location"))


def test_sampler_draws_each_index_once_an_epoch():
    sampler = EpochSampler(10, seed=3, batch=4)
    sampler.set_epoch(4)
    pairs = list(sampler)
    assert sorted(i for _, i in pairs) == list(range(10)) and {e for e, _ in pairs} == {4}
    sampler.set_epoch(5)
    assert [i for _, i in pairs] != [i for _, i in sampler]


def shares(monkeypatch, world: int, sampler) -> list[list[Any]]:
    """What each of some processes draws."""
    found = []
    for rank in range(world):
        monkeypatch.setattr(sets, "rank_of_all", lambda rank=rank: (rank, world))
        found.append(list(sampler()))
    return found


def batched(items, size: int) -> list[list[Any]]:
    return [list(items[first : first + size]) for first in range(0, len(items), size)]


@pytest.mark.parametrize(("size", "full", "used"), [(12, False, 12), (14, False, 14), (13, False, 12), (14, True, 12)])
def test_processes_share_out_each_batch(monkeypatch, size, full, used):
    """A last batch of fewer samples than processes is left out, and with `full` any that is not."""
    whole = shares(monkeypatch, 1, lambda: EpochSampler(size, seed=0, batch=6, full=full))[0]
    parts = shares(monkeypatch, 2, lambda: EpochSampler(size, seed=0, batch=6, full=full))
    together = [sorted(a + b) for a, b in zip(*(batched(part, 3) for part in parts), strict=True)]
    assert together == [sorted(batch) for batch in batched(whole[:used], 6)]


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch):
    for size, batch, said in ((12, 5, "multiple of the 2"), (1, 4, "fewer than the 2")):
        with pytest.raises(InputError, match=said):
            shares(monkeypatch, 2, lambda size=size, batch=batch: EpochSampler(size, seed=0, batch=batch))


@pytest.mark.parametrize(("size", "world"), [(10, 2), (10, 3), (3, 2)])
def test_processes_share_out_batches_of_validation_or_each_has_all(monkeypatch, size, world):
    parts = shares(monkeypatch, world, lambda: BatchSampler(size, batch=4))
    if size > 4 * (world - 1):
        assert sorted(batch for part in parts for batch in batched(part, 4)) == batched(range(size), 4)
    else:
        assert parts == [list(range(size))] * world


def test_places_give_a_date_for_each_period_and_those_without_are_left_out(tmp_path):
    days = {"a": ("2021-03-02", "2021-06-10", "2021-09-05"), "b": ("2021-03-09", "2021-06-20"), "c": ("2021-03-05",)}
    for number, (name, dates) in enumerate(days.items()):
        (tmp_path / name).mkdir()
        bands, codes = make_chip(number)
        for day in dates:
            path = tmp_path / name / f"{day}.tif"
            write(path, bands + int(day[5:7]), names=BANDS, tags={"ACQUISITION_DATE": day})
        write(tmp_path / f"{name}_lc.tif", codes)
    how = {"images": "?", "labels": "?_lc.tif", "periods": ["03", "06/08"]}
    data, spec = Data(tmp_path, **how), spec_of().revised(times=2)
    notes = []
    assert [place for place, _ in find_images(data, spec.answer, BANDS, notes)] == [
        tuple(tmp_path / name / f"{day}.tif" for day in days[name][:2]) for name in "ab"
    ]
    assert "1 of 3 places are left out, such as c: no date in 06/08; its dates are 2021-03-05" in notes[0]
    chips = find_chips(data, spec, seed=0, split=False)
    assert [(chip.name, chip.group) for chip in chips] == [("a", "a"), ("b", "b")]
    reader = Reader(spec, data)
    sample = reader(chips[1])
    np.testing.assert_array_equal(sample.x[:, 1], make_chip(1)[0] + 6)
    assert [str(day) for day in reader.scene(chips[1]).dates] == ["2021-03-09", "2021-06-20"]
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "val.txt").write_text("b\n")
    lists = dataclasses.replace(data, train="train.txt", val="val.txt")
    assert [chip.split for chip in find_chips(lists, spec, seed=0)] == ["train", "val"]
    short = dataclasses.replace(data, missing_frames=1)
    chips = find_chips(short, spec, seed=0, split=False)
    assert [(chip.name, chip.images) for chip in chips if chip.name == "c"] == [("c", (tmp_path / "c",))]
    notes.clear()
    find_images(short, spec.answer, BANDS, notes)
    assert notes == ["1 of 3 places miss a frame, such as c: 06/08"]
    samples = Chips(spec, short, chips, Training())
    rng, seen = np.random.default_rng(0), list[tuple[bool, ...]]()
    for chip in (chips[0], chips[2]):
        items = [samples.varied(samples.item(chip), rng)[IMAGERY] for _ in range(40)]
        seen.append({tuple(missing_frames(x, spec.imagery.mean)) for x in items})
    assert seen == [{(False, False), (True, False), (False, True)}, {(False, True)}]
    mean = spec.imagery.mean
    twice = sets.Again(ItemSet(samples, [chips[0], chips[2]], seed=0), samples.dates.always)
    assert [int(missing_frames(twice[i][IMAGERY], mean).sum()) for i in range(len(twice))] == [0, 1, 1, 1]
    np.testing.assert_array_equal(twice[0][IMAGERY], samples.item(chips[0])[IMAGERY])
    whole = Chips(spec, data, chips[:1], Training())
    assert not any(
        missing_frames(whole.varied(whole.item(chips[0]), rng)[IMAGERY], spec.imagery.mean).any() for _ in "12345678"
    )
    with pytest.raises(InputError, match="no date in 2020-01"):
        find_chips(dataclasses.replace(data, periods=["2020-01", "03"]), spec, seed=0)
    with pytest.raises(InputError, match="one pattern of places"):
        find_chips(dataclasses.replace(data, dates=["2020-01-01"]), spec, seed=0)


@pytest.mark.parametrize(("periods", "missing"), [([], 1), (["03", "06"], 2), (["03", "06"], -1)])
def test_more_missing_frames_than_any_place_could_bear_are_refused(tmp_path, periods, missing):
    recipe = SceneRecipe(task="segmentation", data=Data(tmp_path, periods=periods, missing_frames=missing))
    with pytest.raises(InputError, match=f"data.missing_frames {missing}: wanted fewer than the {len(periods)}"):
        check(recipe)
