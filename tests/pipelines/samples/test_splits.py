import math
from collections import Counter

import numpy as np
import pytest
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod

from models.errors import InputError
from pipelines.samples.names import listed, shortened
from pipelines.samples.splits import SPLITS, folds_by_group, some, spatial_blocks, split_by_group, split_by_lists

items = st.lists(st.sampled_from([f"g{i}" for i in range(12)]), min_size=3, max_size=80).filter(
    lambda groups: len(set(groups)) >= 3
)


@given(groups=items, seed=st.integers(0, 1000))
def test_no_group_is_in_two_splits_and_no_split_is_empty(groups, seed):
    assigned = split_by_group(groups, seed=seed)
    assert len(assigned) == len(groups)
    assert set(assigned) == set(SPLITS)
    assert len(set(zip(groups, assigned, strict=True))) == len(set(groups))


@given(groups=items, seed=st.integers(0, 1000), val=st.floats(0.05, 0.45), test=st.floats(0.05, 0.45))
def test_no_split_exceeds_its_share_by_more_than_the_largest_group(groups, seed, val, test):
    fractions = (1 - val - test, val, test)
    sizes = Counter(split_by_group(groups, fractions=fractions, seed=seed))
    largest = max(Counter(groups).values())
    for split, share in zip(SPLITS, fractions, strict=True):
        assert sizes[split] <= share * len(groups) + largest + 1e-6


@given(groups=items, seed=st.integers(0, 1000))
def test_a_split_depends_on_neither_order_nor_anything_but_the_seed(groups, seed):
    forward = dict(zip(groups, split_by_group(groups, seed=seed), strict=True))
    backward = dict(zip(groups[::-1], split_by_group(groups[::-1], seed=seed), strict=True))
    assert forward == backward


def test_many_small_groups_come_near_the_fractions_and_seeds_differ():
    groups = [f"g{i // 5}" for i in range(1000)]
    sizes = Counter(split_by_group(groups, seed=1))
    assert [sizes[split] for split in SPLITS] == pytest.approx([700, 150, 150], abs=5)
    assert split_by_group(groups, seed=1) != split_by_group(groups, seed=2)


def test_too_few_groups_and_bad_fractions_are_refused():
    with pytest.raises(InputError, match=r"2 groups \(a, b\): three splits want at least 3"):
        split_by_group(["a", "b", "a"], seed=0)
    for fractions in ((0.7, 0.3, 0.0), (0.5, 0.2, 0.2), (0.5, 0.5), (0.25,) * 4):
        with pytest.raises(InputError, match="positive shares"):
            split_by_group(["a", "b", "c"], fractions=fractions, seed=0)
    thirds = (0.333333, 0.333333, 0.333334), (0.3333333, 0.3333333, 0.3333333)  # as people write them
    assert {len(set(split_by_group("abc", fractions=fractions, seed=0))) for fractions in thirds} == {3}


def test_names_are_listed_up_to_three():
    told = ["a", "a, b, c", "a, b, c and 1 more", "a, b, c and 2 more"]
    assert [some("abcde"[:count]) for count in (1, 3, 4, 5)] == told


def chip(x, y, crs, size=10.0):
    return GeoBox((8, 8), Affine(size, 0, x - 4 * size, 0, -size, y + 4 * size), crs)


@given(
    lon=st.floats(-179, 179), lat=st.floats(-80, 80), east=st.floats(0, 3), north=st.floats(0, 3), km=st.floats(1, 30)
)
def test_chips_of_one_block_are_near_each_other(lon, lat, east, north, km):
    there = lon + east * km / (111.32 * math.cos(math.radians(lat))), lat + north * km / 110.6
    one, other = spatial_blocks([chip(lon, lat, "EPSG:4326", 1e-6), chip(*there, "EPSG:4326", 1e-6)], block_km=km)
    distance = Geod(ellps="WGS84").inv(lon, lat, *there)[2] / 1000
    if one == other:
        assert distance < 1.5 * km  # the diagonal, and what a sphere and a band's middle latitude leave out
    else:
        assert distance > 0


@pytest.mark.parametrize("lat", [5.0, 47.0, 68.0])
def test_blocks_have_the_size_asked_for(lat):
    lons, lats = np.meshgrid(np.linspace(10, 12, 81), np.linspace(lat, lat + 1.5, 81))
    chips = [chip(x, y, "EPSG:4326", 1e-4) for x, y in zip(lons.flat, lats.flat, strict=True)]
    names = spatial_blocks(chips, block_km=20)
    geod = Geod(ellps="WGS84")
    area = geod.line_length([10, 12], [lat + 0.75] * 2) * geod.line_length([11, 11], [lat, lat + 1.5]) / 1e6
    assert area / 400 <= len(set(names)) <= 1.5 * area / 400 + 10  # blocks cut by the border count as well


