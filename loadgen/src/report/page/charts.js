// Draws the charts that the report holds as data, as SVG. Colours come from the style sheet, which follows the system's light
// or dark. It is this much and no library, so that a report is small enough to be kept and sent by the hundred.
'use strict';

const charts = JSON.parse(document.getElementById('charts-data').textContent);
const MARGIN = { left: 62, right: 16, top: 12, bottom: 44 };
const LABEL_WIDTH = 62;

function svg(name, attributes, parent, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function html(name, className, parent, text) {
  const element = document.createElement(name);
  element.className = className;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

// ------------------------------------------------------------------------------------------------------------- numbers

const SI = [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, '']];

/** With so many digits, in thousands: 12.3M. */
function si(value, digits) {
  const [size, letter] = SI.find(([size]) => Math.abs(value) >= size) ?? [1, ''];
  return `${Number((value / size).toPrecision(digits))}${letter}`;
}

/** What an axis says at a tick. */
function tickText(axis, value) {
  if (axis.unit === 'B') return `${si(value, 3)}B`;
  return Math.abs(value) >= 1e4 ? si(value, 4) : Number(value.toPrecision(4)).toLocaleString('en', { maximumFractionDigits: 6 });
}

/** What the pointer shows of a value. */
function exact(axis, value) {
  if (axis.unit === 'B') return `${si(value, 4)}B`;
  return `${Number(value.toPrecision(6)).toLocaleString('en', { maximumFractionDigits: 6 })} ${axis.unit}`.trim();
}

/** `1 / (1 - quantile)` as the percentage that people know. */
const PERCENT = [[2, '50'], [10, '90'], [100, '99'], [1000, '99.9'], [10000, '99.99'], [100000, '99.999']];

function percent(x) {
  return (100 - 100 / x).toFixed(Math.max(0, Math.ceil(Math.log10(x)) - 1));
}

// -------------------------------------------------------------------------------------------------------------- scales

/** From zero to a round number; about so many ticks. */
function linear(values, count) {
  const most = Math.max(...values, 0) || 1;
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const ticks = Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, index) => index * step);
  return { of: (value) => value / (most * 1.04), ticks };
}

/** Powers of ten, and 2 and 5 of each when there are few. */
function logarithmic(values) {
  const low = Math.log10(Math.min(...values)) - 0.08;
  const high = Math.log10(Math.max(...values)) + 0.08;
  const steps = high - low > 2.6 ? [1] : high - low > 1.1 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    for (const step of steps) ticks.push(Number((step * 10 ** power).toPrecision(3)));
  }
  const of = (value) => (Math.log10(value) - low) / (high - low);
  return { of, ticks: ticks.filter((tick) => of(tick) >= 0 && of(tick) <= 1) };
}

/** Where a value is, as a part of the axis from 0 to 1; and what stands at which places. */
function scaleOf(axis, values, room) {
  const numbers = values.filter((value) => typeof value === 'number' && (axis.scale === 'linear' || value > 0));
  switch (axis.scale) {
    case 'log': {
      const { of, ticks } = logarithmic(numbers.length > 0 ? numbers : [1]);
      return { of, ticks: ticks.map((tick) => [of(tick), tickText(axis, tick)]) };
    }
    case 'quantile': {
      const to = Math.max(1, ...numbers.map(Math.log10)) + 0.08;
      const of = (value) => (Math.log10(value) - 0.25) / (to - 0.25);
      // Where the axis is short, every second one.
      const each = room / (to - 0.25) < 46 ? 2 : 1;
      const ticks = PERCENT.filter(([x], index) => of(x) <= 1 && index % each === 0);
      return { of, ticks: ticks.map(([x, text]) => [of(x), text]) };
    }
    case 'names': {
      const names = [...new Set(values)];
      const of = (name) => (names.indexOf(name) + 0.5) / names.length;
      return { of, ticks: names.map((name) => [of(name), name]), band: 1 / names.length };
    }
    default: {
      const { of, ticks } = linear(numbers, Math.max(2, Math.floor(room / LABEL_WIDTH)));
      return { of, ticks: ticks.map((tick) => [of(tick), tickText(axis, tick)]) };
    }
  }
}

