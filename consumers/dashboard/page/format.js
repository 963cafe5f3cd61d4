// Numbers for people, always with what they are counted in.

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 });

/** A count: all digits while they can be read, then the first four. */
function count(value) {
  return value < 1e6 ? grouped.format(value) : compact.format(value);
}

/** A rate: tenths while they matter. */
function rate(value) {
  return value > 0 && value < 10 ? value.toFixed(1) : count(value);
}

/** Bytes in powers of 1,000. */
function bytes(value) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit > 0 && value < 99.5 ? 1 : 0;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** A duration given in milliseconds, as a figure and its unit. */
function duration(ms) {
  if (ms === null || ms === undefined) return ['–', ''];
  if (ms < 9.95) return [ms.toFixed(1), 'ms'];
  if (ms < 999.5) return [ms.toFixed(0), 'ms'];
  if (ms < 59950) return [(ms / 1000).toFixed(1), 's'];
  return [(ms / 60000).toFixed(1), 'min'];
}

/** A span of time given in seconds. */
function span(seconds) {
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
}

/** A time of day. */
function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour12: false });
}
