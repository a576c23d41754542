// A GeoTIFF as the model wants it: bands by name, units, what holds no data, day and place.

import "./geotiff.js";
import { findFill } from "./fill.js";
import { dateOf, namesOf, placesOf } from "./names.js";
import { crsOf, degrees, point } from "./place.js";
import { Refused } from "./refused.js";

/** @typedef {import("./types").Scene} Scene */
/** @typedef {import("./types").Site} Site */
/** @typedef {import("./types").Told} Told */
/** @typedef {import("./types").Place} Place */
/** @typedef {import("./types").Values} Values */
/** @typedef {Awaited<ReturnType<Awaited<ReturnType<typeof GeoTIFF.fromBlob>>["getImage"]>>} Image */

const GEO = [33550, 33922, 34264, 34735, 34736, 34737]; // scale, tie points, transformation, keys and their parameters
const DATED = ["SENSING_TIME", "ACQUISITION_DATE", "DATETIME"];
const MASK = 4; // bit of the kind of an image in a file

/**
 * Open a dropped file.
 * @param {Blob} blob
 * @param {string} name
 * @param {Site} site
 * @param {Told} told
 * @returns {Promise<Scene>}
 */
export async function openScene(blob, name, site, told) {
  const none = () => {
    throw new Refused(`${name}: it is no GeoTIFF; give a file that ends in .tif and holds bands of reflectance.`);
  };
  const tiff = await GeoTIFF.fromBlob(blob).catch(none);
  const image = await tiff.getImage(0).catch(none);
  const [width, height, samples] = [image.getWidth(), image.getHeight(), image.getSamplesPerPixel()];
  if (width * height > site.most_pixels) {
    const most = `${site.most_pixels / 1e6} million`;
    throw new Refused(
      `${name}: it has ${width} x ${height} pixels, this page takes ${most}; cut out a part, or use run_edge.py.`,
    );
  }
  /** @type {(Record<string, string> | null)[]} */
  const about = [];
  for (let i = 0; i < samples; i++) about.push(await image.getGDALMetadata(i)); // two at once get nothing
  const names = namesOf(
    name,
    about.map((tags) => tags?.DESCRIPTION || ""),
    site,
    told.bands,
  );
  const places = placesOf(name, names, site);
  const twice = site.bands.find((band) => names.filter((other) => other === band.name).length > 1);
  if (twice) throw new Refused(`${name}: band ${twice.name} comes more than once; the model wants one date.`);
  const clouds = site.reading.mask_clouds ? names.findIndex((other) => other !== null && other in site.clouds) : -1;
  const wanted = clouds < 0 ? places : [...places, clouds];
  const every = await image.readRasters({ samples: wanted, interleave: false }).catch((error) => {
    throw new Refused(
      `${name}: its pixels cannot be read (${error instanceof Error ? error.message : error}); is it whole?`,
    );
  });
  const bands = every.slice(0, places.length);
  const units = site.bands.map((band, i) => unitsOf(about[places[i]] || {}, band.stored, site, told));
  const code = clouds < 0 ? null : { flags: every[places.length], ...site.clouds[String(names[clouds])] };
  const hidden = await hiddenBy(tiff, image, width * height);
  const { valid, pixels, notes } = validOf(bands, { image, site, told, code, hidden, width, units });
  if (site.reading.mask_clouds && !code)
    notes.push("no band is called FMASK, SCL or QA_PIXEL, so clouds are mapped, too");
  const tags = Object.fromEntries(
    Object.entries((await image.getGDALMetadata()) || {}).map(([key, text]) => [key.toUpperCase(), text]),
  );
  const date = dateOf(told.date ? [told.date] : [...DATED.map((key) => String(tags[key] || "")), name]);
  if (site.time && !date)
    throw new Refused(`${name}: nothing tells its day, which the model wants; write it under “How the file is read”.`);
  const place = await placeOf(image);
  const location = locator(name, place, site, told);
  if (site.pixel) notes.push(...sizeNotes(place, site.pixel, width, height));
  const read = reader(bands, units, valid, width);
  const kinds = bands.map((band) => band.constructor.name);
  return {
    name,
    width,
    height,
    place,
    date,
    notes,
    kinds,
    told: units.some((unit) => unit.told),
    pixels,
    read,
    location,
  };
}