// ------------------------------------------------------------------------------------------------------------- drawing

const colorOf = (line) => `var(--c${(line.color - 1) % 8 + 1})`;

function legend(chart, place, hidden, again) {
  if (chart.lines.some(({ kind }) => kind === 'bar')) return;
  const list = html('div', 'legend', place);
  chart.lines.forEach((line, index) => {
    const entry = html('button', 'key', list);
    entry.type = 'button';
    entry.setAttribute('aria-pressed', String(!hidden.has(index)));
    entry.title = 'Show or hide this line';
    const mark = html('span', line.dash ? 'mark dashed' : 'mark', entry);
    mark.style.color = colorOf(line);
    html('span', '', entry, line.name);
    entry.onclick = () => {
      if (!hidden.delete(index)) hidden.add(index);
      again();
    };
  });
}

/** One chart into its place, as wide as that is. */
function draw(chart, place, hidden) {
  place.replaceChildren();
  legend(chart, place, hidden, () => draw(chart, place, hidden));
  const frame = html('div', 'plot', place);
  const [width, height] = [frame.clientWidth, frame.clientHeight];
  const picture = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' }, frame);
  const lines = chart.lines.filter((_, index) => !hidden.has(index));
  const right = width - (chart.right ? MARGIN.left : MARGIN.right);
  const bottom = height - MARGIN.bottom;
  const across = right - MARGIN.left;
  const up = bottom - MARGIN.top;
  const ys = (isRight) => lines.filter((line) => line.right === isRight).flatMap(({ y }) => y);
  const x = scaleOf(chart.x, lines.flatMap((line) => line.x), across);
  const scales = [scaleOf(chart.y, ys(false), up), chart.right && scaleOf(chart.right, ys(true), up)];
  const at = { x: (value) => MARGIN.left + x.of(value) * across, y: (line, value) => bottom - scales[line.right ? 1 : 0].of(value) * up };

  if (chart.shade) {
    const [from, to] = chart.shade.map((value) => Math.min(right, at.x(value)));
    svg('rect', { class: 'shade', x: from, y: MARGIN.top, width: Math.max(0, to - from), height: up }, picture);
  }
  for (const [part, text] of scales[0].ticks) {
    const y = bottom - part * up;
    svg('line', { class: 'grid', x1: MARGIN.left, x2: right, y1: y, y2: y }, picture);
    svg('text', { x: MARGIN.left - 8, y: y + 4, 'text-anchor': 'end' }, picture, text);
  }
  for (const [part, text] of scales[1]?.ticks ?? []) {
    svg('text', { x: right + 8, y: bottom - part * up + 4 }, picture, text);
  }
  const room = across / Math.max(1, x.ticks.length) / 6.5;
  for (const [part, text] of x.ticks) {
    const short = chart.x.scale === 'names' && text.length > room ? `${text.slice(0, Math.max(1, room - 1))}…` : text;
    svg('text', { x: MARGIN.left + part * across, y: bottom + 18, 'text-anchor': 'middle' }, picture, short);
  }
  svg('line', { class: 'axis', x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }, picture);
  svg('text', { class: 'title', x: MARGIN.left + across / 2, y: height - 6, 'text-anchor': 'middle' }, picture, chart.x.title);
  const turned = (where, text) => svg('text', { class: 'title', transform: `translate(${where} ${MARGIN.top + up / 2}) rotate(-90)`, 'text-anchor': 'middle' }, picture, text);
  turned(12, chart.y.title);
  if (chart.right) turned(width - 4, chart.right.title);

  for (const line of lines) drawLine(line, chart, at, picture, { band: x.band && x.band * across, bottom });
  point(chart, lines, at, frame, picture, { right, bottom });
}

