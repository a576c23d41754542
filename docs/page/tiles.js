// Which tiles cover a scene, and how their answers are blended; what earthtune's `mosaic` does.

/** @typedef {import("./types").Scene} Scene */
/** @typedef {import("./types").Site} Site */
/** @typedef {import("./types").Tile} Tile */

/**
 * First pixel and blending weights of each tile along a side: raised cosines, over their sum at each pixel.
 * @param {number} size
 * @param {number} tile
 * @param {number} overlap
 * @param {number} phase a pixel at which a tile begins
 * @returns {{ first: number, weight: Float32Array }[]}
 */
export function weights(size, tile, overlap, phase = 0) {
  const [last, length, step] = [Math.max(size - tile, 0), Math.min(tile, size), tile - overlap];
  const begin = ((phase % step) + step) % step;
  const firsts = begin && last ? [0] : [];
  for (let first = begin; first < last; first += step) firsts.push(first);
  firsts.push(last);
  const hann = Float64Array.from({ length }, (_, i) => Math.sin((Math.PI * (i + 0.5)) / length) ** 2);
  const total = new Float64Array(size);
  for (const first of firsts) hann.forEach((value, i) => (total[first + i] += value));
  return firsts.map((first) => ({ first, weight: Float32Array.from(hann, (value, i) => value / total[first + i]) }));
}

/**
 * Row and column at which the coordinate system begins: tiles are counted from there.
 * @param {number[] | null} affine
 * @returns {[number, number]}
 */
export function phaseOf(affine) {
  if (!affine || affine[1] || affine[3]) return [0, 0];
  const [a, , c, , e, f] = affine;
  return [-Math.floor(f / e + 0.5), -Math.floor(c / a + 0.5)];
}

/**
 * A tile for the model: invalid pixels hold the mean of the others, and what is missing is mirrored.
 * @param {Tile} tile
 * @param {number} height
 * @param {number} width
 * @param {number} side
 */
export function prepared({ x, valid, count }, height, width, side) {
  const channels = x.length / valid.length;
  const out = new Float32Array(channels * side * side);
  const mirror = (/** @type {number} */ i, /** @type {number} */ n) =>
    i % (2 * n) < n ? i % (2 * n) : 2 * n - 1 - (i % (2 * n));
  for (let channel = 0; channel < channels; channel++) {
    const from = channel * valid.length;
    let mean = 0;
    if (count < valid.length) {
      for (let i = 0; i < valid.length; i++) if (valid[i]) mean += x[from + i];
      mean /= count;
    }
    for (let row = 0; row < side; row++) {
      const source = mirror(row, height) * width;
      for (let column = 0; column < side; column++) {
        const i = source + mirror(column, width);
        out[(channel * side + row) * side + column] = valid[i] ? x[from + i] : mean;
      }
    }
  }
  return out;
}

/**
 * Finished rows, top to bottom, as soon as no later tile touches them. The arrays are used again.
 * @param {Scene} scene
 * @param {Site} site
 * @param {number} channels
 * @param {(x: Float32Array, place: [number, number, number, number]) => Promise<Float32Array>} predict (C, tile, tile) to (K, tile, tile)
 * @param {(done: number, total: number) => void} progress
 * @returns {AsyncGenerator<{ first: number, rows: number, y: Float32Array, valid: Uint8Array, stride: number }>}
 */
export async function* blended(scene, site, channels, predict, progress) {
  const { width, height } = scene;
  const { tile, overlap } = site;
  const [begin, left] = phaseOf(scene.place.affine);
  const [down, across] = [weights(height, tile, overlap, begin), weights(width, tile, overlap, left)];
  const side = Math.min(tile, height);
  const stride = side * width; // of a channel in the strip
  const [strip, mask] = [new Float32Array(channels * stride), new Uint8Array(stride)];
  let done = 0;
  for (const [n, { first: row, weight: tall }] of down.entries()) {
    for (const { first: column, weight: wide } of across) {
      const part = scene.read(row, column, side, wide.length);
      for (let i = 0; i < side; i++)
        mask.set(part.valid.subarray(i * wide.length, (i + 1) * wide.length), i * width + column);
      if (part.count) {
        const y = await predict(prepared(part, side, wide.length, tile), [row, column, side, wide.length]);
        add(strip, y, { channels, side, width, column, tile, tall, wide });
      }
      progress(++done, down.length * across.length);
    }
    const finished = Math.min((n + 1 < down.length ? down[n + 1].first : height) - row, side);
    yield { first: row, rows: finished, y: strip, valid: mask, stride };
    for (let channel = 0; channel < channels; channel++)
      shift(strip.subarray(channel * stride, (channel + 1) * stride), finished * width);
    shift(mask, finished * width);
  }
}

/**
 * Add a tile's weighted answer to the strip.
 * @param {Float32Array} strip
 * @param {Float32Array} y
 * @param {{ channels: number, side: number, width: number, column: number, tile: number,
 *   tall: Float32Array, wide: Float32Array }} how
 */
function add(strip, y, { channels, side, width, column, tile, tall, wide }) {
  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < side; row++) {
      const [to, from] = [(channel * side + row) * width + column, (channel * tile + row) * tile];
      for (let i = 0; i < wide.length; i++) {
        const value = y[from + i];
        if (!Number.isFinite(value))
          throw new Error("the model's answer is not finite; look at the values of the file");
        strip[to + i] += Math.fround(value * Math.fround(tall[row] * wide[i]));
      }
    }
  }
}

/**
 * Move what is left of an array to its start, with zeros after it.
 * @param {Float32Array | Uint8Array} array
 * @param {number} by
 */
function shift(array, by) {
  array.copyWithin(0, by);
  array.fill(0, array.length - by);
}
