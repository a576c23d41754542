"""Tokens of Prithvi WxC as a weather file: values, places and times by hand and by scikit-learn; networks are tiny."""

from __future__ import annotations

from datetime import datetime

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from models.backbones.prithvi_wxc import WxCEncoder
from models.backbones.wxc_files import local_files
from models.backbones.wxc_weights import load_pretrained
from models.errors import InputError
from pipelines.forecasts.encode import encode
from pipelines.recipes.fused import Before
from pipelines.samples.climatology import Climatology
from pipelines.weather.merra2 import open_merra2
from pipelines.weather.series import open_series
from tests.pipelines.forecasts.test_forecast import LAT, LON, hours, write_analyses
from tests.wxc_repo import PARAMS, checkpoint, climatology, network, scaler_files

TINY, KEPT = "prithvi_wxc_tiny", 4


def published(root, seed=0):
    """A repository as published, with the climatology of three times."""
    (root / "climatology").mkdir(parents=True)
    (root / "config.yaml").write_text(yaml.safe_dump({"params": PARAMS | {"encoder_shifting": False}}))
    checkpoint(network(seed=seed), root / "weights.pt")
    files = dict(scaler_files())
    for hour in (6, 12, 18):
        files |= climatology(datetime(2020, 3, 30, hour), np.arange(35, 50, 0.5), np.arange(-110, -90, 0.625))
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return published(tmp_path_factory.mktemp("wxc") / "repo")


@pytest.fixture(scope="module")
def analyses(tmp_path_factory):
    return write_analyses(tmp_path_factory.mktemp("merra"), hours(0, 6, 12, 18))


@pytest.fixture(scope="module")
def made(analyses, folder, tmp_path_factory):
    """Tokens of three times by local weights."""
    out = tmp_path_factory.mktemp("tokens") / "new" / "tokens.nc"
    told = encode("prithvi_wxc_2300m", analyses, out=out, weights=str(folder), every=6, components=KEPT)
    return out, told


def held(path):
    """The file's tokens, (T, K, h, w), and what they are called."""
    with xr.open_dataset(path, engine="h5netcdf") as data:
        return (
            np.stack([data[name].values for name in data.data_vars], axis=1),
            [*map(str, data.data_vars)],
            data.load(),
        )


def tokens_of(analyses, folder):
    """The encoder's tokens of the three times, (T, E, h, w)."""
    files = local_files(folder)
    with torch.device("meta"):
        model = WxCEncoder(files.config)
    load_pretrained(model, files)
    merra = open_merra2(analyses, files.config.channels)
    climate = Climatology.at(str(folder), merra.lat, merra.lon, files.config)
    found = []
    for before, time in zip(hours(0, 6, 12), hours(6, 12, 18), strict=True):
        batch = merra.batch((before, time), lead=0, climate=climate.read(time))
        with torch.inference_mode():
            found.append(model.eval()(batch)[-1][0].numpy())
    return np.stack(found)


def test_what_is_kept_are_the_principal_components_of_the_encoder_s_tokens(made, analyses, folder):
    path, told = made
    values, names, _ = held(path)
    tokens = tokens_of(analyses, folder)
    rows = tokens.transpose(0, 2, 3, 1).reshape(-1, tokens.shape[1])
    fitted = PCA(KEPT).fit(z := StandardScaler().fit_transform(rows.astype(np.float64)))
    wanted = fitted.transform(z).reshape(3, 5, 4, KEPT).transpose(0, 3, 1, 2)
    signs = np.sign((wanted * values).sum((0, 2, 3)))[:, None, None]
    np.testing.assert_allclose(values, wanted * signs, atol=2e-3 * np.abs(wanted).max())
    assert told["explained"] == pytest.approx(fitted.explained_variance_ratio_.sum(), abs=1e-4)
    assert told["variables"] == names and told["tokens"] == [5, 4] and told["features"] == tokens.shape[1]


def test_tokens_lie_in_the_middle_of_their_patches_and_at_their_time(made):
    """Nine rows: patches are counted from the south, and the northernmost reaches beyond the grid."""
    data = held(made[0])[2]
    assert (LAT[0], LAT[1], LON[0], LON[1]) == (40, 40.5, -100, -99.375)
    np.testing.assert_allclose(data["lat"], [44.25, 43.25, 42.25, 41.25, 40.25])
    np.testing.assert_allclose(data["lon"], [-99.6875, -98.4375, -97.1875, -95.9375])
    assert (data["time"].values == np.array(hours(6, 12, 18))).all()


def test_tokens_know_nothing_of_what_comes_after(made, folder, tmp_path):
    """With another analysis at 18 UTC those at 6 and 12 are as they were."""
    early = write_analyses(tmp_path, hours(0, 6, 12), tag="a")
    late = write_analyses(tmp_path, hours(18), shift=5.0, tag="b")
    out = tmp_path / "tokens.nc"
    encode("prithvi_wxc_2300m", [*early, *late], out=out, weights=str(folder), every=6, like=made[0])
    (ours, names, _), (theirs, before, _) = held(out), held(made[0])
    assert names == before
    np.testing.assert_array_equal(ours[:2], theirs[:2])
    assert not np.allclose(ours[2], theirs[2])