function drawLine(line, chart, at, picture, { band, bottom }) {
  const known = line.y.map((y, index) => (y === null || (chart.y.scale === 'log' && y <= 0) ? null : [at.x(line.x[index]), at.y(line, y), y]));
  const group = svg('g', { class: 'trace' }, picture);
  group.style.color = colorOf(line);
  if (line.kind === 'bar') {
    for (const [x, y, value] of known.filter(Boolean)) {
      svg('rect', { class: 'bar', x: x - band / 4, y, width: band / 2, height: bottom - y }, group);
      svg('text', { x, y: y - 4, 'text-anchor': 'middle' }, group, Number(value.toPrecision(3)).toLocaleString('en'));
    }
  } else if (line.kind === 'dots') {
    for (const [x, y] of known.filter(Boolean)) svg('circle', { cx: x, cy: y, r: 3.5 }, group);
  } else {
    // Where nothing is known the line has a gap, and what stands alone is a dot.
    let path = '';
    known.forEach((place, index) => {
      if (!place) return;
      const [x, y] = place.map((value) => value.toFixed(1));
      if (known[index - 1]) path += `L${x} ${y}`;
      else if (known[index + 1]) path += `M${x} ${y}`;
      else svg('circle', { cx: x, cy: y, r: 2 }, group);
    });
    svg('path', { class: line.dash ? 'line dashed' : 'line', d: path }, group);
  }
}

/** What is under the pointer: of each line its value that is nearest to the right or left. */
function point(chart, lines, at, frame, picture, { right, bottom }) {
  const rule = svg('line', { class: 'rule', y1: MARGIN.top, y2: bottom, visibility: 'hidden' }, picture);
  const card = html('div', 'pointed', frame);
  card.hidden = true;
  const hide = () => {
    card.hidden = true;
    rule.setAttribute('visibility', 'hidden');
  };
  picture.addEventListener('pointerleave', hide);
  picture.addEventListener('pointermove', (event) => {
    const pointer = event.clientX - picture.getBoundingClientRect().left;
    const nearest = lines.map((line) => {
      let best = null;
      line.x.forEach((x, index) => {
        const distance = Math.abs(at.x(x) - pointer);
        if (line.y[index] !== null && (best === null || distance < best.distance)) best = { distance, x, y: line.y[index] };
      });
      return best && { line, ...best };
    }).filter(Boolean);
    if (nearest.length === 0 || pointer < MARGIN.left - 8 || pointer > right + 8) {
      hide();
      return;
    }
    const closest = nearest.reduce((one, other) => (other.distance < one.distance ? other : one));
    card.replaceChildren();
    const head = { quantile: () => `${percent(closest.x)} %`, names: () => closest.x }[chart.x.scale] ?? (() => exact(chart.x, closest.x));
    html('strong', '', card, head());
    // Lines whose next value is somewhere else have none here.
    for (const { line, y } of nearest.filter(({ x }) => Math.abs(at.x(x) - at.x(closest.x)) < 8)) {
      const row = html('div', '', card);
      html('span', line.dash ? 'mark dashed' : 'mark', row).style.color = colorOf(line);
      html('span', '', row, `${line.name}: ${exact(line.right ? chart.right : chart.y, y)}`);
    }
    card.hidden = false;
    const x = at.x(closest.x);
    rule.setAttribute('x1', x);
    rule.setAttribute('x2', x);
    rule.setAttribute('visibility', 'visible');
    const left = x + 12 + card.offsetWidth > frame.clientWidth ? x - 12 - card.offsetWidth : x + 12;
    card.style.left = `${Math.max(0, left)}px`;
  });
}

charts.forEach((chart, index) => {
  const place = document.getElementById(`chart-${index}`);
  const hidden = new Set();
  let width = 0;
  new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    draw(chart, place, hidden);
  }).observe(place);
});
