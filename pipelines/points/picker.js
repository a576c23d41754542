// Clicks on a map put points with a class; the panel holds them as the CSV that `earthtune points` takes.
// data: classes [{said, colour}]; points [lon, lat, index of the class, or -1 for a ring that waits for one].
function earthtunePicker(map, data) {
  const marks = [], buttons = [];
  let chosen = 0;
  const add = (parent, tag, about) => parent.appendChild(Object.assign(document.createElement(tag), about));
  const panel = document.createElement("div");
  panel.className = "picker";
  panel.style.cssText = "background:#fff;color:#1a1a1a;padding:8px 12px;border-radius:4px;font:13px/1.6 sans-serif;" +
    "box-shadow:0 1px 4px rgba(0,0,0,.4);width:220px";
  add(panel, "b", { textContent: "Key or button, then click" });
  const list = add(panel, "div", {});
  list.style.cssText = "max-height:140px;overflow-y:auto";
  data.classes.forEach(({ said, colour }, index) => {
    const button = add(list, "button", { type: "button", onclick: () => choose(index) });
    button.style.cssText = `display:block;width:100%;text-align:left;font:inherit;color:inherit;background:none;
      border:2px solid transparent;border-left:14px solid ${colour};overflow-wrap:anywhere`;
    button.textContent = index < 9 ? `${index + 1} ${said}` : said;
    buttons.push(button);
  });
  const text = add(panel, "textarea", { readOnly: true, rows: 4, onfocus: () => text.select() });
  text.setAttribute("aria-label", "points as CSV");
  text.style.cssText = "width:100%;box-sizing:border-box;font:11px monospace";
  const link = add(panel, "a", { download: "labels.csv" });

  function choose(index) {
    chosen = index;
    buttons.forEach((button, other) => {
      button.style.borderColor = other === index ? "#1a1a1a" : "transparent";
      button.style.borderLeftColor = data.classes[other].colour;
      button.setAttribute("aria-pressed", other === index);
    });
  }

  function tell() {
    const quoted = (name) => (/[",\r\n]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name);
    const rows = marks.filter((mark) => mark.of >= 0).map((mark) => {
      const { lat, lng } = mark.getLatLng().wrap();
      return `${+lng.toFixed(7)},${+lat.toFixed(7)},${quoted(data.classes[mark.of].said)}`;
    });
    text.value = ["lon,lat,class", ...rows, ""].join("\n");
    text.scrollTop = text.scrollHeight;
    link.href = "data:text/csv;charset=utf-8," + encodeURIComponent(text.value);
    link.textContent = `save labels.csv (${rows.length} points)`;
  }

  function paint(mark, of) {
    mark.of = of;
    const fill = of < 0 ? { fillOpacity: 0.15, fillColor: "#fff" } : { fillOpacity: 1, fillColor: data.classes[of].colour };
    mark.setStyle(fill);
  }

  function put(place, of) {
    const asked = of < 0; // a ring stays
    const mark = L.circleMarker(place, { radius: 7, weight: 2, color: "#fff", bubblingMouseEvents: false }).addTo(map);
    marks.push(mark);
    paint(mark, of);
    mark.on("click", (event) => {
      if (event.originalEvent.detail > 1) return;
      if (mark.of < 0) paint(mark, chosen);
      else if (asked) paint(mark, -1);
      else marks.splice(marks.indexOf(mark.remove()), 1);
      tell();
    });
  }

  const bounds = L.latLngBounds([]);
  map.eachLayer((layer) => layer instanceof L.ImageOverlay && bounds.extend(layer.getBounds()));
  const middle = bounds.getCenter().lng;
  data.points.forEach(([lon, lat, of]) => put([lat, lon + 360 * Math.round((middle - lon) / 360)], of));
  map.doubleClickZoom.disable();
  map.on("click", (event) => {
    if (event.originalEvent.detail > 1 || !bounds.contains(event.latlng)) return;
    put(event.latlng, chosen);
    tell();
  });
  document.addEventListener("keydown", (event) => {
    if (data.classes[event.key - 1] && !(event.ctrlKey || event.altKey || event.metaKey)) choose(event.key - 1);
  });
  const control = L.control({ position: "bottomright" });
  control.onAdd = () => panel;
  control.addTo(map);
  L.DomEvent.disableClickPropagation(panel);
  L.DomEvent.disableScrollPropagation(panel);
  choose(0);
  tell();
}
