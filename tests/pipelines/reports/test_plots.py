"""Pictures: colours where they belong, nothing where there is no data, and drawings that say what the numbers say."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from affine import Affine
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from odc.geo.geobox import GeoBox

from models.errors import InputError
from models.spec import ClassDef
from pipelines.reports import plots
from tests.figures import drawn

CLASSES = (ClassDef(10, "tree", "#006400"), ClassDef(30, "grass", "#ffff4c"), ClassDef(80, "water", "#0064c8"))
BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW")
DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def axes(width=4.0, height=4.0):
    figure = plots.figure(width, height)
    return figure, figure.add_subplot()


def test_true_colour_puts_each_band_in_its_channel():
    x = np.zeros((4, 10, 10))
    for channel, band in enumerate(("RED", "GREEN", "BLUE")):
        x[BANDS.index(band), :, channel] = 3000
    image = plots.true_colour(x, bands=BANDS, valid=np.ones((10, 10), bool))
    np.testing.assert_array_equal(image[:, :3, :3], np.broadcast_to(np.eye(3) * 255, (10, 3, 3)))
    assert (image[..., 3] == 255).all()


@pytest.mark.parametrize("bands", [("red", "green", "blue"), ("B04", "B03", "B02"), ("Red", "b03", "BLUE")])
def test_true_colour_knows_names_in_any_case(bands):
    x = np.arange(300.0).reshape(3, 10, 10)
    image = plots.true_colour(x, bands=bands, valid=np.ones((10, 10), bool)).astype(int)
    assert (image[..., 0] <= image[..., 1]).all() and (image[..., 1] <= image[..., 2]).all()
    assert image[..., 2].max() == 255


def test_true_colour_stretches_from_the_2nd_to_the_98th_percentile_of_valid_pixels():
    rng = np.random.default_rng(0)
    x = rng.normal(1000, 200, (1, 50, 50))
    valid = np.ones((50, 50), bool)
    valid[:5] = False
    x[:, :5] = 60000
    image = plots.true_colour(x, bands=("VV",), valid=valid)
    low, high = np.percentile(x[0][valid], (2, 98))
    expected = np.clip((x[0] - low) / (high - low), 0, 1) * 255
    for channel in range(3):
        np.testing.assert_allclose(image[..., channel][valid], expected[valid], atol=0.51)
    np.testing.assert_array_equal(image[..., 3], valid * 255)


def test_true_colour_of_nothing_and_of_one_value():
    none = plots.true_colour(np.full((4, 3, 3), np.nan), bands=BANDS, valid=np.ones((3, 3), bool))
    assert (none == 0).all()
    flat = plots.true_colour(np.full((4, 3, 3), 7.0), bands=BANDS, valid=np.ones((3, 3), bool))
    assert (flat[..., :3] == 0).all() and (flat[..., 3] == 255).all()


def test_true_colour_refuses_shapes_that_do_not_fit():
    with pytest.raises(InputError, match=r"\(3, 2, 2\).*wanted \(4, h, w\)"):
        plots.true_colour(np.zeros((3, 2, 2)), bands=BANDS, valid=np.ones((2, 2), bool))


@pytest.mark.skipif(not DATA.exists(), reason="the shared data folder is not beside this checkout")
def test_true_colour_of_a_lake_is_bluer_than_of_a_forest():
    """EuroSAT tiles hold 13 Sentinel-2 bands; the picture of a real tile uses the whole range of brightness."""
    import rasterio

    bands = tuple(f"B{n:02d}" for n in range(1, 14))
    with rasterio.open(next((DATA / "eurosat" / "River").glob("*.tif"))) as file:
        x = file.read()
    image = plots.true_colour(x, bands=bands[: len(x)], valid=np.ones(x.shape[1:], bool))
    assert image[..., :3].min() == 0 and image[..., :3].max() == 255
    assert 30 < image[..., :3].mean() < 225


@given(st.lists(st.lists(st.integers(-1, 2), min_size=4, max_size=4), min_size=1, max_size=6))
def test_class_image_shows_each_class_in_its_colour(rows):
    indices = np.array(rows, dtype=np.int16)
    image = plots.class_image(indices, CLASSES)
    for place, pixel in zip(indices.ravel(), image.reshape(-1, 4), strict=True):
        assert tuple(pixel) == ((0, 0, 0, 0) if place < 0 else (*CLASSES[place].rgb, 255))


def test_class_image_refuses_label_codes():
    with pytest.raises(InputError, match=r"10\.\.80, wanted -1\.\.2"):
        plots.class_image(np.array([[10, 80]]), CLASSES)


def test_value_image_is_matplotlibs_colours_and_holes_are_transparent():
    values = np.array([[0.0, 5.0, 10.0], [np.nan, -3.0, 99.0]])
    image = plots.value_image(values, low=0.0, high=10.0)
    ramp = matplotlib.colormaps["cividis"]
    for place, share in {(0, 0): 0.0, (0, 1): 0.5, (0, 2): 1.0, (1, 1): 0.0, (1, 2): 1.0}.items():
        assert tuple(image[place]) == ramp(share, bytes=True)
    assert tuple(image[1, 0]) == (0, 0, 0, 0)


def test_value_colours_get_brighter_all_the_way():
    """What a reader who sees no hues sees."""
    image = plots.value_image(np.linspace(0, 1, 64)[None], low=0, high=1)[0].astype(float)
    assert (np.diff(image[:, :3] @ [0.2126, 0.7152, 0.0722]) > 0).all()


def test_value_limits():
    values = np.arange(101.0)
    assert plots.value_limits([values[:50], values[50:], np.array([np.nan])]) == pytest.approx((2, 98))
    assert plots.value_limits([]) == (0.0, 1.0)
    assert plots.value_limits([np.array([np.nan])]) == (0.0, 1.0)
    low, high = plots.value_limits([np.full(5, 3.0)])
    assert low < 3 < high


@given(st.floats(1e-3, 1e7))
@example(0.3)  # a third of it is just short of 0.1
def test_scale_length_is_round_and_fits(width):
    length = plots.scale_length(width)
    digits = f"{length:.6e}".split("e")[0].rstrip("0").rstrip(".")
    assert digits in ("1", "2", "5")
    assert length <= width / 3 * (1 + 1e-9)
    assert length >= width / 3 / 2.5 * (1 - 1e-9)


@pytest.mark.parametrize(
    ("crs", "resolution", "expected"),
    [("EPSG:32633", 10, 10.0), ("EPSG:4326", 0.1, None), ("EPSG:3857", 10, None), ("EPSG:2263", 10, None)],
)
def test_metres_per_pixel_only_where_they_are_true(crs, resolution, expected):
    """UTM has metres; degrees, Web Mercator and New York's feet do not."""
    assert plots.metres_per_pixel(GeoBox((8, 8), Affine(resolution, 0, 0, 0, -resolution, 80), crs)) == expected


