// What the bands of a file are called, and the day that it is of.

import { Refused } from "./refused.js";

/** @typedef {import("./types").Site} Site */

const LENGTH = /[([]?\s*\d+(?:\.\d+)?\s*(?:nm|nanometers?|[uµ]m|micrometers?)\s*[)\]]?/gi;
const NUMBERED = /^\s*(?:b|band)[ _]?\d{1,2}a?\s*[ _\-:(]+\s*([a-z].*?)\)?\s*$/i;
const CODE = /^(?:\d+_|\w*\d{8}\w*_)?(?:sr[ _.-]?)?(?:b|band)[ _.-]?0?(\d{1,2})(a?)(?:_\d+)?$/i;
const DATES = [
  /(?<!\d)((?:19|20)\d{2})[-_](\d{2})[-_](\d{2})(?!\d)/g,
  /(?<!\d)((?:19|20)\d{2})(\d{2})(\d{2})(?!\d)/g,
  /(?<!\d)((?:19|20)\d{2})(\d{3})(?!\d)/g,
];

/** @param {string} text */
const plain = (text) => text.toLowerCase().replace(/[^a-z0-9]/g, "");

/**
 * 'B2', 'Band 8A' and 'SR_B4' as 'B02', 'B8A' and 'B04'.
 * @param {string} text
 */
function bandCode(text) {
  const parts = CODE.exec(text.trim());
  return parts && (parts[2] ? `B${parts[1]}A` : `B${String(Number(parts[1])).padStart(2, "0")}`);
}

/**
 * The band, or the cloud layer, that a text such as 'NIR narrow' or 'B02 - Blue' names.
 * @param {string} text
 * @param {Site} site
 * @returns {string | null}
 */
function bandName(text, site) {
  const short = text.replace(LENGTH, "");
  const parts = NUMBERED.exec(short);
  const wanted = [plain(short), ...(parts ? [plain(parts[1])] : [])];
  for (const alias of wanted) {
    const found = Object.entries(site.names).find(([, aliases]) => aliases.includes(alias));
    if (found) return found[0];
  }
  return null;
}

/**
 * The name of each band of a file: as told, else by its description, else as in training.
 * @param {string} file
 * @param {string[]} descriptions
 * @param {Site} site
 * @param {string} told names by commas, or nothing
 * @returns {(string | null)[]}
 */
export function namesOf(file, descriptions, site, told) {
  const texts = told ? told.split(",") : descriptions;
  if (texts.length !== descriptions.length) {
    throw new Refused(
      `${file}: it has ${descriptions.length} bands, ${texts.length} names were given; name each band once.`,
    );
  }
  const codes = texts.map(bandCode);
  const table = codes.includes("B8A") || codes.includes("B12") ? site.codes : {};
  const names = texts.map((text, i) => (codes[i] ? table[codes[i]] || null : bandName(text, site)));
  const infrared = ["NIR_NARROW", "NIR_BROAD"];
  const asked = infrared.filter((name) => site.bands.some((band) => band.name === name));
  const alone = asked.length === 1 && !names.some((name) => name && infrared.includes(name));
  const trained = site.reading.bands;
  if (!names.some(Boolean) && trained.length === texts.length)
    return trained.map((text) => bandName(text, site) || text);
  return names.map((name) => (name === "NIR" && alone ? asked[0] : name));
}

/**
 * Which band of the file each wanted band is.
 * @param {string} file
 * @param {(string | null)[]} names
 * @param {Site} site
 */
export function placesOf(file, names, site) {
  return site.bands.map(({ name }) => {
    const place = names.indexOf(name);
    if (place >= 0) return place;
    const had = names.filter(Boolean).join(", ");
    const wanted = site.bands.map((band) => band.name).join(", ");
    throw new Refused(
      had
        ? `${file}: band ${name} is wanted, it has ${had}; the model wants ${wanted}.`
        : `${file}: nothing names its ${names.length} bands and the model wants ${wanted}; ` +
            "write the names of all its bands, in the order of the file, under “How the file is read”.",
    );
  });
}

/**
 * The first day in texts: 2021-07-05, 20210705, or year and day 2021186.
 * @param {string[]} texts
 */
export function dateOf(texts) {
  for (const text of texts) {
    const found = DATES.flatMap((pattern) => [...text.matchAll(pattern)]).sort(
      (a, b) => (a.index || 0) - (b.index || 0),
    );
    for (const [, year, month, day] of found) {
      const date = day ? new Date(Date.UTC(+year, +month - 1, +day)) : new Date(Date.UTC(+year, 0, +month));
      const same = day
        ? date.getUTCMonth() === +month - 1 && date.getUTCDate() === +day
        : date.getUTCFullYear() === +year;
      if (same && +month > 0 && +year >= 1970) return date;
    }
  }
  return null;
}
