// The work, beside the page: a file to its maps.

import { loadModels } from "./model.js";
import { hectares } from "./place.js";
import { Refused } from "./refused.js";
import { openScene } from "./scene.js";
import { blended } from "./tiles.js";
import { impossible, percentile } from "./units.js";

/** @typedef {import("./types").Maps} Maps */
/** @typedef {import("./types").Scene} Scene */
/** @typedef {import("./types").Site} Site */
/** @typedef {import("./types").Told} Told */

const SHOWN = 1600; // pixels along the longer side of the picture of the scene

/** @param {Record<string, unknown>} message */
const post = (message) => self.postMessage(message);

self.onmessage = async ({ data }) => {
  try {
    /** @type {Site} */
    const site = await (await fetch("site.json")).json();
    post({ step: "reading the file", share: 0 });
    const scene = await openScene(data.blob, data.name, site, data.told);
    check(scene, site, data.told);
    const models = await loadModels(site, data.model, (share) => post({ step: "loading the model", share }));
    post({ maps: await mapped(scene, site, models) });
  } catch (error) {
    const plain =
      error instanceof Refused
        ? error.message
        : `${data.name}: it failed (${error instanceof Error ? error.message : error}).`;
    post({ error: plain });
  }
};

/**
 * Refuse values that are no reflectance.
 * @param {Scene} scene
 * @param {Site} site
 * @param {Told} told
 */
function check(scene, site, told) {
  if (!scene.pixels) throw new Refused(`${scene.name}: no pixel of it holds data in all bands.`);
  const wrong = told.as_is ? "" : impossible(scene, site);
  if (wrong) {
    throw new Refused(
      `${scene.name}: its values are no ${site.unit}: ${wrong}; write scale and offset under “How the file is read”, ` +
        "or tick there to take the values as they are.",
    );
  }
}

/**
 * The maps of a scene.
 * @param {Scene} scene
 * @param {Site} site
 * @param {Awaited<ReturnType<typeof loadModels>>} models
 * @returns {Promise<Maps>}
 */
async function mapped(scene, site, models) {
  const { width, height, name, place, notes } = scene;
  const count = width * height;
  const { classes, dtype, nodata } = site.answer;
  const map = classes.length
    ? new { uint8: Uint8Array, uint16: Uint16Array }[dtype === "uint16" ? "uint16" : "uint8"](count)
    : new Float32Array(count);
  map.fill(nodata ?? NaN);
  const confidence = classes.length ? new Float32Array(count).fill(NaN) : null;
  const unfamiliar = site.unfamiliar ? new Float32Array(count).fill(NaN) : null;
  const area = hectares(place, width);
  const [counts, sums] = [classes.map(() => 0), classes.map(() => 0)];
  let [valid, outside, tiles, seconds] = [0, 0, 0, 0];
  const predict = async (/** @type {Float32Array} */ x, /** @type {[number, number, number, number]} */ at) => {
    const begun = performance.now();
    const y = await models.run(x, scene.date, () => scene.location(...at));
    seconds += (performance.now() - begun) / 1000;
    tiles++;
    return y;
  };
  const progress = (/** @type {number} */ done, /** @type {number} */ total) =>
    post({ step: `tile ${done} of ${total}`, share: done / total });
  for await (const { first, rows, y, valid: mask, stride } of blended(
    scene,
    site,
    models.channels,
    predict,
    progress,
  )) {
    for (let i = 0; i < rows * width; i++) {
      if (!mask[i]) continue;
      const to = first * width + i;
      valid++;
      if (unfamiliar) outside += Number((unfamiliar[to] = y[(models.channels - 1) * stride + i]) > 1);
      if (!confidence) {
        map[to] = y[i];
        continue;
      }
      const { best, sure } = answered(y, i, stride, classes.length, site.temperature);
      [map[to], confidence[to]] = [classes[best].code, sure];
      counts[best]++;
      sums[best] += area ? area(first + Math.floor(i / width)) : 0;
    }
  }
  const share = unfamiliar && valid ? outside / valid : null;
  const colour = coloured(scene, site);
  return {
    name,
    width,
    height,
    place,
    map,
    confidence,
    unfamiliar,
    colour,
    counts,
    hectares: area && sums,
    valid,
    outside: share,
    notes,
    seconds,
    tiles,
  };
}

/**
 * The first class of the highest probability at a pixel, and how sure that is after calibration.
 * @param {Float32Array} y
 * @param {number} i
 * @param {number} stride
 * @param {number} classes
 * @param {number} temperature
 */
function answered(y, i, stride, classes, temperature) {
  let best = 0;
  for (let k = 1; k < classes; k++) if (y[k * stride + i] > y[best * stride + i]) best = k;
  if (temperature === 1) return { best, sure: y[best * stride + i] };
  const sharp = (/** @type {number} */ k) => Math.max(y[k * stride + i], 1e-6) ** (1 / temperature);
  let total = 0;
  for (let k = 0; k < classes; k++) total += sharp(k);
  return { best, sure: sharp(best) / total };
}

/**
 * The scene as a picture: red, green and blue where it has them, stretched so that clouds darken nothing.
 * @param {Scene} scene
 * @param {Site} site
 */
function coloured(scene, site) {
  const step = Math.ceil(Math.max(scene.width, scene.height) / SHOWN);
  const [width, height] = [Math.ceil(scene.width / step), Math.ceil(scene.height / step)];
  const named = ["RED", "GREEN", "BLUE"].map((name) => site.bands.findIndex((band) => band.name === name));
  const chosen = named.includes(-1) ? [0, 0, 0] : named;
  const rgba = new Uint8ClampedArray(width * height * 4);
  const values = chosen.map(() => new Float32Array(width * height).fill(NaN));
  for (let row = 0; row < height; row++) {
    const { x, valid } = scene.read(row * step, 0, 1, scene.width);
    for (let column = 0; column < width; column++) {
      if (valid[column * step])
        chosen.forEach((band, n) => (values[n][row * width + column] = x[band * scene.width + column * step]));
    }
  }
  values.forEach((band, n) => {
    const known = band.filter(Number.isFinite).sort();
    const [low, high] = known.length ? [percentile(known, 2), percentile(known, 95)] : [0, 1];
    band.forEach((value, i) => {
      rgba[4 * i + n] = (255 * (value - low)) / (high - low || 1);
      rgba[4 * i + 3] = Number.isFinite(value) ? 255 : 0;
    });
  });
  return { width, height, step, rgba };
}
