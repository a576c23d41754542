// A map as a GeoTIFF: strips of deflated rows, with the source's coordinate system, nodata and colours.

/** @typedef {import("./types").Place} Place */
/** @typedef {import("./types").ClassDef} ClassDef */

const ROWS = 64; // of a strip
const [ASCII, SHORT, LONG, DOUBLE] = [2, 3, 4, 12];

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Colours of all values of a type: 0 to 65535, the reds first; classes' own, black otherwise.
 * @param {ClassDef[]} classes
 * @param {number} bits
 */
function palette(classes, bits) {
  const size = 2 ** bits;
  const colours = new Array(3 * size).fill(0);
  for (const { code, colour } of classes) {
    [1, 3, 5].forEach((at, n) => (colours[n * size + code] = 257 * parseInt(colour.slice(at, at + 2), 16)));
  }
  return colours;
}

/**
 * Write a map.
 * @param {Uint8Array | Uint16Array | Float32Array} values
 * @param {{ width: number, height: number, place: Place, nodata: number, classes: ClassDef[],
 *   about: Record<string, string>, band: string, unit: string }} how
 */
export async function writeTiff(values, { width, height, place, nodata, classes, about, band, unit }) {
  const size = values.BYTES_PER_ELEMENT;
  const strips = [];
  for (let row = 0; row < height; row += ROWS) {
    const rows = values.slice(row * width, Math.min(row + ROWS, height) * width);
    strips.push(await deflated(new Uint8Array(rows.buffer)));
  }
  /** @type {[number, number, number[] | string][]} */
  const tags = [
    [256, LONG, [width]],
    [257, LONG, [height]],
    [258, SHORT, [8 * size]],
    [259, SHORT, [8]], // deflate
    [262, SHORT, [classes.length ? 3 : 1]], // by palette
    [273, LONG, strips.map(() => 0)], // offsets, told below
    [277, SHORT, [1]],
    [278, LONG, [ROWS]],
    [279, LONG, strips.map((strip) => strip.length)],
    [339, SHORT, [values instanceof Float32Array ? 3 : 1]],
    [42112, ASCII, metadata(about, band, unit)],
    [42113, ASCII, Number.isNaN(nodata) ? "nan" : String(nodata)],
  ];
  if (classes.length) tags.push([320, SHORT, palette(classes, 8 * size)]);
  for (const [tag, value] of place.tags)
    tags.push([tag, typeof value === "string" ? ASCII : tag === 34735 ? SHORT : DOUBLE, value]);
  tags.sort(([a], [b]) => a - b);
  return new Blob([header(tags, strips), ...strips], { type: "image/tiff" });
}

/**
 * What GDAL reads of a file: tags, and the name and the unit of its band.
 * @param {Record<string, string>} about
 * @param {string} band
 * @param {string} unit
 */
function metadata(about, band, unit) {
  /** @type {Record<string, string>} */
  const marks = { "<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;" };
  const once = (/** @type {string} */ text) => text.replace(/[<>&"]/g, (mark) => marks[mark]);
  const safe = (/** @type {string} */ text) => once(once(text)); // as GDAL, which undoes it twice
  const items = Object.entries(about).map(([key, text]) => `<Item name="${key}">${safe(text)}</Item>`);
  items.push(`<Item name="DESCRIPTION" sample="0" role="description">${safe(band)}</Item>`);
  if (unit) items.push(`<Item name="UNITTYPE" sample="0" role="unittype">${safe(unit)}</Item>`);
  return `<GDALMetadata>${items.join("")}</GDALMetadata>`;
}

/**
 * Everything before the strips; their offsets follow from its length.
 * @param {[number, number, number[] | string][]} tags
 * @param {Uint8Array[]} strips
 */
function header(tags, strips) {
  /** @type {Record<number, number>} */
  const sizes = { [ASCII]: 1, [SHORT]: 2, [LONG]: 4, [DOUBLE]: 8 };
  const values = tags.map(([, , value]) =>
    typeof value === "string" ? [...new TextEncoder().encode(`${value.replace(/\0+$/, "")}\0`)] : value,
  );
  const lengths = values.map((value, i) => value.length * sizes[tags[i][1]]);
  const ends = lengths.map((length) => (length > 4 ? length + (length % 2) : 0));
  const start = 8 + 2 + 12 * tags.length + 4;
  const view = new DataView(new ArrayBuffer(start + ends.reduce((a, b) => a + b, 0)));
  view.setUint16(0, 0x4949);
  view.setUint16(2, 42, true);
  view.setUint32(4, 8, true);
  view.setUint16(8, tags.length, true);
  const offsets = values[tags.findIndex(([tag]) => tag === 273)];
  strips.reduce((at, strip, i) => ((offsets[i] = at), at + strip.length), view.byteLength);
  let away = start;
  tags.forEach(([tag, type], i) => {
    const entry = 10 + 12 * i;
    view.setUint16(entry, tag, true);
    view.setUint16(entry + 2, type, true);
    view.setUint32(entry + 4, values[i].length, true);
    if (ends[i]) view.setUint32(entry + 8, away, true);
    let at = ends[i] ? away : entry + 8;
    for (const value of values[i]) {
      if (type === ASCII) view.setUint8(at, value);
      else if (type === SHORT) view.setUint16(at, value, true);
      else if (type === LONG) view.setUint32(at, value, true);
      else view.setFloat64(at, value, true);
      at += sizes[type];
    }
    away += ends[i];
  });
  return view.buffer;
}
