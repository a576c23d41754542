// Maps as pictures on a canvas.

/** @typedef {import("./types").Maps} Maps */
/** @typedef {import("./types").Site} Site */
/** @typedef {{ values: Uint8Array | Uint16Array | Float32Array | null, low: number, high: number, about: string, colours: Map<number, number[]> | null }} Colouring */

// Viridis, as matplotlib has it, at nine places.
const RAMP = [
  [68, 1, 84],
  [72, 40, 120],
  [62, 73, 137],
  [49, 104, 142],
  [38, 130, 142],
  [31, 158, 137],
  [53, 183, 121],
  [109, 205, 89],
  [253, 231, 37],
];

/**
 * @param {number} share 0 to 1
 * @returns {number[]}
 */
function shade(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((value, i) => value + (place - low) * (RAMP[low + 1][i] - value));
}

/**
 * What a map's values mean, and their colours.
 * @param {Site} site
 * @param {Maps} maps
 * @param {string} name
 * @returns {Colouring}
 */
export function colouring(site, maps, name) {
  if (name === "confidence") {
    const about = site.temperature === 1 ? "Highest probability" : "Highest probability, calibrated";
    return { values: maps.confidence, low: 1 / Math.max(site.answer.classes.length, 2), high: 1, about, colours: null };
  }
  if (name === "unfamiliar")
    return {
      values: maps.unfamiliar,
      low: 0,
      high: 2,
      about: "Distance from training ground; above 1 is outside",
      colours: null,
    };
  if (name === "scene") return { values: null, low: 0, high: 1, about: "", colours: null };
  if (!site.answer.classes.length) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of maps.map)
      [low, high] = value < low || value > high ? [Math.min(low, value), Math.max(high, value)] : [low, high];
    return {
      values: maps.map,
      low,
      high,
      about: `${site.answer.name}${site.answer.unit ? ` (${site.answer.unit})` : ""}`,
      colours: null,
    };
  }
  const rgb = (/** @type {string} */ text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  return {
    values: maps.map,
    low: 0,
    high: 0,
    about: "",
    colours: new Map(site.answer.classes.map((entry) => [entry.code, rgb(entry.colour)])),
  };
}

/**
 * Draw a map, every so many pixels where it is large.
 * @param {HTMLCanvasElement} canvas
 * @param {Maps} maps
 * @param {string} name
 * @param {Colouring} how
 */
export function picture(canvas, maps, name, { values, low, high, colours }) {
  const { width, height, step, rgba } = maps.colour;
  Object.assign(canvas, { width, height });
  const image = name === "scene" || !values ? new ImageData(rgba, width, height) : new ImageData(width, height);
  if (values && name !== "scene") {
    for (let i = 0; i < width * height; i++) {
      const value = values[Math.floor(i / width) * step * maps.width + (i % width) * step];
      const colour = colours
        ? colours.get(value)
        : Number.isNaN(value)
          ? undefined
          : shade((value - low) / (high - low || 1));
      if (colour) image.data.set([...colour, 255], 4 * i);
    }
  }
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/**
 * Draw the colours from low to high.
 * @param {HTMLCanvasElement} canvas
 */
export function ramp(canvas) {
  Object.assign(canvas, { width: 256, height: 1 });
  const image = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([...shade(i / 255), 255], 4 * i);
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}