def test_draw_map_writes_the_length_of_its_bar():
    figure, ax = axes()
    grid = GeoBox((100, 100), Affine(30, 0, 500000, 0, -30, 3000), "EPSG:32633")
    plots.draw_map(ax, np.zeros((100, 100, 4), np.uint8), title="chip", geobox=grid)
    assert [text.get_text() for text in ax.texts] == ["1 km"]
    assert np.ptp(ax.get_lines()[0].get_xdata()) == pytest.approx(1 / 3)
    assert drawn(figure)[..., 3].any()
    figure, bare = axes()
    plots.draw_map(bare, np.zeros((10, 10, 3), np.uint8))
    assert not bare.texts


def test_legend_shows_the_asked_classes_in_their_colours():
    figure, ax = axes()
    plots.legend(ax, CLASSES, codes=[10, 80])
    shown = ax.get_legend()
    assert [text.get_text() for text in shown.get_texts()] == ["tree", "water"]
    colours = [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in shown.get_patches()]
    assert colours == ["#006400", "#0064c8"]
    drawn(figure)


def test_confusion_plot_writes_shares_of_the_true_class():
    figure, ax = axes()
    plots.confusion_plot(ax, np.array([[75, 25, 0], [1, 999, 0], [0, 0, 0]]), CLASSES)
    cells = {tuple(int(v) for v in text.get_position()): text.get_text() for text in ax.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (1, 1): "100"}  # (column, row); 0.1 % is left blank
    assert [label.get_text() for label in ax.get_yticklabels()] == ["tree", "grass", "water"]
    drawn(figure)


