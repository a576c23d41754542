"""Make the sample scenes: synthetic HLS pictures, their Fmask and their land use, the same on every run.

Usage: ``python sample_data/make.py [OUT]``. OUT is this folder if left out. No real place is shown.

A landscape is painted twice as fine as the 30 m pixel, as shares of materials (soil, roof, conifer, ...), so that
pixels are mixed where things are small, as in Landsat and Sentinel-2. Light, blur, haze, cloud and noise come after.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, shift
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

BANDS = ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2")
NODATA = -9999
PIXEL = 30.0  # metres
FINE = 2  # painted pixels along one side of a scene pixel
NOISE_STEP = 10  # counts; coarser than HLS's own 1 so that the files stay small

# WorldCover 2021 codes, names and colours (Zanaga et al. 2022, doi:10.5281/zenodo.7254221).
TREE, GRASS, CROP, BUILT, WATER = 10, 30, 40, 50, 80
COLOURS = {
    0: (0, 0, 0, 0),
    TREE: (0, 100, 0, 255),
    GRASS: (255, 255, 76, 255),
    CROP: (240, 150, 255, 255),
    BUILT: (250, 0, 0, 255),
    WATER: (0, 100, 200, 255),
}

# HLS v2.0 Fmask bits (Claverie et al. 2018, doi:10.1016/j.rse.2018.09.002, and the HLS user guide).
CLOUD, ADJACENT, SHADOW, WATER_BIT, AEROSOL_LOW, AEROSOL_HIGH = 2, 4, 8, 32, 64, 192
FMASK_NODATA = 255

# Surface reflectance in the order of BANDS. Set by hand: round figures of the size that the USGS Spectral Library v7
# (Kokaly et al. 2017, doi:10.3133/ds1035) and the ECOSTRESS library (Meerdink et al. 2019,
# doi:10.1016/j.rse.2019.05.015) show for such surfaces, lowered for the shade inside canopies and streets at 30 m.
# They are typical; they were not read from those libraries.
MATERIALS = {
    "conifer": (0.020, 0.035, 0.025, 0.220, 0.105, 0.045),
    "broadleaf": (0.027, 0.058, 0.033, 0.370, 0.180, 0.080),
    "grass": (0.035, 0.070, 0.045, 0.360, 0.210, 0.105),
    "dry_grass": (0.060, 0.095, 0.115, 0.270, 0.310, 0.205),
    "crop": (0.030, 0.065, 0.038, 0.400, 0.195, 0.090),
    "stubble": (0.075, 0.110, 0.140, 0.270, 0.330, 0.240),
    "soil_dry": (0.085, 0.120, 0.155, 0.230, 0.310, 0.260),
    "soil_wet": (0.050, 0.070, 0.090, 0.140, 0.200, 0.165),
    "asphalt": (0.080, 0.090, 0.100, 0.125, 0.150, 0.140),
    "roof": (0.080, 0.105, 0.160, 0.230, 0.280, 0.245),
    "concrete": (0.160, 0.185, 0.205, 0.250, 0.270, 0.240),
    "water": (0.030, 0.028, 0.018, 0.012, 0.007, 0.005),
    "turbid_water": (0.055, 0.075, 0.060, 0.025, 0.010, 0.007),
}
CLOUD_TOP = (0.62, 0.62, 0.63, 0.66, 0.48, 0.36)
HAZE = (1.0, 0.55, 0.35, 0.12, 0.03, 0.0)  # scattering falls with wavelength
NOISE = (0.0015, 0.0016, 0.0018, 0.0035, 0.0030, 0.0028)  # standard deviation, reflectance


@dataclass(frozen=True)
class Recipe:
    """What makes one scene differ from the next; picture and Fmask go to folder, land use to label_folder."""

    name: str
    folder: str
    label_folder: str
    seed: int
    shape: tuple[int, int]  # rows and columns that are made, 30 m pixels; round numbers for the Fourier transforms
    kept: tuple[int, int]  # rows and columns that are written
    epsg: int
    origin: tuple[float, float]  # easting and northing of the upper left corner, metres
    date: str
    sun: tuple[float, float]  # azimuth and zenith, degrees
    gain: float  # left over from calibration
    haze: float  # reflectance added to the blue band
    growth: float  # mean ground cover of the crops, 0 to 1; it moves with the date
    swath: tuple[float, float]  # column of the swath edge in the first row, columns it moves per row
    labelled_rows: int


SCENES = (
    Recipe("scene_a", "landuse", "landuse", 11, (384, 384), (384, 384), 32633, (399960.0, 5600040.0),
           "2023-05-18", (151.0, 34.0), 1.00, 0.004, 0.50, (34.0, -0.22), 384),
    Recipe("scene_b", "landuse", "landuse", 23, (384, 384), (384, 384), 32634, (501240.0, 5498760.0),
           "2023-07-07", (146.0, 31.0), 0.95, 0.008, 0.60, (-58.0, 0.22), 371),
    Recipe("new_scene", "new_scene", "truth", 37, (320, 288), (315, 286), 32633, (452340.0, 5551920.0),
           "2023-06-11", (148.0, 30.0), 1.04, 0.006, 0.55, (22.0, -0.21), 320),
)  # fmt: skip


@dataclass
class Ground:
    """The painted landscape.

    Attributes:
        codes: WorldCover code of each fine pixel, (h, w).
        shares: Share of each of MATERIALS, (M, h, w), summing to one.
    """

    codes: NDArray[np.uint8]
    shares: Floats

    def paint(self, where: Mask, code: int, **shares: Floats | float) -> None:
        """Give the masked pixels a code and material shares, rescaled to sum to one; parts are zero if not named."""
        self.codes[where] = code
        total = sum(np.broadcast_to(share, where.shape)[where] for share in shares.values())
        for plane, material in zip(self.shares, MATERIALS, strict=True):
            plane[where] = np.broadcast_to(shares.get(material, 0), where.shape)[where] / total


def fractal(rng: Generator, shape: tuple[int, int], longest: float, slope: float) -> Floats:
    """Random surface, zero mean and unit variance: amplitude falls as frequency**-slope below wavelength longest."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    amplitude = np.maximum(frequency, 1 / longest) ** -slope
    surface = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * amplitude, s=shape)
    return (surface - surface.mean()) / surface.std()


