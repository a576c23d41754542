"""The sample scenes: the same on every run, small, well formed, and neither trivial nor hopeless to map.

``pytest tests/test_sample_data.py -k floors -s`` prints the figures of sample_data/README.md.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy.ndimage import uniform_filter
from sklearn.ensemble import RandomForestClassifier

SAMPLES = Path(__file__).parents[2] / "sample_data"
CODES = (10, 30, 40, 50, 80)
PICTURES = ("landuse/scene_a_hls.tif", "landuse/scene_b_hls.tif", "new_scene/new_scene_hls.tif")
LABELS = ("landuse/scene_a_landuse.tif", "landuse/scene_b_landuse.tif", "truth/new_scene_landuse.tif")
FILES = sorted((*PICTURES, *LABELS, *(picture.replace("hls", "fmask") for picture in PICTURES)))


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def described(path):
    with rasterio.open(path) as file:
        colours = file.colormap(1) if file.count == 1 and file.descriptions == ("LAND_USE",) else None
        return file.profile, file.tags(), file.descriptions, file.scales, file.colorinterp, colours


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample_data")
    subprocess.run([sys.executable, SAMPLES / "make.py", out], check=True)
    return out


def test_the_script_makes_these_files_and_no_others(remade):
    for folder in (SAMPLES, remade):
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tif*"))
        assert [name for name in found if not name.startswith("fused/")] == FILES


@pytest.mark.parametrize("name", FILES)
def test_committed_file_is_what_the_script_makes(remade, name):
    np.testing.assert_array_equal(read(remade / name), read(SAMPLES / name))
    assert described(remade / name) == described(SAMPLES / name)


def test_files_stay_small():
    assert sum((SAMPLES / name).stat().st_size for name in FILES) < 3_000_000


@pytest.mark.parametrize(("picture", "labels"), list(zip(PICTURES, LABELS, strict=True)))
def test_picture_fmask_and_labels_share_one_utm_grid(picture, labels):
    grids = set()
    for name in (picture, picture.replace("hls", "fmask"), labels):
        with rasterio.open(SAMPLES / name) as file:
            assert file.crs.to_epsg() in (32633, 32634)
            assert file.res == (30, 30)
            grids.add((file.crs.to_wkt(), file.transform, file.shape))
    assert len(grids) == 1


@pytest.mark.parametrize("picture", PICTURES)
def test_nodata_is_one_slanted_border_common_to_all_bands(picture):
    bands = read(SAMPLES / picture)
    unseen = bands == -9999
    np.testing.assert_array_equal(unseen, np.broadcast_to(unseen[0], bands.shape))
    np.testing.assert_array_equal(unseen[0], read(SAMPLES / picture.replace("hls", "fmask"))[0] == 255)
    assert 0.005 < unseen.mean() < 0.05
    widths = unseen[0].sum(axis=1)
    assert len(np.unique(widths)) > 10, "the border is slanted, not straight"
    assert bands[~unseen].min() > -200 and bands[~unseen].max() < 10000


@pytest.mark.parametrize("picture", PICTURES)
def test_picture_says_what_its_bands_are(picture):
    with rasterio.open(SAMPLES / picture) as file:
        assert file.descriptions == ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
        assert file.scales == (0.0001,) * 6
        assert (file.nodata, file.dtypes) == (-9999, ("int16",) * 6)
        assert file.tags()["ACQUISITION_DATE"].startswith("2023-")


@pytest.mark.parametrize("labels", LABELS)
def test_every_class_is_there_and_unlabelled_rows_only_in_scene_b(labels):
    codes = read(SAMPLES / labels)[0]
    unlabelled = (0,) if "scene_b" in labels else ()
    assert tuple(np.unique(codes)) == (*unlabelled, *CODES)
    assert not (codes[:371] == 0).any()


@pytest.mark.parametrize("picture", PICTURES)
def test_fmask_finds_bright_clouds_and_dark_shadows(picture):
    blue = read(SAMPLES / picture)[0]
    bits = read(SAMPLES / picture.replace("hls", "fmask"))[0]
    seen = bits != 255
    clear = seen & (bits & 0b1110 == 0)
    assert 0.8 < clear.mean() < 0.97
    assert np.median(blue[seen & (bits & 0b10 > 0)]) > 3 * np.median(blue[clear])
    assert np.median(blue[seen & (bits & 0b1000 > 0)]) < 0.8 * np.median(blue[clear])


@dataclass
class Labelled:
    """Features (F, H, W), codes (H, W) and the pixels that are seen, labelled and free of cloud (H, W)."""

    features: np.ndarray
    codes: np.ndarray
    usable: np.ndarray


def labelled(picture, labels):
    """One scene with 30 features: its six bands, then their mean and standard deviation over 7x7 and 15x15 pixels."""
    counts = read(SAMPLES / picture).astype(float)
    codes = read(SAMPLES / labels)[0]
    usable = (counts[0] != -9999) & (read(SAMPLES / picture.replace("hls", "fmask"))[0] & 0b1110 == 0) & (codes > 0)
    middle = np.median(counts[:, counts[0] != -9999], axis=1)
    bands = np.where(counts == -9999, middle[:, None, None], counts)
    features = [bands]
    for side in (7, 15):
        mean = uniform_filter(bands, (0, side, side))
        variance = uniform_filter(bands**2, (0, side, side)) - mean**2
        features += [mean, np.sqrt(variance.clip(0))]
    return Labelled(np.concatenate(features), codes, usable)


def forest_map(train, new, count):
    """Map the new scene by a forest that learnt 20,000 usable pixels of the training scenes by their first features."""
    pixels = np.concatenate([scene.features[:count, scene.usable].T for scene in train])
    codes = np.concatenate([scene.codes[scene.usable] for scene in train])
    chosen = np.random.default_rng(0).choice(len(codes), 20_000, replace=False)
    forest = RandomForestClassifier(40, min_samples_leaf=2, random_state=0, n_jobs=2)
    forest.fit(pixels[chosen], codes[chosen])
    return forest.predict(new.features[:count].reshape(count, -1).T).reshape(new.codes.shape)


def commonest(codes, side):
    """The commonest code within a window round each pixel."""
    shares = [uniform_filter((codes == code).astype(float), side) for code in CODES]
    return np.array(CODES)[np.argmax(shares, axis=0)]


def test_floors_leave_room_for_context_but_not_for_a_blur():
    """The forest on pixels beats the commonest class, a blur does not mend it, and texture does."""
    *train, new = [labelled(picture, labels) for picture, labels in zip(PICTURES, LABELS, strict=True)]

    def accuracy(codes):
        return float((codes == new.codes)[new.usable].mean())

    values, counts = np.unique(np.concatenate([scene.codes[scene.usable] for scene in train]), return_counts=True)
    majority = accuracy(np.full(new.codes.shape, values[counts.argmax()]))
    mapped = forest_map(train, new, 6)
    pixel, blurred, context = accuracy(mapped), accuracy(commonest(mapped, 5)), accuracy(forest_map(train, new, 30))
    print(f"\nmajority {majority:.3f}  pixel {pixel:.3f}  blurred {blurred:.3f}  context {context:.3f}")
    assert majority + 0.25 < pixel < 0.80
    assert blurred < pixel + 0.03
    assert context > pixel + 0.06