def test_chips_of_neighbouring_utm_zones_share_blocks():
    # the same place, seen in zones 32 and 33 and in degrees
    from pyproj import Transformer

    lon, lat = 12.01, 47.3
    chips = [chip(lon, lat, "EPSG:4326", 1e-4)]
    for crs in ("EPSG:32632", "EPSG:32633"):
        chips.append(chip(*Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat), crs))
    assert len(set(spatial_blocks(chips, block_km=10))) == 1


def test_a_hand_worked_block():
    # 100 km are 0.8983 degrees; 47 / 0.8983 = 52.3; 9 * cos(47.16) / 0.8983 = 6.8
    assert spatial_blocks([chip(9, 47, "EPSG:4326", 1e-4)], block_km=100) == ["block_52_6"]
    # 80 degrees are 89.06 times 100 km, 44 degrees 48.98 times.
    chips = [chip(1e-3, 80, "EPSG:4326", 1e-6), chip(1e-3, 44, "EPSG:4326", 1e-6)]
    assert spatial_blocks(chips, block_km=100) == ["block_89_0", "block_48_0"]


def test_at_a_pole_all_longitudes_are_one_block():
    # The row 89.83..90.73 degrees has its middle beyond the pole.
    chips = [chip(lon, 89.9, "EPSG:4326", 1e-6) for lon in (1e-3, 60, 179)]
    chips.append(GeoBox((2, 2), Affine(0.5, 0, 9, 0, -0.5, 90.5), "EPSG:4326"))  # its centre is the pole
    assert spatial_blocks(chips, block_km=100) == ["block_100_0"] * 4


def test_blocks_want_a_place_and_a_size():
    with pytest.raises(InputError, match="no longitude and latitude by its CRS EPSG:32632"):
        spatial_blocks([chip(1e12, 1e12, "EPSG:32632")], block_km=10)
    with pytest.raises(InputError, match="no longitude and latitude by its CRS EPSG:4326"):  # metres, or columns
        spatial_blocks([chip(9, 90.01, "EPSG:4326", 1e-6)], block_km=10)
    with pytest.raises(InputError, match="has no CRS"):
        spatial_blocks([chip(0, 0, None)], block_km=10)
    with pytest.raises(InputError, match="0 km"):
        spatial_blocks([], block_km=0)
    with pytest.raises(InputError, match="inf km"):
        spatial_blocks([], block_km=math.inf)


def written(folder, lists):
    """Lists as files, one name a line."""
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(names))
    return {split: folder / f"{split}.txt" for split in lists}


def test_lists_match_whole_names(tmp_path):
    names = ["tile_1", "tile_10", "tile_100", "HLS.T33.v2.0"]
    lists = written(tmp_path, {"val": ["tile_1"], "test": ["tile_100"]})
    train = tmp_path / "train.txt"
    train.write_text("tile_10\r\n\n  HLS.T33.v2.0  \n")
    assert split_by_lists(names, {"train": train, **lists}) == ["val", "train", "test", "train"]


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"train": ["a", "b"], "test": ["b", "c"]}, r"test\.txt: b also in train; a leak"),
        ({"train": ["a", "b", "c", "d"]}, r"train\.txt: d not in the data"),
        ({"train": ["a"], "val": ["b"]}, r"c in no split list \(train, val\)"),
        ({"train": ["a", "b", "c"], "dev": ["c"]}, "split 'dev'"),
        ({"train": ["a", "b", "c"], "val": []}, r"val\.txt: wanted .* it is empty"),
    ],
)
def test_lists_that_leak_or_leave_gaps_are_refused(tmp_path, lists, said):
    with pytest.raises(InputError, match=said):
        split_by_lists(["a", "b", "c"], written(tmp_path, lists))


def test_a_list_file_is_named_in_its_errors(tmp_path):
    with pytest.raises(InputError, match=r"gone\.txt: wanted a text or CSV file of train names"):
        split_by_lists(["a"], {"train": tmp_path / "gone.txt"})
    with pytest.raises(InputError, match=r"train\.txt: b, c, d and 2 more not in the data"):
        split_by_lists(["a"], written(tmp_path, {"train": "bcdef"}))


DOTTED = ["HLS.T10SDH.2018285.v1.4_merged", "HLS.T10SDH.2018285.v1.5_merged"]
FLOODS = ["Ghana_103272_S2Hand", "Ghana_103279_S2Hand"]


