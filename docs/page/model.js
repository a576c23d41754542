// The graphs in onnxruntime-web: a tile to its answer, and how unlike the training it is as a channel more.

import * as ort from "./ort.js";

/** @typedef {import("./types").Site} Site */

/**
 * @param {string} file
 * @param {(share: number) => void} progress
 */
async function fetched(file, progress) {
  const reply = await fetch(file);
  if (!reply.ok || !reply.body)
    throw new Error(`${file}: the site does not hold it (${reply.status}); copy the whole site`);
  const total = Number(reply.headers.get("content-length")) || 0;
  const parts = [];
  let got = 0;
  for (const reader = reply.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    got += value.length;
    if (total) progress(Math.min(got / total, 1));
  }
  const whole = new Uint8Array(got);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/**
 * Load one of the site's models.
 * @param {Site} site
 * @param {string} name
 * @param {(share: number) => void} progress
 */
export async function loadModels(site, name, progress) {
  const here = (/** @type {string} */ file) => new URL(file, self.location.href).href;
  const model = site.models.find((one) => one.name === name) || site.models[0];
  const files = ["ort.wasm", model.file, ...(site.unfamiliar ? [site.unfamiliar] : [])];
  const [wasm, ...graphs] = await Promise.all(files.map((file, i) => fetched(file, i === 1 ? progress : () => {})));
  ort.env.wasm.numThreads = 1; // more want headers that not every server sends
  ort.env.wasm.wasmPaths = { mjs: here("ort-wasm.js"), wasm: here("ort.wasm") };
  ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.logLevel = "error";
  /** @type {ort.InferenceSession[]} */
  const sessions = [];
  for (const graph of graphs) sessions.push(await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] }));
  const classes = site.answer.classes.length || 1;
  const { tile, bands } = site;

  /**
   * @param {Float32Array} x (C, tile, tile)
   * @param {Date | null} date
   * @param {() => [number, number]} location
   * @returns {Promise<Float32Array>} (K, tile, tile)
   */
  async function run(x, date, location) {
    /** @type {Record<string, ort.Tensor>} */
    const given = { imagery: new ort.Tensor("float32", x, [1, bands.length, 1, tile, tile]) };
    if (site.time && date) {
      const year = date.getUTCFullYear();
      const day = Math.round((date.getTime() - Date.UTC(year, 0, 1)) / 864e5);
      given.time = new ort.Tensor("float32", Float32Array.of(year, day), [1, 1, 2]);
    }
    if (site.location) given.location = new ort.Tensor("float32", Float32Array.from(location()), [1, 2]);
    const y = new Float32Array((classes + sessions.length - 1) * tile * tile);
    let at = 0;
    for (const session of sessions) {
      const some = Object.fromEntries(session.inputNames.map((input) => [input, given[input]]));
      const { data } = (await session.run(some))[session.outputNames[0]];
      y.set(data, at);
      at += data.length;
    }
    return y;
  }
  return { channels: classes + sessions.length - 1, run };
}