def scatter(rng: Generator, shape: tuple[int, int], spacing: float) -> Floats:
    """Points about one spacing apart that cover the grid and its surroundings, (n, 2) row and column."""
    rows, cols = (np.arange(-spacing, size + spacing, spacing) for size in shape)
    points = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    return points + rng.uniform(-0.45, 0.45, points.shape) * spacing


def patchwork(rng: Generator, shape: tuple[int, int], block: float, width: tuple[float, float]) -> tuple[Ints, Ints]:
    """Number the blocks and the parcels of a patchwork of land.

    A block is a Voronoi cell with slightly bent sides, cut into strips along its own direction, and these into pieces.

    Returns:
        Block numbers and parcel numbers, each (h, w) and each from zero.
    """
    bend = np.stack([fractal(rng, shape, 2 * block, 2.5) for _ in range(2)], axis=-1) * block * 0.1
    where = np.moveaxis(np.indices(shape), 0, -1) + bend  # (h, w, 2)
    centres = scatter(rng, shape, block)
    blocks = cKDTree(centres).query(where)[1]
    angle = rng.uniform(0, np.pi, len(centres))[blocks]
    wide = rng.uniform(*width, len(centres))[blocks]
    row, col = np.moveaxis(where - centres[blocks], -1, 0)
    across = (row * np.cos(angle) + col * np.sin(angle)) / wide
    along = (col * np.cos(angle) - row * np.sin(angle)) / wide / rng.uniform(1.3, 3.2, len(centres))[blocks]
    strip = np.floor(across + 0.3 * np.sin(2 * across)).astype(np.int64)
    piece = np.floor(along + 0.37 * strip).astype(np.int64)
    numbers = np.unique((blocks * 1000 + strip) * 1000 + piece, return_inverse=True)[1]
    return blocks, numbers.reshape(shape)


def border(numbers: Ints) -> Mask:
    """True on the pixels whose right or lower neighbour has another number."""
    edge = np.zeros(numbers.shape, bool)
    edge[:, :-1] |= numbers[:, :-1] != numbers[:, 1:]
    edge[:-1] |= numbers[:-1] != numbers[1:]
    return edge


