// The page of a review: regions of a map, or points of a sample, one after the other, by keys.
// Places are pixels of the grid, (column, row); Leaflet's plain system has latitude = -row, longitude = column.
"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const state = await (await fetch("state")).json();
  const { items, classes, kind } = state;
  const values = kind == "regions" && !classes.length;
  const at = ([x, y]) => L.latLng(-y, x);
  const whole = L.latLngBounds(at([0, 0]), at([state.width, state.height]));
  const map = L.map("map", {
    crs: L.CRS.Simple, minZoom: -6, maxZoom: 5, zoomSnap: 0.25, zoomControl: false, keyboard: false,
    doubleClickZoom: false, zoomAnimation: false, fadeAnimation: false, maxBounds: whole.pad(1), renderer: L.svg(),
  });
  map.fitBounds(whole);
  let index = 0, layer = 0, part = null, drawing = null, pending = null, busy = false, outlined = true;
  const casing = L.layerGroup(), drawn = L.layerGroup(), shapes = new Map(), overlays = new Map();

  // What is shown.
  const looks = { "": "#ffffff", agree: "#57d163", class: "#57b0ff", value: "#57b0ff", unsure: "#ffc53d" };
  const said = (item) => state.answers[item.id] || { answer: "", label: null, polygons: [] };
  const answered = (item) => said(item).answer != "" || said(item).polygons.length > 0;
  const nameOf = (code) => (classes.find((c) => c.code == code) || { name: `${code} ${state.unit}`.trim() }).name;
  const colourOf = (code) => (classes.find((c) => c.code == code) || { colour: "#57b0ff" }).colour;

  function shapeOf(item) {
    if (item.point) return L.circleMarker(at(item.point), { radius: 4, interactive: true });
    return L.polygon(item.rings.map((rings) => rings.map((ring) => ring.map(at))));
  }

  function paint(item) {
    const here = items[index] == item, shape = shapes.get(item.id);
    const style = { color: looks[said(item).answer], weight: here ? 3 : 1, opacity: here ? 1 : 0.75, fill: true, fillOpacity: 0 };
    if (item.point && here) Object.assign(style, { opacity: 0.35 });
    shape.setStyle(style);
    if (!here) return;
    casing.clearLayers();  // dark beneath, so that it is seen on any ground
    if (!item.point && outlined) shapeOf(item).setStyle({ color: "#000", weight: 7, opacity: 0.8, fill: false, interactive: false }).addTo(casing);
    shape.bringToFront();
  }

  function paintDrawn() {
    drawn.clearLayers();
    for (const one of said(items[index]).polygons) {
      L.polygon(one.ring.map(at), { color: colourOf(one.label), weight: 3, fillOpacity: 0.35, interactive: false }).addTo(drawn);
    }
    if (pending) L.polygon(pending.map(at), { color: "#fff", dashArray: "4 4", weight: 2, interactive: false }).addTo(drawn);
    if (drawing) {
      L.polyline(drawing.map(at), { color: "#fff", weight: 2, dashArray: "4 4", interactive: false }).addTo(drawn);
      for (const point of drawing) L.circleMarker(at(point), { radius: 3, color: "#fff", fillOpacity: 1, interactive: false }).addTo(drawn);
    }
    if (items[index].point) {
      const [x, y] = items[index].point.map(Math.floor);
      L.rectangle([at([x, y]), at([x + 1, y + 1])], { color: "#ffef3d", weight: 2, fill: false, interactive: false }).addTo(drawn);
    }
  }

  function showLayer() {
    const name = state.layers[layer];
    for (const [other, overlay] of overlays) overlay.setOpacity(other == name ? 1 : 0);
    if (!overlays.has(name)) overlays.set(name, L.imageOverlay(`layer/${name}`, whole).addTo(map));
    if (part) part.remove();
    part = null;
    if (state.scale < 1) {  // the whole is thinned: a picture of what is around the region in its own pixels
      const item = items[index], wanted = `part/${name}/${item.id}`, [top, left, bottom, right] = item.bounds, pad = state.pad;
      const low = at([Math.max(left - pad, 0), Math.max(top - pad, 0)]);
      const high = at([Math.min(right + pad, state.width), Math.min(bottom + pad, state.height)]);
      part = L.imageOverlay(wanted, [low, high], { zIndex: 2 }).addTo(map);
    }
    $("ramp").textContent = { confidence: "dark: not sure · bright: sure", unfamiliar: "dark: like the training · bright: unlike" }[name] || "";
    document.querySelectorAll("#layers button").forEach((button, i) => {
      button.classList.toggle("on", i == layer);
      button.setAttribute("aria-pressed", i == layer);
    });
  }

  function tell() {
    const item = items[index], answer = said(item), count = items.filter(answered).length;
    const thing = kind == "sample" ? "point" : "region";
    $("progress").textContent = `${count} of ${items.length} answered`;
    $("done").style.width = `${(100 * count) / items.length}%`;
    $("which").textContent = kind == "sample" ? `Point ${item.id}` : `Region ${index + 1} of ${items.length}`;
    $("reason").textContent = kind == "sample" ? "What is at the marked pixel?" : item.reason[0].toUpperCase() + item.reason.slice(1);
    const facts = [];
    if (item.class) facts.push(`map: mostly ${item.class}`);
    if (item.hectares) facts.push(`${Number(item.hectares.toPrecision(2))} ha`);
    if (item.confidence != null) facts.push(`confidence ${item.confidence.toFixed(2)}`);
    if (item.unfamiliar != null) facts.push(`unfamiliar ${item.unfamiliar.toFixed(1)}`);
    $("facts").textContent = facts.join(" · ");
    const words = { "": "", agree: "You: the map is right", unsure: "You: unsure", class: `You: ${nameOf(answer.label)}`, value: `You: ${nameOf(answer.label)}` };
    const many = answer.polygons.length;
    $("said").textContent = pending ? "Which class is the polygon? Press its key"
      : drawing ? "Click corners · Enter closes · Esc undoes one"
      : words[answer.answer] + (many ? `${answer.answer ? ", and " : "You: "}${many} polygon${many > 1 ? "s" : ""} drawn` : "");
    document.querySelectorAll("#choices button").forEach((button) => {
      const { word, label } = button.dataset;
      button.classList.toggle("on", answer.answer == word && (label === undefined || Number(label) == answer.label) && !pending);
    });
    $("map").classList.toggle("drawing", drawing !== null);
    document.title = `${count}/${items.length} ${thing}s · ${state.title}`;
  }

  function go(to, look = true) {
    const before = items[index];
    drawing = pending = null;
    index = Math.max(0, Math.min(items.length - 1, to));
    paint(before);
    paint(items[index]);
    const [top, left, bottom, right] = items[index].bounds, pad = items[index].point ? 40 : Math.max(12, (bottom - top + right - left) / 3);
    if (look) map.fitBounds([at([left - pad, top - pad]), at([right + pad, bottom + pad])], { animate: false });
    showLayer();
    paintDrawn();
    tell();
  }

  const firstOpen = (from) => {
    for (let i = 0; i < items.length; i++) {
      const j = (from + i) % items.length;
      if (!answered(items[j])) return j;
    }
    return -1;
  };

  // What is said. Nothing moves on before the disk has it.
  async function send(route, body) {
    if (busy) return null;
    busy = true;
    try {
      const reply = await fetch(route, { method: "POST", body: JSON.stringify(body) });
      const told = await reply.json();
      if (!reply.ok) throw new Error(told.error);
      $("trouble").textContent = "";
      return told;
    } catch (error) {
      $("trouble").textContent = error instanceof TypeError ? "The program has ended: this answer is not kept. Start it again and reload." : error.message;
      return null;
    } finally {
      busy = false;
    }
  }

  async function answer(word, label = null) {
    const item = items[index], told = await send("answer", { id: item.id, answer: word, label, polygons: said(item).polygons });
    if (!told) return;
    state.answers[item.id] = told.answer;
    if (items[index] != item) { paint(item); tell(); return; }  // somebody clicked on while it was kept
    const next = firstOpen(index + 1);
    paint(item);
    if (next < 0) { tell(); ended(); } else go(next);
  }

  async function keepPolygon(label) {
    const item = items[index], before = said(item), polygons = [...before.polygons, { label, ring: pending }];
    const told = await send("answer", { ...before, id: item.id, polygons });
    if (!told) return;
    state.answers[item.id] = told.answer;
    pending = null;
    paintDrawn();
    tell();
  }

  async function undo() {
    const told = await send("undo", {});
    if (!told || told.id === null) return;
    state.answers[told.id] = told.answer;
    const back = items.findIndex((item) => item.id == told.id);
    items.forEach(paint);
    go(back < 0 ? index : back);
  }

  function ended() {
    $("which").textContent = "All answered";
    $("reason").textContent = "Press Q to write the file and end, or look through them again with the arrows.";
    $("facts").textContent = "";
  }

  async function end() {
    if (!(await send("end", {}))) return;
    document.body.textContent = "The review is written. This page can be closed.";
    document.body.style.padding = "2em";
  }

  function close() {
    if (drawing.length < 3) return;
    pending = drawing;
    drawing = null;
    if (values) $("value").focus();
    paintDrawn();
    tell();
  }

  const draw = () => { if (kind == "sample") return; drawing = []; pending = null; paintDrawn(); tell(); };
  const step = () => { if (pending) pending = null; else if (drawing.length) drawing.pop(); else drawing = null; paintDrawn(); tell(); };
  const pick = (code) => {
    if (drawing && drawing.length >= 3) close();
    if (pending) keepPolygon(code); else if (!drawing) answer("class", code);
  };

  // Keys, and buttons that do the same.
  const digits = [..."123456789wertyiopfgjklasm"];  // letters that nothing else has
  const keyed = new Map(classes.map((entry, i) => [digits[i], entry.code]).filter(([key]) => key));
  function button(place, key, words, act, data = {}, colour = null) {
    const made = document.createElement("button"), sign = document.createElement("kbd");
    made.type = "button";
    sign.textContent = key;
    made.append(sign);
    if (colour) {
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      made.append(swatch);
    }
    made.append(words);
    Object.assign(made.dataset, data);
    made.addEventListener("click", () => { made.blur(); act(); });
    place.append(made);
  }
  if (kind == "regions") button($("choices"), "Space", "the map is right", () => answer("agree"), { word: "agree" });
  classes.forEach((entry, i) => button($("choices"), digits[i] || "", entry.name, () => pick(entry.code), { word: "class", label: entry.code }, entry.colour));
  button($("choices"), "U", "unsure", () => answer("unsure"), { word: "unsure" });
  if (kind == "regions") button($("choices"), "D", "draw corrected ground", draw);
  button($("choices"), "Z", "undo the last answer", undo);
  button($("choices"), "Q", "write the file and end", end);
  state.layers.forEach((name, i) => button($("layers"), "XCVBN"[i] || "", name, () => { layer = i; showLayer(); }));
  for (const text of ["← → before, next", "0 the whole", "+ − zoom", "H hide or show outlines"]) {
    const line = document.createElement("div");
    line.textContent = text;
    $("keys").append(line);
  }
  if (values) {
    $("number").hidden = false;
    $("unit").textContent = state.unit;
    $("value").addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key == "Escape") $("value").blur();
      if (event.key != "Enter" || !$("value").value) return;
      const number = Number($("value").value);
      $("value").blur();
      $("value").value = "";
      if (pending) keepPolygon(number); else answer("value", number);
    });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase(), shown = "xcvbn".indexOf(key);
    if (event.target instanceof HTMLButtonElement && (key == " " || key == "enter")) return;
    if (drawing && key == "enter") close();
    else if (key == "escape") { if (drawing || pending) step(); }
    else if (keyed.has(key)) pick(keyed.get(key));
    else if (drawing || pending) { if ("+-".includes(key)) map.zoomIn(key == "+" ? 1 : -1); else return; }
    else if (key == " " && kind == "regions") answer("agree");
    else if (key == "u") answer("unsure");
    else if (key == "d") draw();
    else if (key == "z" || key == "backspace") undo();
    else if (key == "q") end();
    else if (key == "arrowright") go(index + 1);
    else if (key == "arrowleft") go(index - 1);
    else if (key == "0") map.fitBounds(whole, { animate: false });
    else if (key == "+" || key == "=") map.zoomIn(1);
    else if (key == "-") map.zoomOut(1);
    else if (key == "h") { outlined = !outlined; shapes.forEach((s) => (outlined ? s.addTo(map) : s.remove())); items.forEach(paint); }
    else if (values && /^[0-9.]$/.test(key)) { $("value").focus(); return; }
    else if (shown >= 0 && shown < state.layers.length) { layer = shown; showLayer(); }
    else return;
    event.preventDefault();
  });
  map.on("click", (event) => {
    if (!drawing) return;
    drawing.push([event.latlng.lng, -event.latlng.lat]);
    paintDrawn();
    tell();
  });

  $("title").textContent = state.title;
  for (const [i, item] of items.entries()) {
    const shape = shapeOf(item).addTo(map);
    shapes.set(item.id, shape);
    shape.on("click", (event) => { if (!drawing) { L.DomEvent.stop(event); go(i, false); } });
  }
  casing.addTo(map);
  drawn.addTo(map);
  items.forEach(paint);
  const open = firstOpen(0);
  go(open < 0 ? 0 : open);
  if (open < 0) ended();
  document.body.dataset.ready = "yes";
})();