/**
 * Scale and offset to reflectance: as told, else by the file, else as in training.
 * @param {Record<string, string>} tags
 * @param {boolean} stored
 * @param {Site} site
 * @param {Told} told
 */
function unitsOf(tags, stored, site, told) {
  if (stored) return { scale: 1e-4, offset: 0, told: true };
  if (told.scale || told.offset) return { scale: Number(told.scale || 1), offset: Number(told.offset), told: true };
  const [scale, offset] = [Number(tags.SCALE || 1), Number(tags.OFFSET || 0)];
  if (scale !== 1 || offset !== 0) return { scale, offset, told: true };
  const trained = site.reading.scale;
  return trained === null
    ? { scale: 1e-4, offset: 0, told: false }
    : { scale: trained, offset: site.reading.offset, told: true };
}

/**
 * Masks and bands of transparency of a file, each 0 where it hides pixels.
 * @param {Awaited<ReturnType<typeof GeoTIFF.fromBlob>>} tiff
 * @param {Image} image
 * @param {number} count
 */
async function hiddenBy(tiff, image, count) {
  const found = [];
  for (let i = 1; i < (await tiff.getImageCount()); i++) {
    const other = await tiff.getImage(i);
    const kind = other.fileDirectory.hasTag(254) ? await other.fileDirectory.loadValue(254) : 0;
    if (kind & MASK && !(kind & 1) && other.getWidth() * other.getHeight() === count) {
      found.push(...(await other.readRasters({ samples: [0], interleave: false })));
    }
  }
  const extra = image.fileDirectory.hasTag(338) ? [(await image.fileDirectory.loadValue(338)) || []].flat() : [];
  const kinds = /** @type {number[]} */ (extra.flatMap((part) => Array.from(typeof part === "number" ? [part] : part)));
  const clear = kinds.flatMap((kind, i) =>
    kind === 1 || kind === 2 ? [image.getSamplesPerPixel() - kinds.length + i] : [],
  );
  return clear.length ? [...found, ...(await image.readRasters({ samples: clear, interleave: false }))] : found;
}

/**
 * Which pixels hold data in all bands, and what a person should know of the others.
 * @param {Values[]} bands
 * @param {{ image: Image, site: Site, told: Told, hidden: Values[], width: number,
 *   units: { scale: number, offset: number }[],
 *   code: { flags: Values, bits: number, classes: number[] } | null }} how
 */
function validOf(bands, { image, site, told, code, hidden, width, units }) {
  const count = bands[0].length;
  const declared = image.getGDALNoData();
  const void_ = [declared, told.nodata ? Number(told.nodata) : null, declared === null ? site.reading.nodata : null];
  const nodata = void_.filter((value) => value !== null);
  const none = new Uint8Array(count);
  bands.forEach((band, n) => {
    const same = nodata.map((value) => (band instanceof Float32Array ? Math.fround(value) : value));
    const { scale, offset } = units[n];
    for (let i = 0; i < count; i++) {
      if (same.includes(band[i]) || !Number.isFinite(Math.fround(band[i] * scale * 1e4 + offset * 1e4))) none[i] = 1;
    }
  });
  for (const mask of hidden) for (let i = 0; i < count; i++) if (!mask[i]) none[i] = 1;
  const fill = site.reading.find_fill ? findFill(bands, none, nodata, width) : null;
  const valid = new Uint8Array(count);
  let [filled, pixels] = [0, 0];
  for (let i = 0; i < count; i++) {
    const cloud = code !== null && ((code.flags[i] & code.bits) !== 0 || code.classes.includes(code.flags[i]));
    valid[i] = Number(!none[i] && !cloud && !fill?.[i]);
    filled += fill?.[i] || 0;
    pixels += valid[i];
  }
  const share = ((100 * filled) / count).toFixed(1);
  const notes = filled
    ? [`${share} % of the pixels hold one value in all bands, from the edge inwards: taken as fill, left out`]
    : [];
  return { valid, pixels, notes };
}