def luminance(colour):
    """WCAG 2.2."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize(("ink", "page"), [("#1f2328", "#ffffff"), ("#e8eaed", "#15181c")])
def test_shares_are_readable_and_empty_cells_close_to_the_page(ink, page):
    count = 40
    figure, ax = axes()
    classes = [ClassDef(i, str(i), "#000000") for i in range(count)]
    plots.confusion_plot(ax, np.array([[i, 0, *[1] * 38] for i in range(count)]), classes, ink=ink)
    cells = ax.get_images()[0].get_array()
    for text in ax.texts:
        column, row = (int(v) for v in text.get_position())
        low, high = sorted((luminance(cells[row, column, :3]), luminance(to_rgb(text.get_color()))))
        assert (high + 0.05) / (low + 0.05) > 4.3
    assert abs(luminance(cells[5, 1, :3]) - luminance(to_rgb(page))) < 0.1
    drawn(figure)


def test_a_legend_of_long_names_stays_on_the_chart():
    scores = {name: {"kappa": 0.5} for name in ("model", "majority", "forest on band statistics")}
    figure = plots.figure(4.6, 4.0)
    ax = figure.add_subplot()
    plots.scores_bars(ax, scores, keys={"kappa": "Balanced accuracy"})
    drawn(figure)
    box = ax.get_legend().get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0


@pytest.mark.parametrize("name", ["<script>", "a $5 b", "$x_{1", "_hidden", "日" * 40, "M" * 40])
@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
def test_names_are_text_not_formulas(name):
    hostile = (ClassDef(1, name, "#123456"), *CLASSES)
    figure, ax = axes()
    plots.confusion_plot(ax, np.eye(4, dtype=int), hostile)
    drawn(figure)
    assert len(ax.get_yticklabels()[0].get_text().replace("\\", "")) <= 24
    figure, ax = axes(8, 1)
    plots.legend(ax, hostile)
    assert len(ax.get_legend().get_texts()) == 4
    drawn(figure)


def test_curves_skip_what_is_missing():
    table = [
        {"epoch": 0, "train_loss": 1.0},
        {"epoch": 1, "train_loss": None, "val_loss": 0.8},
        {"epoch": 2, "train_loss": 0.5, "val_loss": float("nan")},
    ]
    figure, ax = axes()
    plots.curves(ax, table, keys=["train_loss", "val_loss", "val_accuracy"])
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines == {"train loss": [[1, 1.0], [3, 0.5]], "val loss": [[2, 0.8]]}
    drawn(figure)


def test_curves_of_nothing_draw():
    figure, ax = axes()
    plots.curves(ax, [], keys=["train_loss"])
    assert not ax.get_lines()
    drawn(figure)


def test_scores_bars_are_as_long_as_the_scores():
    scores = {"model": {"accuracy": 0.8, "kappa": 0.5}, "majority": {"accuracy": 0.3, "kappa": None}}
    figure, ax = axes()
    plots.scores_bars(ax, scores, keys={"accuracy": "Accuracy", "kappa": "Kappa"})
    assert [[bar.get_width() for bar in bars] for bars in ax.containers] == [[0.8, 0.5], [0.3]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Accuracy", "Kappa"]
    drawn(figure)


def test_agreement_counts_every_finite_pair():
    figure, ax = axes()
    truth = np.array([0.0, 0.0, 10.0, np.nan])
    plots.agreement(ax, truth, np.array([0.0, 0.0, 10.0, 5.0]))
    counts = ax.get_images()[0].get_array()
    assert counts.sum() == 3
    assert (counts[0, 0], counts[-1, -1]) == (2, 1)
    drawn(figure)


@pytest.mark.parametrize("values", [[], [np.nan], [4.0]])
def test_agreement_of_next_to_nothing_draws(values):
    figure, ax = axes()
    plots.agreement(ax, np.array(values), np.array(values))
    drawn(figure)


def test_colour_bar_spans_its_limits():
    figure, ax = axes(4, 1)
    plots.colour_bar(ax, low=-2.0, high=6.0, label="biomass (Mg/ha)", ink="#ffffff")
    assert ax.get_xlim() == (-2.0, 6.0)
    assert ax.xaxis.label.get_color() == "#ffffff"
    drawn(figure)


def test_false_colour_shows_the_bands_that_are_asked_for():
    x = np.zeros((4, 10, 10))
    x[BANDS.index("NIR_NARROW"), :, 0] = 3000
    image = plots.false_colour(x, bands=BANDS, shown=("NIR_NARROW", "RED", "GREEN"), valid=np.ones((10, 10), bool))
    assert image[:, 0].tolist() == [[255, 0, 0, 255]] * 10
    with pytest.raises(InputError, match="wanted three of"):
        plots.false_colour(x, bands=BANDS, shown=("SWIR_1", "RED", "GREEN"), valid=np.ones((10, 10), bool))


def test_area_bars_say_hectares_and_shares():
    figure, ax = axes()
    assert plots.area_bars(ax, {"grass": 3000.0, "tree": 1000.0}, CLASSES) is ax
    assert [bar.get_width() for bar in ax.containers[0]] == [1000.0, 3000.0, 0.0]
    assert {text.get_text() for text in ax.texts} == {"1,000 ha (25%)", "3,000 ha (75%)", "0 ha (0%)"}
    drawn(figure)


def test_class_bars_leave_out_what_is_not_known():
    figure, ax = axes()
    plots.class_bars(ax, {"tree": 0.75, "grass": float("nan")}, CLASSES)
    assert [text.get_text() for text in ax.texts] == ["0.75", "", ""]
    drawn(figure)


def test_reliability_plot_has_a_line_for_each_threshold():
    rows = [
        {"threshold": 0.1, "forecast": 0.2, "observed": 0.3, "share": 0.5},
        {"threshold": 0.1, "forecast": 0.8, "observed": 0.7, "share": 0.5},
        {"threshold": 5.0, "forecast": 0.1, "observed": 0.0, "share": 1.0},
    ]
    figure, ax = axes()
    plots.reliability_plot(ax, rows)
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()[1:]}
    assert lines == {"> 0.1 mm/h": [[0.2, 0.3], [0.8, 0.7]], "> 5 mm/h": [[0.1, 0.0]]}
    drawn(figure)
