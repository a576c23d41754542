// A click on the map colours every token by how much it resembles the one under the click.
// data: numbers (token of each pixel, uint16, 65535 for none) and vectors (int8, unit length is 127), base64;
// width, height of the pixels, size of a vector, corners, ramp (colours from -1 to 1), start [lat, lon].
function earthtuneSimilarity(map, data) {
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const numbers = new Uint16Array(bytes(data.numbers));
  const vectors = new Int8Array(bytes(data.vectors));
  const canvas = document.createElement("canvas");
  canvas.width = data.width;
  canvas.height = data.height;
  const pen = canvas.getContext("2d");
  const overlay = L.imageOverlay("", data.corners).addTo(map);
  const mark = L.circleMarker(data.start, { radius: 7, weight: 3, color: "#fff", fillColor: "#000", fillOpacity: 1 });
  const [low, high] = data.corners.map((corner) => L.CRS.EPSG3857.project(L.latLng(corner)));

  function numberAt(place) {
    const point = L.CRS.EPSG3857.project(place);
    const column = Math.floor(((point.x - low.x) / (high.x - low.x)) * data.width);
    const row = Math.floor(((high.y - point.y) / (high.y - low.y)) * data.height);
    const inside = column >= 0 && column < data.width && row >= 0 && row < data.height;
    return inside ? numbers[row * data.width + column] : 65535;
  }

  function cosine(a, b) {
    let product = 0, one = 0, two = 0;
    for (let k = 0; k < data.size; k++) {
      const x = vectors[a * data.size + k], y = vectors[b * data.size + k];
      product += x * y;
      one += x * x;
      two += y * y;
    }
    return product / Math.sqrt(one * two || 1);
  }

  function show(place) {
    const chosen = numberAt(place);
    if (chosen === 65535) return;
    const colours = Array.from({ length: vectors.length / data.size }, (_, other) => {
      return data.ramp[Math.round((cosine(chosen, other) + 1) / 2 * (data.ramp.length - 1))];
    });
    const image = pen.createImageData(data.width, data.height);
    numbers.forEach((number, pixel) => {
      if (number !== 65535) image.data.set(colours[number], 4 * pixel);
    });
    pen.putImageData(image, 0, 0);
    overlay.setUrl(canvas.toDataURL());
    mark.setLatLng(place).addTo(map);
  }

  map.on("click", (event) => show(event.latlng));
  show(L.latLng(data.start));
  return overlay;
}
