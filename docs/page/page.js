// What a person sees and does: a file in, maps out; the work is the worker's.

import { colouring, picture, ramp } from "./picture.js";
import { writeTiff } from "./write.js";

/** @typedef {import("./types").Maps} Maps */
/** @typedef {import("./types").Site} Site */
/** @typedef {import("./types").Told} Told */

/** @param {string} id */
const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const fields = () => /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("#reading [name]"));

/** @type {Worker | null} */
let worker = null;

/**
 * An element with text in it.
 * @param {string} kind
 * @param {(Node | string)[]} inside
 */
function made(kind, ...inside) {
  const element = document.createElement(kind);
  element.append(...inside);
  return element;
}

/** What a person says of the file. */
function told() {
  const values = Object.fromEntries(
    [...fields()].map((field) => [field.name, field.type === "checkbox" ? field.checked : field.value.trim()]),
  );
  return /** @type {Told & { model: string }} */ (/** @type {unknown} */ (values));
}

/**
 * Map a file; what was there before goes.
 * @param {Site} site
 * @param {Blob} blob
 * @param {string} name
 */
function start(site, blob, name) {
  end();
  at("result").hidden = at("error").hidden = true;
  const said = told();
  const wrong = ["scale", "offset", "nodata", "latitude", "longitude"].find((field) =>
    Number.isNaN(Number(said[/** @type {"scale"} */ (field)])),
  );
  if (wrong) return refuse(`${wrong}: wanted a number such as 0.0001; write it with a point.`);
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => {
    if (data.step) step(data.step, data.share);
    if (data.error) refuse(data.error);
    if (data.maps) finish(site, data.maps);
  };
  worker.onerror = () =>
    refuse(`${name}: the work ended early; is there enough memory? Try a smaller part of the scene.`);
  step("reading the file", 0);
  at("work").hidden = false;
  worker.postMessage({ blob, name, told: said, model: said.model });
}

/**
 * @param {string} text
 * @param {number} share
 */
function step(text, share) {
  at("step").textContent = text;
  /** @type {HTMLProgressElement} */ (at("bar")).value = share;
}

/** Stop the work, if there is any. */
function end() {
  worker?.terminate();
  worker = null;
  at("work").hidden = true;
}

/** @param {string} text */
function refuse(text) {
  end();
  at("error").textContent = text;
  at("error").hidden = false;
}

/**
 * Show the maps.
 * @param {Site} site
 * @param {Maps} maps
 */
function finish(site, maps) {
  end();
  const share = ((100 * maps.valid) / (maps.width * maps.height)).toFixed(1);
  at("name").textContent = maps.name;
  const pace = maps.tiles
    ? `, ${Math.round((1000 * maps.seconds) / maps.tiles)} ms for each of ${maps.tiles} tiles`
    : "";
  at("summary").textContent = `${maps.width} x ${maps.height} pixels, ${share} % of them mapped${pace}.`;
  const notes = [...maps.notes];
  if (maps.outside !== null && maps.outside > site.unfamiliar_limit) {
    notes.unshift(
      `${Math.round(100 * maps.outside)} % of it is unlike all training ground (95 of 100 places left out of the training had less than ` +
        `${Math.round(100 * Math.max(site.unfamiliar_limit, 0.01))} %): do not rely on the map there`,
    );
  }
  at("notes").replaceChildren(...notes.map((note) => made("li", `${note[0].toUpperCase()}${note.slice(1)}.`)));
  showViews(site, maps);
  showSaves(site, maps);
  at("result").hidden = false;
  at("name").focus();
}

/**
 * Which of the maps is shown.
 * @param {Site} site
 * @param {Maps} maps
 */
function showViews(site, maps) {
  const names = [
    "map",
    ...(maps.confidence ? ["confidence"] : []),
    ...(maps.unfamiliar ? ["unfamiliar"] : []),
    "scene",
  ];
  const choices = names.map((name) => {
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "view", value: name, checked: name === "map" });
    input.addEventListener("change", () => show(site, maps, name));
    return made("label", input, ` ${name}`);
  });
  at("views").replaceChildren(made("legend", "Shown"), ...choices);
  show(site, maps, "map");
}

/**
 * @param {Site} site
 * @param {Maps} maps
 * @param {string} name
 */
function show(site, maps, name) {
  const canvas = /** @type {HTMLCanvasElement} */ (at("canvas"));
  picture(canvas, maps, name, colouring(site, maps, name));
  canvas.setAttribute("aria-label", `${name} of ${maps.name}`);
  const classes = name === "map" && maps.counts.length > 0;
  const key = classes ? [table(site, maps)] : name === "scene" ? [] : scale(site, maps, name);
  const swatch = made("span");
  swatch.className = "swatch void";
  const gaps = maps.valid < maps.width * maps.height ? [made("p", swatch, "no data")] : [];
  at("legend").replaceChildren(...key, ...gaps);
}

/**
 * The classes: colour, area, share.
 * @param {Site} site
 * @param {Maps} maps
 */
function table(site, maps) {
  const ground = maps.hectares;
  const rows = site.answer.classes.map((entry, i) => {
    const swatch = made("span");
    swatch.className = "swatch";
    swatch.style.background = entry.colour;
    const share = maps.valid ? `${((100 * maps.counts[i]) / maps.valid).toFixed(1)} %` : "";
    const size = ground
      ? ground[i].toLocaleString("en", { maximumFractionDigits: ground[i] < 100 ? 1 : 0 })
      : maps.counts[i].toLocaleString("en");
    return made("tr", made("td", swatch, entry.name), made("td", size), made("td", share));
  });
  const head = made("tr", made("th", "class"), made("th", ground ? "hectares" : "pixels"), made("th", "share"));
  return made("table", made("thead", head), made("tbody", ...rows));
}