def winding(rng: Generator, start: Floats, end: Floats, swing: float) -> Floats:
    """Points of a curved way from start to end that swings about swing pixels to each side, (n, 2)."""
    along = np.linspace(0, 1, 4 * int(np.hypot(*(end - start))) + 2)[:, None]
    waves = np.arange(1, 9)
    phase = rng.uniform(0, 2 * np.pi, waves.size)
    strength = rng.uniform(0.5, 1, waves.size) / waves
    side = (np.sin(2 * np.pi * along * waves + phase) * strength).sum(axis=1, keepdims=True)
    normal = np.array([-(end - start)[1], (end - start)[0]]) / np.hypot(*(end - start))
    return start + along * (end - start) + normal * side * swing * np.sin(np.pi * along) ** 0.5


def distance_to(points: Floats, shape: tuple[int, int]) -> Floats:
    """Distance of each pixel to the nearest point inside the grid, pixels; at least one point must lie inside."""
    cells = np.round(points).astype(np.int64)
    cells = cells[((cells >= 0) & (cells < shape)).all(axis=1)]
    away = np.ones(shape, bool)
    away[tuple(cells.T)] = False
    return distance_transform_edt(away)


def downsun(image: Floats, azimuth: float, length: float) -> Floats:
    """The image moved length pixels away from the sun, zero where nothing moves in; azimuth in degrees from north."""
    turn = np.deg2rad(azimuth)
    return np.asarray(shift(image, (length * np.cos(turn), -length * np.sin(turn)), order=1))


def add_farmland(rng: Generator, ground: Ground, growth: float) -> None:
    """Cover the scene with crops at every stage of growth, pastures of the same colours, margins and hedges."""
    shape = ground.codes.shape
    blocks, numbers = patchwork(rng, shape, 116.0, (18.0, 42.0))
    count = numbers.max() + 1
    grazing = rng.beta(0.35, 0.55, blocks.max() + 1)[blocks] * 0.9
    pasture = rng.random(count)[numbers] < grazing
    moist = np.clip(0.5 + 0.35 * fractal(rng, shape, 150, 1.5), 0, 1)
    regional = rng.normal(growth, 0.33, blocks.max() + 1)[blocks]  # neighbours tend to grow the same
    cover = np.clip(regional + rng.normal(0, 0.27, count)[numbers] + 0.04 * fractal(rng, shape, 40, 1.8), 0, 1)
    ripe = (rng.random(count) < 0.25)[numbers] * rng.uniform(0.3, 1, count)[numbers]
    bare = 1 - cover
    cereal = rng.beta(2.2, 0.9, count)[numbers]  # a cereal is a grass, also to a satellite
    straw = cover * ripe * 0.5
    plants = {"crop": cover * (1 - ripe) * (1 - cereal), "grass": cover * (1 - ripe) * cereal}
    soils = {"soil_wet": bare * moist, "soil_dry": bare * (1 - moist)}
    ground.paint(~pasture, CROP, stubble=straw, dry_grass=straw, **plants, **soils)
    worn = rng.beta(0.9, 1.2, count)[numbers] * 0.9
    add_grass(rng, ground, pasture, green=rng.uniform(0.25, 1.0, count)[numbers], moist=moist, worn=worn)
    hedged = (rng.random(blocks.max() + 1) < 0.4)[blocks]
    ground.paint(border(numbers) & hedged & ~pasture, CROP, grass=0.55, dry_grass=0.25, soil_dry=0.2)
    hedge = binary_dilation(border(blocks) & hedged, iterations=1) & (fractal(rng, shape, 12, 0.8) > -0.6)
    ground.paint(hedge, TREE, broadleaf=0.85, grass=0.15)


