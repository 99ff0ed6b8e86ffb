/** Figures and names as a person reads them. */

const threeDigits = (number) => (number >= 999.5 ? Math.round(number).toLocaleString("en") : String(Number(number.toPrecision(3))));

/** A size to three digits: `1.5 MB`. @param {number|bigint} count */
export function bytesText(count) {
  let number = Number(count);
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (number < 999.5) return `${threeDigits(number)} ${unit}`;
    number /= 1000;
  }
  return `${threeDigits(number)} TB`;
}

/** A share to three digits: `0.64 %`. */
export const percentText = (share) => (share === 0 ? "0 %" : `${threeDigits(100 * share)} %`);

export const countText = (count) => Number(count).toLocaleString("en", { maximumFractionDigits: 0 });

/** `1 version`, `3 versions`. */
export const counted = (count, noun) => `${countText(count)} ${noun}${Number(count) === 1 ? "" : "s"}`;

/** A time of day in UTC to the minute; what is none stays as it is. */
export function timeText(time) {
  const date = new Date(time.replace(":60", ":59"));
  return Number.isNaN(date.getTime()) ? time : `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

export function secondsText(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${threeDigits(seconds / 3600)} h`;
}

/** The order of names in which `layers.2` comes before `layers.10`. */
export function natural(a, b) {
  const [left, right] = [a.split(/(\d+)/), b.split(/(\d+)/)];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const order = i % 2 === 1 ? Number(left[i]) - Number(right[i]) : (left[i] > right[i]) - (left[i] < right[i]);
    if (order !== 0) return order;
  }
  return left.length - right.length || (a > b) - (a < b);
}

/** The layer that a tensor belongs to: its name up to the first number that is a segment; else the name itself. */
export const layerOf = (name) => /^.*?(?:^|\.)\d+(?=\.)/.exec(name)?.[0] ?? name;