/**
 * A function that reads a window.
 * @param {Values[]} bands
 * @param {{ scale: number, offset: number }[]} units
 * @param {Uint8Array} valid
 * @param {number} width
 * @returns {Scene["read"]}
 */
function reader(bands, units, valid, width) {
  const factors = units.map(({ scale, offset }) => [Math.fround(scale * 1e4), Math.fround(offset * 1e4)]);
  return (top, left, rows, columns) => {
    const [x, here] = [new Float32Array(bands.length * rows * columns), new Uint8Array(rows * columns)];
    let count = 0;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [from, to] = [(top + row) * width + left + column, row * columns + column];
        if (!valid[from]) continue;
        here[to] = 1;
        count++;
        for (let band = 0; band < bands.length; band++) {
          const [factor, shift] = factors[band];
          x[band * here.length + to] = Math.fround(Math.fround(bands[band][from]) * factor) + shift;
        }
      }
    }
    return { x, valid: here, count };
  };
}

/**
 * Where the pixels lie, and the tags that say so.
 * @param {Image} image
 * @returns {Promise<Place>}
 */
async function placeOf(image) {
  /** @type {Record<number, any>} */
  const found = {};
  for (const tag of GEO) if (image.fileDirectory.hasTag(tag)) found[tag] = await image.fileDirectory.loadValue(tag);
  const keys = image.getGeoKeys();
  const [scale, tie, matrix] = GEO.map((tag) => found[tag] && Array.from(found[tag]));
  let affine = null;
  if (matrix) affine = [matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]];
  else if (scale && tie) affine = [scale[0], 0, tie[3] - tie[0] * scale[0], 0, -scale[1], tie[4] + tie[1] * scale[1]];
  if (affine && keys?.GTRasterTypeGeoKey === 2) {
    const [x, y] = point(affine, -0.5, -0.5); // it is of the middle of the first pixel
    affine = [affine[0], affine[1], x, affine[3], affine[4], y];
  }
  const tags = Object.entries(found).map(([tag, value]) => [
    Number(tag),
    typeof value === "string" ? value : Array.from(value),
  ]);
  return { affine, crs: affine && crsOf(keys), tags: /** @type {Place["tags"]} */ (tags) };
}

/**
 * A function that tells latitude and longitude of a window's centre.
 * @param {string} name
 * @param {Place} place
 * @param {Site} site
 * @param {Told} told
 * @returns {Scene["location"]}
 */
function locator(name, { affine, crs }, site, told) {
  if (told.latitude && told.longitude) return () => [Number(told.latitude), Number(told.longitude)];
  const known = affine && crs && degrees(crs, .../** @type {[number, number]} */ (point(affine, 0, 0)));
  if (site.location && !known) {
    throw new Refused(
      `${name}: the model wants its place on the Earth, and this page cannot work it out of the file's coordinate ` +
        "system; write latitude and longitude of its middle under “How the file is read”.",
    );
  }
  return (top, left, height, width) => {
    const at =
      affine &&
      crs &&
      degrees(crs, .../** @type {[number, number]} */ (point(affine, left + width / 2, top + height / 2)));
    return at || [0, 0];
  };
}

/**
 * A note where pixels are of quite another size than the training's.
 * @param {Place} place
 * @param {number} trained
 * @param {number} width
 * @param {number} height
 */
function sizeNotes({ affine, crs }, trained, width, height) {
  if (!affine || !crs || crs.kind === "other")
    return [`pixel sizes were not compared: not known here, ${trained} m in training`];
  const at = degrees(crs, .../** @type {[number, number]} */ (point(affine, width / 2, height / 2)));
  const cosine = at ? Math.cos((at[0] * Math.PI) / 180) : 1;
  const area = Math.abs(affine[0] * affine[4] - affine[1] * affine[3]);
  const stretch = crs.kind === "degrees" ? 111320 * Math.sqrt(cosine) : crs.kind === "mercator" ? cosine : 1;
  const side = Math.sqrt(area) * stretch;
  if (side / trained < 1.4 && trained / side < 1.4) return [];
  return [
    `its pixels are ${side.toPrecision(3)} m, those of the training ${trained} m: the model knows no such textures`,
  ];
}