def add_grass(
    rng: Generator,
    ground: Ground,
    where: Mask,
    *,
    green: Floats | float,
    moist: Floats | float,
    worn: Floats | float = 0.1,
) -> None:
    """Paint grass of a greenness and a share of bare soil; unlike a sown field it is mottled and has bushes."""
    shape = where.shape
    green = np.clip(green + 0.38 * fractal(rng, shape, 9, 1.6), 0.02, 1)
    spots = fractal(rng, shape, 9, 1.5)
    bush = np.clip(0.5 * (spots - 1.1), 0, 0.8)
    soil = np.clip(worn - 0.25 * spots, 0, 0.9)
    blades = {"grass": green * (1 - soil), "dry_grass": (1 - green) * (1 - soil)}
    ground.paint(where, GRASS, **blades, broadleaf=bush, soil_wet=soil * moist, soil_dry=soil * (1 - moist))


def add_forest(rng: Generator, ground: Ground, height: Floats) -> Mask:
    """Plant woods, more of them uphill, with ragged edges and clearings; returns where the canopy is."""
    shape = ground.codes.shape
    wood = 0.8 * fractal(rng, shape, 140, 1.7) + 0.45 * height > 0.72
    clearing = fractal(rng, shape, 24, 1.3) > 1.75
    add_grass(rng, ground, binary_dilation(wood, iterations=4) & ~wood, green=0.5, moist=0.5)
    add_grass(rng, ground, wood & clearing, green=0.55, moist=0.5)
    needles = np.clip(0.5 + 0.9 * fractal(rng, shape, 70, 1.6) + 0.25 * height, 0, 1)
    ground.paint(wood & ~clearing, TREE, conifer=needles, broadleaf=1 - needles)
    return wood & ~clearing


def add_meadows(rng: Generator, ground: Ground, river: Floats) -> None:
    """Let wild grass take the river banks and some open ground, without parcels."""
    shape = ground.codes.shape
    wild = fractal(rng, shape, 110, 1.7) + 1.6 * np.exp(-river / 9) > 1.1
    green = np.clip(0.6 + 0.25 * fractal(rng, shape, 60, 1.5), 0, 1)
    add_grass(rng, ground, wild, green=green, moist=0.6)
    bank = (river < 7) & (fractal(rng, shape, 18, 1.0) > 0.5)
    ground.paint(bank, TREE, broadleaf=0.9, grass=0.1)


def add_water(rng: Generator, ground: Ground, river: Floats) -> None:
    """Let the river run, two to seven fine pixels wide, and fill a few lakes and ponds."""
    shape = ground.codes.shape
    ground.paint(river < 1.6 + 0.8 * fractal(rng, shape, 120, 2.0).clip(-0.8, 2), WATER, turbid_water=0.7, water=0.3)
    mud = np.clip(0.3 + 0.2 * fractal(rng, shape, 80, 1.5), 0, 1)
    lake = (fractal(rng, shape, 90, 1.9) > 2.15) | (fractal(rng, shape, 30, 1.8) > 3.1)
    ground.paint(lake, WATER, water=1 - mud, turbid_water=mud)


def add_towns(rng: Generator, ground: Ground, centres: Floats, sizes: Floats) -> None:
    """Build a town of about the given radius round each centre: lots of roofs, gardens and yards, streets, parks."""
    shape = ground.codes.shape
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    towns = zip(centres, sizes, strict=True)
    near = np.min([np.hypot(rows - row, cols - col) / size for (row, col), size in towns], axis=0)
    town = (near + 0.22 * fractal(rng, shape, 40, 1.3) < 1) & (ground.codes != WATER)
    quarters, lots = patchwork(rng, shape, 18.0, (2.6, 5.5))
    count = lots.max() + 1
    mix = rng.dirichlet((0.3, 0.16, 0.09, 0.4, 0.16, 0.3), count)[lots]  # (h, w, 6)
    names = ("roof", "asphalt", "concrete", "grass", "broadleaf", "soil_dry")
    ground.paint(town, BUILT, **dict(zip(names, np.moveaxis(mix, -1, 0), strict=True)))
    street = town & border(quarters)
    ground.paint(street, BUILT, asphalt=0.75, broadleaf=0.25)
    park = town & (fractal(rng, shape, 26, 1.6) > 1.9)
    add_grass(rng, ground, park, green=0.85, moist=0.5)