/**
 * The colours of a map of numbers.
 * @param {Site} site
 * @param {Maps} maps
 * @param {string} name
 */
function scale(site, maps, name) {
  const { low, high, about } = colouring(site, maps, name);
  const canvas = document.createElement("canvas");
  canvas.className = "ramp";
  ramp(canvas);
  const more = name === "unfamiliar" ? " or more" : "";
  const ends = made("div", made("span", `${+low.toPrecision(3)}`), made("span", `${+high.toPrecision(3)}${more}`));
  ends.className = "ends";
  return [made("p", about), canvas, ends];
}

/**
 * What can be downloaded.
 * @param {Site} site
 * @param {Maps} maps
 */
function showSaves(site, maps) {
  /** @type {[string, Uint8Array | Uint16Array | Float32Array][]} */
  const found = [["map", maps.map]];
  if (maps.confidence) found.push(["confidence", maps.confidence]);
  if (maps.unfamiliar) found.push(["unfamiliar", maps.unfamiliar]);
  const buttons = found.map(([kind, values]) => {
    const button = made("button", `Download ${kind} (.tif)`);
    button.id = `save-${kind}`;
    button.addEventListener("click", async () => {
      const classes = kind === "map" ? site.answer.classes : [];
      const nodata = kind === "map" ? (site.answer.nodata ?? NaN) : NaN;
      const about = { TIFFTAG_SOFTWARE: site.software, EARTHTUNE_BUNDLE: site.bundle, EARTHTUNE_INPUT: maps.name };
      const band = kind === "map" ? site.answer.name : kind;
      const blob = await writeTiff(values, {
        width: maps.width,
        height: maps.height,
        place: maps.place,
        nodata,
        classes,
        about,
        band,
        unit: kind === "map" ? site.answer.unit : "",
      });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${maps.name.replace(/\.[^.]*$/, "")}_${kind}.tif`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    });
    return button;
  });
  at("saves").replaceChildren(...buttons);
}

/**
 * What the model is, in words.
 * @param {Site} site
 */
function describe(site) {
  const { answer, bands } = site;
  const what = answer.classes.length
    ? answer.classes.map((entry) => entry.name).join(", ")
    : `${answer.name}${answer.unit ? ` in ${answer.unit}` : ""}`;
  document.title = `${site.title}: a map of your scene`;
  at("title").textContent = `${site.title}: a map of your scene`;
  at("lead").textContent = `Drop a satellite scene and see, pixel by pixel: ${what}.`;
  const words = { accuracy: "accuracy", mean_iou: "mean IoU", rmse: "RMSE", r2: "R²" };
  const scores = Object.entries(words).flatMap(([key, word]) =>
    key in site.scores ? [`${word} ${site.scores[key].toFixed(3)}`] : [],
  );
  const also = [...(site.time ? ["the day"] : []), ...(site.location ? ["the place on the Earth"] : [])];
  const list = {
    "Bands wanted": `${bands.map((band) => band.name).join(", ")}, in ${site.unit}`,
    "Also wanted": also.join(" and "),
    "Pixels of the training": site.pixel ? `${site.pixel} m` : "size not known",
    "On samples kept apart": scores.join(", "),
    Confidence: site.confidence,
    Backbone: site.backbone,
    "Made by": `${site.software}, bundle ${site.bundle.slice(0, 12)}`,
  };
  at("about").replaceChildren(
    ...Object.entries(list).flatMap(([key, text]) => (text ? [made("dt", key), made("dd", text)] : [])),
  );
  at("ask-date").hidden = !site.time;
  for (const field of document.querySelectorAll(".ask-place"))
    /** @type {HTMLElement} */ (field).hidden = !site.location;
  const model = /** @type {HTMLSelectElement} */ (document.querySelector("[name=model]"));
  model.append(...site.models.map(({ name }) => new Option(name, name)));
  at("ask-model").hidden = site.models.length < 2;
  at("sample").hidden = !site.sample;
}

/** Everything that a person can do. */
async function begin() {
  const reply = await fetch("site.json");
  /** @type {Site} */
  const site = await reply.json();
  describe(site);
  const file = /** @type {HTMLInputElement} */ (at("file"));
  file.addEventListener("change", () => {
    const chosen = file.files?.[0];
    if (chosen) start(site, chosen, chosen.name);
    file.value = ""; // so that the same one can be chosen again
  });
  at("sample").addEventListener("click", async () =>
    start(site, await (await fetch(String(site.sample))).blob(), String(site.sample)),
  );
  at("stop").addEventListener("click", end);
  const drop = at("drop");
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // else the browser opens the file
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  document.addEventListener("drop", (event) => {
    const dropped = event.dataTransfer?.files[0];
    if (dropped) start(site, dropped, dropped.name);
  });
  document.body.dataset.ready = "yes";
  // Only pages of https, or of this machine, may keep their files.
  const offline = navigator.serviceWorker;
  if (!offline || !(await offline.register("offline.js").catch(() => null))) return;
  await offline.ready;
  at("offline").textContent = "The whole page is on this device now: it works with the network off.";
}

begin().catch(() =>
  refuse("The site cannot be read; serve its whole folder, such as by python3 -m http.server, and open it by http."),
);
