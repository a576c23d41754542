// The map of a notebook: what is seen and clicked. Pictures, places and what was put come from the kernel, over `model`;
// text of files is only ever text. All lengths are pixels of the map (column, row) but where they say screen.
const MARGIN = 0.2; // of the window, on each side, is asked for, too
const SHARPEST = 2; // pixels of a picture to one of the screen
const PATIENCE = 20000; // milliseconds until a question that nobody answered is asked again
const NEAR = 9; // screen pixels around a point or corner that is meant
const TOOLS = { look: "Look", point: "Points", polygon: "Correct" };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function make(parent, tag, about = {}, marks = {}) {
  const made = Object.assign(document.createElement(tag), about);
  for (const [name, value] of Object.entries(marks)) made.setAttribute(name, value);
  return parent.appendChild(made);
}

function render({ model, el }) {
  const me = Math.random().toString(36).slice(2), ends = [];
  const outer = make(el, "div", { className: "earthtune-map" }, { "data-lm-suppress-shortcuts": "true" });
  const root = make(outer, "div", { className: "both" }); // narrow or wide by the outer's width
  const stage = make(root, "div", { className: "stage" });
  const help = "Map. Arrows move, plus and minus zoom, 0 shows all, space puts a point or corner in the middle, " +
    "enter closes a polygon, escape drops it, u takes back, digits choose a class.";
  const canvas = make(stage, "canvas", { tabIndex: 0 }, { role: "application", "aria-label": help });
  const bar = make(stage, "div", { className: "bar" });
  const side = make(root, "div", { className: "side" });
  const line = make(root, "div", { className: "line" }), where = make(line, "span", { className: "where" });
  const trouble = make(line, "span", { className: "trouble" }, { role: "status" });
  const pen = canvas.getContext("2d");
  const [columns, rows] = model.get("_size");
  let view = null; // {column, row} of the middle, and screen pixels to one
  let tool = "look", chosen = 0, corners = [], pointer = null, metres = null, waiting = 0, since = 0, later = 0;
  const pictures = model.get("layers").map(() => ({})); // {all, now}: {image, box, shape} each

  const button = (parent, text, label, act) =>
    Object.assign(make(parent, "button", { type: "button", textContent: text, title: label }, { "aria-label": label }), { onclick: act });
  const zooms = make(stage, "div", { className: "zooms" });
  button(zooms, "+", "zoom in", () => zoom(2));
  button(zooms, "−", "zoom out", () => zoom(0.5));
  button(zooms, "□", "show all", () => fit());

  // ---- the window

  const wide = () => canvas.clientWidth, high = () => canvas.clientHeight;
  const onScreen = ([column, row]) => [(column - view.column) * view.scale + wide() / 2, (row - view.row) * view.scale + high() / 2];
  const onMap = ([x, y]) => [(x - wide() / 2) / view.scale + view.column, (y - high() / 2) / view.scale + view.row];
  const smallest = () => Math.min(wide() / columns, high() / rows);

  function fit() {
    view = { column: columns / 2, row: rows / 2, scale: smallest() };
    moved();
  }

  function zoom(times, at = middle()) {
    const [column, row] = onMap(at);
    view.scale = clamp(view.scale * times, smallest() / 2, 64);
    view.column = column - (at[0] - wide() / 2) / view.scale;
    view.row = row - (at[1] - high() / 2) / view.scale;
    moved();
  }

  function pan(x, y) { // screen pixels
    view = { ...view, column: view.column + x / view.scale, row: view.row + y / view.scale };
    moved();
  }

  function moved() {
    view.column = clamp(view.column, 0, columns);
    view.row = clamp(view.row, 0, rows);
    draw();
    clearTimeout(later);
    later = setTimeout(ask, 120);
  }

  function part(margin) { // what of the map is seen: [top, left, bottom, right], whole pixels
    const [left, top] = onMap([-margin * wide(), -margin * high()]);
    const [right, bottom] = onMap([(1 + margin) * wide(), (1 + margin) * high()]);
    return [clamp(Math.floor(top), 0, rows - 1), clamp(Math.floor(left), 0, columns - 1),
      clamp(Math.ceil(bottom), 1, rows), clamp(Math.ceil(right), 1, columns)];
  }

  function ask() { // for the pictures that lack, once all that were asked for are there
    if (!view || (waiting > 0 && Date.now() - since < PATIENCE)) return;
    waiting = 0;
    const fine = view.scale * Math.min(devicePixelRatio || 1, SHARPEST), seen = part(0), box = part(MARGIN);
    const size = (from, to) => clamp(Math.ceil((to - from) * Math.min(fine, 1)), 1, 4096);
    const shape = [size(box[0], box[2]), size(box[1], box[3])];
    model.get("layers").forEach((layer, number) => {
      const have = pictures[number].now;
      if (!layer.visible || (have && covers(have, seen, Math.min(fine, 1)))) return;
      waiting += 1;
      since = Date.now();
      model.send({ kind: "picture", to: me, layer: number, box, shape });
    });
    root.classList.toggle("busy", waiting > 0);
  }

  function covers({ box, shape }, seen, fine) {
    const sharp = shape[1] / (box[3] - box[1]);
    return box[0] <= seen[0] && box[1] <= seen[1] && box[2] >= seen[2] && box[3] >= seen[3] && sharp >= 0.9 * fine && sharp <= 2.5 * fine;
  }

  // ---- drawing

  const named = model.get("classes");
  const colour = (name) => named.find((one) => one.name === name)?.colour ?? "#888888";

  function draw() {
    if (!view || !wide()) return;
    const dense = devicePixelRatio || 1;
    if (canvas.width !== Math.round(wide() * dense) || canvas.height !== Math.round(high() * dense))
      Object.assign(canvas, { width: Math.round(wide() * dense), height: Math.round(high() * dense) });
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, wide(), high());
    pen.imageSmoothingEnabled = view.scale < 1;
    model.get("layers").forEach((layer, number) => {
      const { all, now } = pictures[number];
      pen.globalAlpha = layer.opacity;
      if (!layer.visible || !now) return;
      if (all && all !== now) { // around what is sharp
        pen.save();
        pen.beginPath();
        pen.rect(0, 0, wide(), high());
        pen.rect(...frame(now.box));
        pen.clip("evenodd");
        pen.drawImage(all.image, ...frame(all.box));
        pen.restore();
      }
      pen.drawImage(now.image, ...frame(now.box));
    });
    pen.globalAlpha = 1;
    model.get("corrections").forEach((one, n) => outline(model.get("_rings")[n] ?? [], colour(one.class), true));
    if (corners.length) outline([...corners, ...(pointer ? [onMap(pointer)] : [])], named[chosen].colour, false);
    model.get("points").forEach((one, n) => dot(model.get("_marks")[n], colour(one.class), 6));
    corners.forEach((corner) => dot(corner, named[chosen].colour, 4));
    if (canvas.matches(":focus-visible") && tool !== "look") { // a cross where the keyboard puts
      pen.beginPath();
      for (const [x, y] of [[9, 0], [0, 9]]) [1, -1].forEach((to) => pen[to > 0 ? "moveTo" : "lineTo"](wide() / 2 + to * x, high() / 2 + to * y));
      stroke("#000", "#fff");
    }
    scaleBar();
  }

  function frame([top, left, bottom, right]) { // on the screen, on whole pixels, so that no seam shows
    const [x, y] = onScreen([left, top]).map(Math.round), [to, down] = onScreen([right, bottom]).map(Math.round);
    return [x, y, Math.max(to - x, 1), Math.max(down - y, 1)];
  }

  function outline(ring, colour, closed) {
    pen.beginPath();
    ring.forEach((corner, n) => (n ? pen.lineTo(...onScreen(corner)) : pen.moveTo(...onScreen(corner))));
    if (closed) pen.closePath();
    pen.fillStyle = `${colour}59`; // opacity of a third
    if (closed) pen.fill();
    stroke("#fff", colour);
  }

  function dot(place, colour, radius) {
    if (!place) return;
    pen.beginPath();
    pen.arc(...onScreen(place), radius, 0, 2 * Math.PI);
    stroke("#000", "#fff");
    pen.fillStyle = colour;
    pen.fill();
  }

  function stroke(behind, before) { // seen on any ground
    [behind, before].forEach((strokeStyle, n) => Object.assign(pen, { strokeStyle, lineWidth: 4 - 2 * n }).stroke());
  }

  function scaleBar() {
    bar.hidden = !metres;
    if (!metres) return;
    const most = (metres / view.scale) * 120, power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((step) => step * power).find((step) => step <= most);
    bar.textContent = length >= 1000 ? `${length / 1000} km` : `${+length.toPrecision(2)} m`;
    bar.style.width = `${(length / metres) * view.scale}px`;
  }

  // ---- the panel

  const chooser = make(side, "div", { className: "row" }, { role: "group", "aria-label": "what a click does" });
  const tools = Object.keys(TOOLS).map((name) => button(chooser, TOOLS[name], TOOLS[name], () => use(name)));
  button(chooser, "Undo", "undo the last change", undo);
  const classRow = make(side, "label", { className: "row" });
  const swatch = make(classRow, "span", { className: "swatch" });
  const select = make(classRow, "select", { onchange: () => choose(select.selectedIndex) }, { "aria-label": "class" });
  named.forEach((one, n) => make(select, "option", { textContent: n < 9 ? `${n + 1} ${one.name}` : one.name }));
  const hint = make(side, "p", { className: "hint" });
  const made = make(side, "ol", { className: "made" }, { "aria-label": "points and corrections" });
  const told = model.get("layers").map((layer, number) => ({ number, ...row(layer, number) })).reverse();
  told.forEach(({ item }) => side.append(item)); // the topmost first

  function row(layer, number) {
    const item = make(side, "div", { className: "layer" });
    const head = make(item, "label", { className: "row" });
    const tick = make(head, "input", { type: "checkbox", onchange: () => set(number, { visible: tick.checked }) });
    make(head, "span", { textContent: layer.name, className: "name", title: layer.name });
    const slide = make(item, "input", { type: "range", min: 0, max: 100, oninput: () => set(number, { opacity: slide.value / 100 }) },
      { "aria-label": `opacity of ${layer.name}` });
    const value = make(item, "div", { className: "value" });
    const { classes, ramp, low, high, note } = layer.legend, key = make(item, "div", { className: "key" });
    for (const one of classes ?? []) {
      const entry = make(key, "div", { className: "row" });
      make(entry, "span", { className: "swatch" }).style.background = one.colour;
      make(entry, "span", { textContent: one.name });
    }
    if (ramp) {
      make(key, "div", { className: "ramp" }).style.background = `linear-gradient(to right, ${ramp.join(", ")})`;
      const line = make(key, "div", { className: "row apart" });
      for (const text of [`≤ ${low}`, note, `≥ ${high}`]) make(line, "span", { textContent: text });
    } else if (note) make(key, "div", { textContent: note });
    return { item, tick, slide, value };
  }

  function set(number, about) {
    model.set("layers", model.get("layers").map((layer, n) => (n === number ? { ...layer, ...about } : layer)));
    model.save_changes();
  }

  const can = (name) => name === "look" || (named.length > 0 && (name === "point" || model.get("_map") !== ""));

  const shown = () => { panel(); draw(); };
  const use = (name) => { [tool, corners] = [name, []]; shown(); };
  const choose = (index) => { if (named[index]) chosen = index; shown(); };

  function panel() {
    const layers = model.get("layers"), map = model.get("_map");
    told.forEach(({ number, tick, slide, item }) => {
      tick.checked = layers[number].visible;
      slide.value = layers[number].opacity * 100;
      item.classList.toggle("off", !layers[number].visible);
    });
    Object.keys(TOOLS).forEach((name, n) => {
      tools[n].setAttribute("aria-pressed", name === tool);
      tools[n].disabled = !can(name);
    });
    classRow.hidden = tool === "look";
    select.selectedIndex = chosen;
    swatch.style.background = named[chosen]?.colour ?? "none";
    hint.textContent = !named.length ? "To put points, name classes: explore(..., classes=[...])."
      : { look: "Drag to move, wheel to zoom.", point: "A click puts a point; on a point it takes it away.",
        polygon: `Click corners over ${map}; double-click or enter closes.` }[tool];
    made.replaceChildren();
    for (const of of ["corrections", "points"]) model.get(of).slice(-200).forEach((one, n, some) => {
      const index = model.get(of).length - some.length + n, entry = make(made, "li", { className: "row" });
      make(entry, "span", { className: "swatch" }).style.background = colour(one.class);
      const place = of === "points" ? `${one.lon.toFixed(4)}, ${one.lat.toFixed(4)}` : `${one.ring.length} corners`;
      make(entry, "span", { textContent: `${one.class} · ${place}`, className: "name" });
      button(entry, "×", `remove ${one.class} ${place}`, () => model.send({ kind: "remove", to: me, of, index }));
    });
    made.hidden = !made.childElementCount;
  }

  // ---- pointer and keys

  const spot = (event) => [event.offsetX, event.offsetY], middle = () => [wide() / 2, high() / 2];
  const inside = ([column, row]) => column >= 0 && row >= 0 && column < columns && row < rows;
  const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  let held = null; // the pointer that is pressed: where it is, where it began, whether it moved
  let asked = null, next = null; // when a value was asked for, and where the next is

  function tell(at) { // the values there: one question at a time, the latest next
    next = onMap(at);
    if (asked !== null && Date.now() - asked < PATIENCE) return;
    asked = Date.now();
    model.send({ kind: "value", to: me, at: next });
    next = null;
  }

  function press(at) {
    tell(at);
    if (tool === "point") {
      const index = model.get("_marks").findIndex((mark) => apart(onScreen(mark), at) < NEAR);
      if (index >= 0) model.send({ kind: "remove", to: me, of: "points", index });
      else if (inside(onMap(at))) model.send({ kind: "put", to: me, at: onMap(at), of: chosen });
    } else if (tool === "polygon") {
      if (corners.length > 2 && apart(onScreen(corners[0]), at) < NEAR) return close();
      if (!corners.length || apart(onScreen(corners.at(-1)), at) > 2) corners.push(onMap(at));
      draw();
    }
  }

  function close() {
    if (corners.length > 2) model.send({ kind: "draw", to: me, ring: corners, of: chosen });
    corners = [];
    draw();
  }

  function undo() {
    if (!corners.pop()) model.send({ kind: "undo", to: me });
    draw();
  }

  canvas.onpointerdown = (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    held = { at: spot(event), from: spot(event), moved: false };
  };
  canvas.onpointermove = (event) => {
    pointer = spot(event);
    if (!held) {
      tell(pointer);
      if (corners.length) draw();
      return;
    }
    held.moved ||= apart(pointer, held.from) > 4;
    if (held.moved) pan(held.at[0] - pointer[0], held.at[1] - pointer[1]);
    held.at = pointer;
  };
  canvas.onpointerup = () => {
    if (held && !held.moved) press(held.at);
    held = null;
  };
  canvas.onpointercancel = () => (held = null);
  canvas.onpointerleave = () => (pointer = null);
  canvas.ondblclick = () => tool === "polygon" && close();
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(2 ** clamp(-event.deltaY / (event.deltaMode ? 6 : 200), -1, 1), spot(event));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => pan(-64, 0), ArrowRight: () => pan(64, 0), ArrowUp: () => pan(0, -64), ArrowDown: () => pan(0, 64),
    "+": () => zoom(2), "=": () => zoom(2), "-": () => zoom(0.5), 0: fit, u: undo, Backspace: undo, Enter: close,
    Escape: () => { corners = []; draw(); }, " ": () => press(middle()),
  };
  canvas.onkeydown = (event) => {
    const control = event.ctrlKey || event.metaKey || event.altKey;
    const run = control ? event.key === "z" && undo : keys[event.key] ?? (/^[1-9]$/.test(event.key) && (() => choose(event.key - 1)));
    if (!run) return;
    event.preventDefault();
    event.stopPropagation();
    run();
  };
  canvas.onfocus = canvas.onblur = draw;

  // ---- what the kernel says

  async function hear(said, buffers) {
    if (said.to !== me && said.to !== null) return;
    if (said.kind === "error") Object.assign(trouble, { textContent: said.text, of: said.of });
    else if (said.kind === trouble.of) trouble.textContent = "";
    if (said.kind === "value") {
      const degrees = (value, signs) => `${Math.abs(value).toFixed(5)}° ${signs[+(value < 0)]}`;
      where.textContent = said.degrees ? `${degrees(said.degrees[1], "NS")}, ${degrees(said.degrees[0], "EW")}` : "";
      told.forEach(({ number, value }) => (value.textContent = said.values[number]));
    }
    const of = said.kind === "error" ? said.of : said.kind; // what was answered
    if (of === "value") {
      asked = null;
      if (next) tell(onScreen(next));
    }
    if (said.kind === "picture") {
      const picture = { image: await createImageBitmap(new Blob([buffers[0]], { type: "image/png" })), box: said.box, shape: said.shape };
      pictures[said.layer].now = picture;
      if (String(said.box) === String([0, 0, rows, columns])) pictures[said.layer].all = picture;
      metres = said.metres;
      draw();
    }
    if (of === "picture") {
      waiting -= 1;
      if (waiting <= 0 && said.kind === "picture") ask();
      root.classList.toggle("busy", waiting > 0);
    }
  }

  const listen = (name, act) => {
    model.on(name, act);
    ends.push(() => model.off(name, act));
  };
  listen("msg:custom", hear);
  for (const name of ["points", "corrections", "_marks", "_rings"]) listen(`change:${name}`, () => { trouble.textContent = ""; shown(); });
  listen("change:layers", () => { shown(); ask(); });
  const sizes = new ResizeObserver(() => wide() && (view ? moved() : fit()));
  sizes.observe(canvas);
  ends.push(() => { sizes.disconnect(); clearTimeout(later); });
  use("look");
  return () => ends.forEach((end) => end());
}

export default { render };
