"""Windows of scenes without labels: where they lie, what they hold, and that they come again."""

import numpy as np
import pytest

from models.errors import InputError
from pipelines.samples.crops import Crops
from pipelines.samples.unlabelled import Place, Unlabelled, open_frames, open_scenes
from pipelines.scenes.reading import Reading
from tests.runs import BANDS, make_chip, write

DATED = {"names": BANDS, "tags": {"ACQUISITION_DATE": "2021-06-15"}, "nodata": -9999}


def scene(path, side=32, *, void=None, **profile):
    bands = np.random.default_rng(side).integers(300, 3000, (6, side, side)).astype(np.int16)
    if void:
        bands[:, void[0], void[1]] = -9999
    return str(write(path, bands, **DATED | profile))


def opened(*sources, frames=1, **reading):
    said: list[str] = []
    scenes = open_scenes(sources, Reading(**reading), frames=frames, progress=None, say=said.append)
    return scenes, said


def test_items_are_windows_of_the_scene_as_it_is_read(tmp_path):
    scenes, _ = opened(scene(tmp_path / "a.tif", 100))
    samples = Unlabelled(scenes, size=32, patch=16, encodings=("time", "location"))
    whole, _ = scenes[0].read(scenes[0].window)
    crops = Crops(samples, [Place(0, scenes[0].window)] * 3, seed=4)
    item = crops[0]
    corners = [(r, c) for r in range(69) for c in range(69) if whole[0, 0, r, c] == item["imagery"][0, 0, 0, 0]]
    assert any(np.array_equal(whole[:, :, r : r + 32, c : c + 32], item["imagery"]) for r, c in corners)
    assert item["y"].all() and item["noise"].shape == (4,) and item["time"].tolist() == [[2021, 165]]
    assert item["location"] == pytest.approx(scenes[0].location(scenes[0].window), abs=0.05)


def test_windows_are_a_function_of_seed_epoch_and_index(tmp_path):
    scenes, _ = opened(scene(tmp_path / "a.tif", 100))

    def drawn(key, seed=4):
        samples = Unlabelled(scenes, size=32, patch=16)
        return Crops(samples, [Place(0, scenes[0].window)] * 3, seed=seed)[key]

    first = drawn((7, 2))
    assert all(np.array_equal(first[name], drawn((7, 2))[name]) for name in first)
    for other in (drawn((8, 2)), drawn((7, 1)), drawn((7, 2), seed=5), drawn(2)):
        assert not np.array_equal(first["imagery"], other["imagery"]) and not np.array_equal(
            first["noise"], other["noise"]
        )


def test_smaller_scenes_are_padded_with_what_is_not_valid(tmp_path):
    scenes, _ = opened(scene(tmp_path / "a.tif", 24, void=(slice(0, 5), slice(0, 24))))
    samples = Unlabelled(scenes, size=32, patch=16)
    item = samples.item(Place(0, scenes[0].window), np.random.default_rng(0))
    wanted = np.zeros((32, 32), bool)
    wanted[5:24, :24] = True
    assert np.array_equal(item["y"], wanted) and (item["imagery"][..., ~wanted] == 0).all()


def test_one_scene_in_twenty_is_held_out_and_no_window_of_it_is_learned_from(tmp_path):
    scenes, _ = opened(*(scene(tmp_path / f"{i}.tif", 64) for i in range(3)))
    learned, watched, told = Unlabelled(scenes, size=32, patch=16).places(windows=0, seed=1)
    assert (len(learned), len(watched), told) == (8, 4, "1 of 3 scenes held out")
    assert not {place.scene for place in learned} & {place.scene for place in watched}
    assert len(Unlabelled(scenes, size=32, patch=16).places(windows=3, seed=1)[0]) == 6


def test_of_one_large_scene_the_lowest_rows_are_held_out(tmp_path):
    scenes, _ = opened(scene(tmp_path / "a.tif", 130, void=(slice(98, 130), slice(0, 32))))
    samples = Unlabelled(scenes, size=32, patch=16)
    learned, watched, told = samples.places(windows=0, seed=0)
    assert "lowest 32 rows" in told and {place.part[0].stop for place in learned} == {98}
    assert [place.part[1].start for place in watched] == [32, 64, 96]  # the last holds two columns, and is left out
    assert all(place.part[0] == slice(98, 130) for place in watched)


def test_scenes_without_data_are_refused(tmp_path):
    scenes, _ = opened(scene(tmp_path / "a.tif", 32, void=(slice(0, 32), slice(0, 32))))
    with pytest.raises(InputError, match=r"a\.tif: no window of 32 x 32 pixels in it, or in any other"):
        Unlabelled(scenes, size=32, patch=16).places(windows=0, seed=0)


def test_units_are_looked_at_in_every_scene(tmp_path):
    bands = make_chip(1)[0]
    good = write(tmp_path / "good.tif", bands, **DATED)
    dark = [str(write(tmp_path / f"dark{i}.tif", (bands / 40).astype(np.int16), **DATED)) for i in (1, 2)]
    wrong = write(tmp_path / "wrong.tif", bands.astype(np.int32) * 40, **DATED)
    _, said = opened(str(good), *dark)
    assert len(said) == 1 and said[0].startswith("dark1 and 1 more: WARNING: hardly a pixel reflects more than")
    with pytest.raises(InputError, match=r"wrong\.tif: its values are no reflectance"):
        opened(str(good), str(wrong))
    assert opened(str(wrong), as_is=True)[1] == []


def test_frames_and_bands_have_to_be_there(tmp_path):
    one, two = scene(tmp_path / "a.tif"), scene(tmp_path / "b.tif", tags={"ACQUISITION_DATE": "2020-01-01"})
    assert opened(f"{one},{two}", frames=2)[0][0].frames == 2
    with pytest.raises(InputError, match="frames"):
        open_frames(one, Reading(), frames=2)
    few = write(tmp_path / "few.tif", make_chip(1)[0][:2], names=BANDS[:2])
    with pytest.raises(InputError, match=r"few\.tif.*NIR_NARROW|RED.*name the scenes by a pattern"):
        opened(one, str(few))
