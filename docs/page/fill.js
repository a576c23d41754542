// Fill that no header declares: one listed value in all bands, from the edge of the scene inwards.

/** @typedef {import("./types").Values} Values */

/** @type {Record<string, [number, number]>} */
const EXTREMES = {
  Uint8Array: [0, 255],
  Int8Array: [-128, 127],
  Uint16Array: [0, 65535],
  Int16Array: [-32768, 32767],
  Uint32Array: [0, 4294967295],
  Int32Array: [-2147483648, 2147483647],
  Float32Array: [-3.4028234663852886e38, 3.4028234663852886e38],
  Float64Array: [-Number.MAX_VALUE, Number.MAX_VALUE],
};

/**
 * What may be fill in bands: 0, -9999 and the extremes of their types, but for what is declared.
 * @param {Values[]} bands
 * @param {number[]} declared
 */
function listedValues(bands, declared) {
  const lists = bands.map((band) => {
    const [least, most] = EXTREMES[band.constructor.name];
    return [0, -9999, least, most].filter((value) => value >= least && value <= most);
  });
  const common = new Set(lists[0].filter((value) => lists.every((list) => list.includes(value))));
  return [...common].filter((value) => !declared.includes(value) && (value !== 0 || bands.length > 1));
}

/**
 * Where a scene is fill: 1 (height, width); null where it is nowhere.
 * @param {Values[]} bands
 * @param {Uint8Array} none 1 where a band has no data
 * @param {number[]} declared
 * @param {number} width
 */
export function findFill(bands, none, declared, width) {
  const values = listedValues(bands, declared).map(Math.fround);
  const [count, height] = [bands[0].length, bands[0].length / width];
  const kinds = new Uint8Array(count); // 0 values, 1 fill if the edge is near, 2 no data
  for (let i = 0; i < count; i++) {
    const first = Math.fround(bands[0][i]);
    if (none[i]) kinds[i] = 2;
    else if (values.includes(first) && bands.every((band) => Math.fround(band[i]) === first)) kinds[i] = 1;
  }
  const [fill, waiting] = [new Uint8Array(count), /** @type {number[]} */ ([])];
  let found = false;
  const reach = (/** @type {number} */ i) => {
    if (!kinds[i]) return;
    if (kinds[i] === 1) found = Boolean((fill[i] = 1));
    kinds[i] = 0;
    waiting.push(i);
  };
  for (let column = 0; column < width; column++) [column, count - width + column].forEach(reach);
  for (let row = 0; row < height; row++) [row * width, row * width + width - 1].forEach(reach);
  for (let i = waiting.pop(); i !== undefined; i = waiting.pop()) {
    if (i % width) reach(i - 1);
    if ((i + 1) % width) reach(i + 1);
    if (i >= width) reach(i - width);
    if (i + width < count) reach(i + width);
  }
  return found ? fill : null;
}
