// Where pixels lie: their coordinate system, degrees, areas.

/** @typedef {import("./types").Crs} Crs */
/** @typedef {import("./types").Place} Place */

const AXIS = 6378137; // WGS 84, m
const FLAT = 1 / 298.257223563;
const SQUARE = FLAT * (2 - FLAT); // of the eccentricity
const RAD = Math.PI / 180;

/**
 * The coordinate system by the file's keys; null where there is none.
 * @param {Record<string, any> | null} keys
 * @returns {Crs | null}
 */
export function crsOf(keys) {
  if (!keys || !(keys.GTModelTypeGeoKey === 1 || keys.GTModelTypeGeoKey === 2)) return null;
  if (keys.GTModelTypeGeoKey === 2) return { kind: "degrees" };
  const code = keys.ProjectedCSTypeGeoKey || 0;
  if (code === 3857) return { kind: "mercator" };
  const zone = zoneOf(code, keys.ProjectionGeoKey || 0);
  if (zone) {
    const north = zone < 0 ? 1e7 : 0;
    return { kind: "transverse", longitude: 6 * Math.abs(zone) - 183, latitude: 0, scale: 0.9996, east: 5e5, north };
  }
  if (![undefined, 9001].includes(keys.ProjLinearUnitsGeoKey)) return { kind: "other" };
  if (keys.ProjCoordTransGeoKey === 1 && !keys.ProjNatOriginLatGeoKey) {
    const [east, north] = [keys.ProjFalseEastingGeoKey || 0, keys.ProjFalseNorthingGeoKey || 0];
    const scale = keys.ProjScaleAtNatOriginGeoKey || 1;
    return { kind: "transverse", longitude: keys.ProjNatOriginLongGeoKey || 0, latitude: 0, scale, east, north };
  }
  return { kind: keys.ProjLinearUnitsGeoKey === 9001 ? "metres" : "other" };
}

/**
 * The UTM zone of EPSG codes of systems and of projections, below 0 in the south; 0 for others.
 * @param {number} system
 * @param {number} projection
 */
function zoneOf(system, projection) {
  if (system > 32600 && system <= 32660) return system - 32600;
  if (system > 32700 && system <= 32760) return 32700 - system;
  if (system >= 25828 && system <= 25838) return system - 25800;
  if (system >= 26901 && system <= 26923) return system - 26900;
  if (system !== 32767) return 0;
  if (projection > 16000 && projection <= 16060) return projection - 16000;
  return projection > 16100 && projection <= 16160 ? 16100 - projection : 0;
}

/**
 * Latitude and longitude of a point; null where this page does not know the way.
 * @param {Crs} crs
 * @param {number} x
 * @param {number} y
 * @returns {[number, number] | null}
 */
export function degrees(crs, x, y) {
  if (crs.kind === "degrees") return [y, x];
  if (crs.kind === "mercator") return [Math.atan(Math.sinh(y / AXIS)) / RAD, x / AXIS / RAD];
  if (crs.kind !== "transverse") return null;
  const n = FLAT / (2 - FLAT); // Krüger's series: Karney 2011, doi:10.1007/s00190-011-0445-3
  const radius = (AXIS / (1 + n)) * (1 + n ** 2 / 4 + n ** 4 / 64);
  const [xi, eta] = [(y - crs.north) / (crs.scale * radius), (x - crs.east) / (crs.scale * radius)];
  const beta = [n / 2 - (2 / 3) * n ** 2 + (37 / 96) * n ** 3, n ** 2 / 48 + n ** 3 / 15, (17 / 480) * n ** 3];
  const delta = [2 * n - (2 / 3) * n ** 2 - 2 * n ** 3, (7 / 3) * n ** 2 - (8 / 5) * n ** 3, (56 / 15) * n ** 3];
  let [a, b] = [xi, eta];
  beta.forEach((factor, i) => {
    a -= factor * Math.sin(2 * (i + 1) * xi) * Math.cosh(2 * (i + 1) * eta);
    b -= factor * Math.cos(2 * (i + 1) * xi) * Math.sinh(2 * (i + 1) * eta);
  });
  const chi = Math.asin(Math.sin(a) / Math.cosh(b));
  const latitude = delta.reduce((sum, factor, i) => sum + factor * Math.sin(2 * (i + 1) * chi), chi);
  return [latitude / RAD, crs.longitude + Math.atan2(Math.sinh(b), Math.cos(a)) / RAD];
}

/**
 * Coordinates of a point in pixels from the upper left corner.
 * @param {number[]} affine a b c d e f
 * @param {number} column
 * @param {number} row
 */
export function point(affine, column, row) {
  const [a, b, c, d, e, f] = affine;
  return [a * column + b * row + c, d * column + e * row + f];
}

/**
 * Hectares of a pixel of each row, in its middle column; null where they are not known.
 * @param {Place} place
 * @param {number} width
 */
export function hectares(place, width) {
  const { affine, crs } = place;
  if (!affine || !crs || crs.kind === "other") return null;
  const area = Math.abs(affine[0] * affine[4] - affine[1] * affine[3]) / 1e4;
  return (/** @type {number} */ row) => {
    const [x, y] = point(affine, width / 2, row + 0.5);
    if (crs.kind === "metres" || crs.kind === "transverse") return area; // right to a thousandth within a UTM zone
    const at = degrees(crs, x, y);
    const [sine, cosine] = at ? [Math.sin(at[0] * RAD), Math.cos(at[0] * RAD)] : [0, 1];
    const curve = 1 - SQUARE * sine ** 2; // radii of curvature: AXIS (1 - SQUARE) / curve^1.5 and AXIS / sqrt(curve)
    const ground = ((1 - SQUARE) / curve ** 2) * cosine;
    return crs.kind === "degrees" ? area * (AXIS * RAD) ** 2 * ground : area * ground * cosine;
  };
}