def add_roads(rng: Generator, ground: Ground, centres: Floats) -> None:
    """Join each town to the nearest earlier one, and the first to two edges, by roads and bridges 30 to 45 m wide."""
    shape = ground.codes.shape
    edges = [np.array([0.0, rng.uniform(0, shape[1] - 1)]), np.array([shape[0] - 1.0, rng.uniform(0, shape[1] - 1)])]
    for end in edges:
        road = distance_to(winding(rng, centres[0], end, 9.0), shape) < 1.7
        ground.paint(road, BUILT, asphalt=0.8, concrete=0.2)
    for n in range(1, len(centres)):
        nearest = centres[np.argmin(np.hypot(*(centres[:n] - centres[n]).T))]
        road = distance_to(winding(rng, centres[n], nearest, 7.0), shape) < 1.3
        ground.paint(road, BUILT, asphalt=0.9, dry_grass=0.1)


def landscape(rng: Generator, recipe: Recipe) -> tuple[Ground, Floats, Mask]:
    """Paint one landscape; returns it with its height, in standard deviations, and its tree canopy."""
    shape = (recipe.shape[0] * FINE, recipe.shape[1] * FINE)
    ground = Ground(np.zeros(shape, np.uint8), np.zeros((len(MATERIALS), *shape)))
    ends = np.array([[-20.0, rng.uniform(0.2, 0.8) * shape[1]], [shape[0] + 20.0, rng.uniform(0.2, 0.8) * shape[1]]])
    river = distance_to(winding(rng, ends[0], ends[1], 55.0), shape)
    height = fractal(rng, shape, 400, 2.0) - 1.2 * np.exp(-river / 60)
    towns = rng.permutation(scatter(rng, shape, 125.0))
    towns = towns[((towns > 15) & (towns < np.array(shape) - 15)).all(axis=1)]
    sizes = np.concatenate([[62.0, 40.0, 30.0], rng.uniform(5, 21, len(towns))])[: len(towns)]
    add_farmland(rng, ground, recipe.growth)
    add_meadows(rng, ground, river)
    canopy = add_forest(rng, ground, height)
    add_water(rng, ground, river)
    add_towns(rng, ground, towns, sizes)
    add_roads(rng, ground, towns)
    return ground, height, canopy & (ground.codes == TREE)


def illumination(rng: Generator, recipe: Recipe, height: Floats, canopy: Mask) -> Floats:
    """Light on each fine pixel against flat open ground: slopes, shadow of forest edges, roughness of surfaces."""
    azimuth, zenith = np.deg2rad(recipe.sun)
    north, east = np.gradient(height * 45.0, PIXEL / FINE)
    north = -north  # rows run south
    facing = 1 - np.tan(zenith) * (east * np.sin(azimuth) + north * np.cos(azimuth))
    lit = np.clip(facing / np.sqrt(1 + east**2 + north**2), 0.3, 1.6) ** 0.8
    shaded = downsun(canopy.astype(float), recipe.sun[0], 2.0) * ~canopy
    rough = np.exp(np.where(canopy, 0.25, 0.03) * rng.standard_normal(height.shape))
    return lit * (1 - 0.5 * shaded) * rough