@pytest.mark.parametrize(
    ("file", "text", "stems"),
    [
        ("a.txt", "HLS.T10SDH.2018285.v1.4\nHLS.T10SDH.2018285.v1.5", DOTTED),
        ("a.txt", "images/HLS.T10SDH.2018285.v1.4_merged.tif\n..\\x\\HLS.T10SDH.2018285.v1.5_merged.TIF", DOTTED),
        ("a.csv", "Ghana_103272_S1Hand.tif,Ghana_103272_LabelHand.tif\nGhana_103279_S1Hand.tif,x.tif", FLOODS),
        ("a.csv", "\ufeffid,image\n1,Ghana_103272_S2Hand.tif\n2,Ghana_103279_S2Hand.tif", FLOODS),
        ("a.csv", "image\nGhana_103272\nGhana_103279", FLOODS),
        ("a.txt", "\ufeffGhana_103272\r\nGhana_103279\r\n", FLOODS),
    ],
)
def test_published_lists_name_the_images(tmp_path, file, text, stems):
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert listed(tmp_path / file, [*stems, "another_one_entirely"][: 2 if "S1" in text else 3], "names") == stems


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["site_A", "site_B"], ["site_A", "site_C"]),  # no image is taken for another for the sake of its beginning
        (["a_2"], ["a_1_hls"]),
        (["chip"], ["chip_1", "chip_2"]),  # which of them?
    ],
)
def test_a_name_that_is_no_image_s_is_refused(tmp_path, names, stems):
    path = written(tmp_path, {"train": names})["train"]
    with pytest.raises(InputError, match="not in the data"):
        listed(path, stems, "names")


def test_an_index_column_beside_the_names_is_not_guessed_about(tmp_path):
    stems = [str(i) for i in range(6)]
    (tmp_path / "a.csv").write_text(",chip\n0,2\n1,3\n2,4\n")  # as pandas writes it
    assert listed(tmp_path / "a.csv", stems, "names") == ["2", "3", "4"]
    (tmp_path / "a.csv").write_text("0,2\n1,3\n2,4\n")
    with pytest.raises(InputError, match=r"a\.csv: several columns name images; call the one that counts `image`"):
        listed(tmp_path / "a.csv", stems, "names")
    (tmp_path / "a.csv").write_text("id,near\na_hls,b_hls\nzz,c_hls\n")
    with pytest.raises(InputError, match="zz not in the data"):
        listed(tmp_path / "a.csv", ["a_hls", "b_hls", "c_hls"], "names")


def test_folders_tell_images_of_one_name_apart(tmp_path):
    names = ["Forest/1", "Forest/2", "River/1", "River/2"]
    lists = written(tmp_path, {"train": ["Forest/1.tif", "data/River/1.tif"], "val": ["Forest/2"], "test": ["River/2"]})
    assert split_by_lists(names, lists) == ["train", "val", "train", "test"]
    del lists["test"]
    with pytest.raises(InputError, match="River/2 in no split list"):
        split_by_lists(names, lists)
    with pytest.raises(InputError, match="1 not in the data"):  # which of the two?
        split_by_lists(names, written(tmp_path, {"train": ["1"]}))


def test_another_year_is_another_image(tmp_path):
    path = written(tmp_path, {"train": ["siteA_2020", "siteB_2020"]})["train"]
    with pytest.raises(InputError, match="siteA_2020, siteB_2020 not in the data"):
        listed(path, ["siteA_2021", "siteB_2021"], "names")
    assert shortened("chip_000_hls_v") == ["chip_000_hls_v", "chip_000_hls", "chip_000"]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=120), st.integers(2, 8), st.integers(0, 5))
def test_folds_divide_no_group_and_are_of_about_one_size(numbers, count, seed):
    groups = [f"g{n}" for n in numbers]
    sizes = Counter(groups)
    assume(len(sizes) >= count)
    folds = folds_by_group(groups, count=count, seed=seed)
    assert set(folds) == set(range(count))
    assert all(len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1 for group in sizes)
    held = Counter(folds)
    assert max(held.values()) - min(held.values()) <= max(sizes.values())
    turned = folds_by_group(groups[::-1], count=count, seed=seed)
    assert turned[::-1] == folds


def test_more_folds_than_groups_are_refused():
    with pytest.raises(InputError, match="folds 4: wanted 2 to 3, as many as there are groups"):
        folds_by_group(["a", "b", "c", "a"], count=4, seed=0)
    with pytest.raises(InputError, match="folds 1"):
        folds_by_group(["a", "b"], count=1, seed=0)
