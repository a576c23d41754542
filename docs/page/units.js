// Whether values can be the reflectance that they are taken for.

/** @typedef {import("./types").Scene} Scene */
/** @typedef {import("./types").Site} Site */

const LOOK = 128; // pixels a side of each part that is looked at

/**
 * Values below which shares of some lie, linear between them.
 * @param {Float32Array} sorted
 * @param {number} percent
 */
export function percentile(sorted, percent) {
  const place = ((sorted.length - 1) * percent) / 100;
  const [low, part] = [Math.floor(place), place % 1];
  return sorted[low] + part * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}

/**
 * Five parts of a scene that hold data, from the middle outwards: bands of valid pixels, as reflectance.
 * @param {Scene} scene
 * @param {number} bands
 */
function looked(scene, bands) {
  const places = [
    [4, 4],
    [2, 2],
    [2, 6],
    [6, 2],
    [6, 6],
  ];
  for (let i = 1; i < 8; i++) for (let j = 1; j < 8; j++) places.push([i, j]);
  /** @type {import("./types").Tile[]} */
  const parts = [];
  for (const [down, right] of places) {
    const [top, left] = [
      [scene.height, down],
      [scene.width, right],
    ].map(([side, at]) => Math.max(Math.floor((side * at) / 8) - LOOK / 2, 0));
    const [height, width] = [Math.min(LOOK, scene.height - top), Math.min(LOOK, scene.width - left)];
    const { x, valid, count } = scene.read(top, left, height, width);
    if (count) parts.push({ x, valid, count });
    if (parts.length === 5) break;
  }
  const total = parts.reduce((sum, part) => sum + part.count, 0);
  return Array.from({ length: bands }, (_, band) => {
    const values = new Float32Array(total);
    let at = 0;
    for (const { x, valid } of parts) {
      for (let i = 0; i < valid.length; i++) if (valid[i]) values[at++] = x[band * valid.length + i] / 1e4;
    }
    return values;
  });
}

/**
 * Why the values cannot be reflectance, in words; empty where they can.
 * @param {Scene} scene
 * @param {Site} site
 */
export function impossible(scene, site) {
  const chosen = site.bands.flatMap((band, i) => (band.reflectance ? [i] : []));
  const all = looked(scene, site.bands.length);
  const x = chosen.map((band) => all[band]);
  if (!x.length || !x[0].length) return "";
  const below = x[0].reduce((sum, _, i) => sum + Number(x.some((values) => values[i] < -0.5)), 0) / x[0].length;
  const sorted = x.map((values) => values.sort());
  const [low, middle, high] = [1, 50, 98].map((percent) => sorted.map((values) => percentile(values, percent)));
  const [dark, light] = [Math.min(...middle), Math.max(...middle)];
  const kinds = chosen.map((band) => scene.kinds[band]);
  const say = (/** @type {number} */ value) => value.toPrecision(3).replace(/\.0+$/, "");
  if (light > 1.6) return `half of the pixels of a band reflect ${say(light)} times the light that reaches them`;
  if (percentile(Float32Array.from(high).sort(), 50) > 2)
    return "bright pixels reflect more than twice the light that reaches them";
  if (dark < -0.03)
    return `half of the pixels of a band lie below ${say(dark)}, and nothing reflects less than nothing`;
  if (below > 0.01) return "pixels lie below -0.5, and nothing reflects less than nothing (are they no data?)";
  if (kinds.some((kind) => kind.startsWith("Float")) && Math.max(...high.map(Math.abs)) <= 0.0002) {
    return `no pixel reflects more than ${say(Math.max(...high.map(Math.abs)))}`;
  }
  const infrared = chosen.some((band) => site.bands[band].name === "SWIR_2");
  if (infrared && Math.min(...low) > 0.6)
    return `every pixel reflects more than ${say(Math.min(...low))} in every band`;
  if (kinds.every((kind) => kind === "Uint8Array") && !scene.told)
    return "8-bit counts: a picture, or a product whose scale nothing tells";
  return "";
}