def pixels(image: Floats) -> Floats:
    """Mean over each scene pixel of a fine image, (..., h, w) to (..., h / FINE, w / FINE)."""
    *bands, rows, cols = image.shape
    return image.reshape(*bands, rows // FINE, FINE, cols // FINE, FINE).mean(axis=(-3, -1))


def land_use(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The commonest code inside each scene pixel; on a tie the narrow things win: water, then built, then tree."""
    order = np.array([WATER, BUILT, TREE, CROP, GRASS], np.uint8)
    return order[np.argmax([pixels((codes == code).astype(float)) for code in order], axis=0)]


def clouds(rng: Generator, recipe: Recipe) -> tuple[Floats, Floats]:
    """Opacity of the clouds and of their shadows on the ground, each 0 to 1 and (H, W)."""
    opacity = np.clip((fractal(rng, recipe.shape, 110, 1.7) - 1.6) * 1.4, 0, 1)
    return opacity, downsun(opacity, recipe.sun[0], 16.0)


def picture(rng: Generator, recipe: Recipe, surface: Floats, opacity: Floats, shadow: Floats) -> NDArray[np.int16]:
    """What the sensor delivers for a surface reflectance (6, H, W): gain, haze, cloud, noise; counts of 0.0001."""
    veil = np.multiply.outer(HAZE, recipe.haze * (1 + 0.4 * fractal(rng, recipe.shape, 200, 2.0)))
    clear = surface * recipe.gain * (1 - 0.6 * shadow) + veil
    covered = clear * (1 - opacity) + np.multiply.outer(CLOUD_TOP, opacity)
    noisy = covered + rng.standard_normal(covered.shape) * np.reshape(NOISE, (-1, 1, 1))
    return (np.round(noisy * 10000 / NOISE_STEP) * NOISE_STEP).astype(np.int16)


def fmask(labels: NDArray[np.uint8], opacity: Floats, shadow: Floats) -> NDArray[np.uint8]:
    """HLS quality bits; thin cloud and faint shadow are missed, as Fmask misses them."""
    cloud = opacity > 0.3
    adjacent = binary_dilation(cloud, iterations=4) & ~cloud
    bits = np.where(binary_dilation(cloud, iterations=12), AEROSOL_HIGH, AEROSOL_LOW)
    bits |= CLOUD * cloud | ADJACENT * adjacent | SHADOW * ((shadow > 0.3) & ~cloud)
    bits |= WATER_BIT * ((labels == WATER) & ~cloud)
    return bits.astype(np.uint8)


def outside(recipe: Recipe) -> Mask:
    """True left of the slanted swath edge, where nothing was seen."""
    rows, cols = np.indices(recipe.shape)
    return cols < recipe.swath[0] + recipe.swath[1] * rows


def write(path: Path, recipe: Recipe, data: NDArray[np.generic], nodata: int, names: tuple[str, ...]) -> None:
    """Write the kept part of bands (B, H, W) as a tiled GeoTIFF with its band names, grid, nodata and date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = data[:, : recipe.kept[0], : recipe.kept[1]]
    profile = {"driver": "GTiff", "count": len(data), "dtype": data.dtype, "nodata": nodata}
    profile |= {"height": data.shape[1], "width": data.shape[2], "crs": f"EPSG:{recipe.epsg}"}
    profile |= {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate", "predictor": 2, "zlevel": 9}
    with rasterio.open(path, "w", transform=from_origin(*recipe.origin, PIXEL, PIXEL), **profile) as out:
        out.descriptions = names
        out.update_tags(ACQUISITION_DATE=recipe.date, ORIGIN="synthetic: sample_data/make.py, no real place")
        if names == BANDS:
            out.scales = (0.0001,) * len(data)
            out.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, *[ColorInterp.undefined] * 3)
            out.update_tags(MEAN_SUN_AZIMUTH_ANGLE=recipe.sun[0], MEAN_SUN_ZENITH_ANGLE=recipe.sun[1])
        if names == ("LAND_USE",):
            out.write_colormap(1, COLOURS)
        out.write(data)


def make_scene(recipe: Recipe, out: Path) -> None:
    """Write the picture, the Fmask and the land use of one scene under out."""
    rng = np.random.default_rng(recipe.seed)
    ground, height, canopy = landscape(rng, recipe)
    light = illumination(rng, recipe, height, canopy)
    fine = np.tensordot(np.array(list(MATERIALS.values())), ground.shares, axes=(0, 0)) * light  # (6, h, w)
    surface = pixels(gaussian_filter(fine, (0, 0.8, 0.8)))  # the sensor's point spread reaches into the neighbours
    labels = land_use(ground.codes)
    opacity, shadow = clouds(rng, recipe)
    image = picture(rng, recipe, surface, opacity, shadow)
    quality = fmask(labels, opacity, shadow)
    unseen = outside(recipe)
    image[:, unseen] = NODATA
    quality[unseen] = FMASK_NODATA
    labels[recipe.labelled_rows :] = 0
    write(out / recipe.folder / f"{recipe.name}_hls.tif", recipe, image, NODATA, BANDS)
    write(out / recipe.folder / f"{recipe.name}_fmask.tif", recipe, quality[None], FMASK_NODATA, ("FMASK",))
    write(out / recipe.label_folder / f"{recipe.name}_landuse.tif", recipe, labels[None], 0, ("LAND_USE",))


def main(out: Path) -> None:
    """Write every scene under out."""
    for recipe in SCENES:
        make_scene(recipe, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