def test_a_run_s_series_holds_the_tokens_before_its_time(made):
    values, names, _ = held(made[0])
    series = open_series(Before((str(made[0]),), days_before=0.5, step=6, join="cell"))
    assert series.channels == tuple(names) and not series.notes
    found, there = series.at([42.3], [-97.0], np.array(["2020-03-30T13:00"], "datetime64[s]"))
    assert there.all()
    np.testing.assert_allclose(found[0], values[:2, :, 2, 2], rtol=1e-6)


def test_tokens_made_otherwise_bear_other_names_and_are_not_taken_for_these(made, analyses, folder, tmp_path):
    other = published(tmp_path / "other", seed=1)
    asked = {"out": tmp_path / "tokens.nc", "every": 12, "components": KEPT}
    encode("prithvi_wxc_2300m", analyses, weights=str(folder), climatology="none", **asked)
    names = {*held(asked["out"])[1]}
    assert not names & {*made[1]["variables"]}
    for how in ({"weights": str(other)}, {"weights": str(folder), "climatology": "none"}):
        with pytest.raises(InputError, match=r"tokens.nc: made by prithvi_wxc_2300m, weights .* climatology; came"):
            encode("prithvi_wxc_2300m", analyses, like=made[0], overwrite=True, **how, **asked)
    assert {*held(asked["out"])[1]} == names


def test_random_weights_are_scaled_like_the_first_file(analyses, tmp_path):
    asked = {"weights": "random", "components": 3}
    encode(TINY, analyses, out=tmp_path / "all.nc", every=6, **asked)
    shifted = write_analyses(tmp_path, hours(0, 6, 12), shift=300.0)
    encode(TINY, shifted, out=tmp_path / "warm.nc", every=12, like=tmp_path / "all.nc", **asked)
    assert held(tmp_path / "all.nc")[1] == held(tmp_path / "warm.nc")[1]
    encode(TINY, analyses, out=tmp_path / "again.nc", every=12, like=tmp_path / "all.nc", **asked)
    np.testing.assert_array_equal(held(tmp_path / "again.nc")[0][0], held(tmp_path / "all.nc")[0][1])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"out": "tokens.tif"}, "wanted the name of a NetCDF file"),
        ({"every": 5.0}, "every 5: wanted 24, 12, 8, 6 or 3 hours"),
        ({"every": 24.0}, "times every 24 hours from 00 UTC on are wanted, each with another 6 hours before it"),
        ({"components": 0}, "components 0"),
        ({"components": 49}, "components 49: 60 tokens of 48 features have 48"),
        ({"like": "analyses"}, "wanted a file that `earthtune encode` wrote"),
        ({"region": [0.0, 1.0]}, "wanted west, south, east, north"),
    ],
)
def test_what_cannot_be_encoded_is_told_before_any_file(analyses, tmp_path, how, told):
    how = {"every": 6.0} | how | ({"like": analyses[0]} if "like" in how else {})
    with pytest.raises(InputError, match=told):
        encode(TINY, analyses, **{"weights": "random", **how, "out": tmp_path / how.get("out", "tokens.nc")})
    assert not [*tmp_path.iterdir()]


def test_components_of_another_width_are_refused_in_a_line(made, analyses, folder, tmp_path):
    bad = tmp_path / "bad.nc"
    bad.write_bytes(made[0].read_bytes())
    with h5py.File(bad, "r+") as file:
        for name, size in (("mean", 5), ("std", 5), ("axes", 5 * KEPT)):
            del file[f"token_{name}"]
            file[f"token_{name}"] = np.ones(size, np.float32)
    with pytest.raises(InputError, match="of 5 features, the encoder has 32"):
        encode("prithvi_wxc_2300m", analyses, out=tmp_path / "t.nc", weights=str(folder), every=6, like=bad)


def test_what_is_read_is_not_written_over(made, analyses, tmp_path):
    before = [path.read_bytes() for path in (analyses[0], made[0])]
    for out, like in ((analyses[0], None), (made[0], made[0])):
        with pytest.raises(InputError, match="is read, too"):
            encode(TINY, analyses, out=out, like=like, weights="random", overwrite=True)
    assert [path.read_bytes() for path in (analyses[0], made[0])] == before


@pytest.mark.parametrize(("size", "told"), [(3, "damaged"), (1 << 25, "holds more than tokens have")])
def test_a_damaged_file_is_not_taken(made, analyses, folder, tmp_path, size, told):
    bad = tmp_path / "bad.nc"
    bad.write_bytes(made[0].read_bytes())
    with h5py.File(bad, "r+") as file:
        del file["token_std"]
        file.create_dataset("token_std", (size,), np.float32)
    with pytest.raises(InputError, match=told):
        encode("prithvi_wxc_2300m", analyses, out=tmp_path / "t.nc", weights=str(folder), every=6, like=bad)
