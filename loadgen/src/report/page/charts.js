// Draws the charts that the report holds as data. Colors come from the style sheet, which follows the system's light or dark.
'use strict';

const charts = JSON.parse(document.getElementById('charts-data').textContent);

function palette() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(name).trim();
}

/** Plotly reads some HTML in names; here a name is text. */
function plain(name) {
  return String(name).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

/** `1 / (1 - quantile)` as the percentage that people know. */
const PERCENT = [[2, '50'], [10, '90'], [100, '99'], [1000, '99.9'], [10000, '99.99'], [100000, '99.999']];

function percent(x) {
  return (100 - 100 / x).toFixed(Math.max(0, Math.ceil(Math.log10(x)) - 1));
}

/** Powers of ten, and 2 and 5 of each when there are few. */
function logTicks(lines) {
  const values = lines.flatMap(({ y }) => y).filter((value) => value > 0);
  const low = Math.log10(Math.min(...values));
  const high = Math.log10(Math.max(...values));
  const steps = high - low > 2.5 ? [1] : high - low > 1 ? [1, 3] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    for (const step of steps) ticks.push(Number((step * 10 ** power).toPrecision(3)));
  }
  const from = low - 0.08;
  const to = high + 0.08;
  const inside = ticks.filter((tick) => Math.log10(tick) >= from && Math.log10(tick) <= to);
  return { range: [from, to], tickvals: inside, ticktext: inside.map((tick) => String(tick)) };
}

function axisOf(axis, base, lines) {
  const shown = { ...base, title: { text: plain(axis.title), standoff: 8 } };
  switch (axis.scale) {
    case 'log': return { ...shown, type: 'log', ...logTicks(lines) };
    case 'quantile': return {
      ...shown, type: 'log', range: [0.25, Math.max(1, ...lines.flatMap(({ x }) => x).map(Math.log10)) + 0.12], tickvals: PERCENT.map(([x]) => x), ticktext: PERCENT.map(([, text]) => text),
    };
    case 'names': return { ...shown, type: 'category', title: undefined, showgrid: false };
    default: return { ...shown, tickformat: axis.unit === 'B' ? '.3~s' : undefined, ticksuffix: axis.unit === 'B' ? 'B' : undefined };
  }
}

/** What the pointer shows of a value. */
function template(axis, name) {
  const value = axis.unit === 'B' ? '%{y:.4s}B' : `%{y:,.4~r} ${axis.unit}`;
  return `${value.trim()}<extra>${name}</extra>`;
}

function trace(line, chart, color) {
  const axis = line.right ? chart.right : chart.y;
  const name = plain(line.name);
  const shade = color(`--c${(line.color - 1) % 8 + 1}`);
  const shared = { name, x: line.x, y: line.y, yaxis: line.right ? 'y2' : 'y', connectgaps: false };
  if (line.kind === 'bar') {
    const text = line.y.map((value) => (value === null ? '' : Number(value.toPrecision(3)).toLocaleString('en')));
    return {
      ...shared, x: line.x.map(plain), type: 'bar', text, textposition: 'outside', cliponaxis: false,
      marker: { color: shade }, hovertemplate: template(axis, name), width: 0.5,
    };
  }
  const quantile = chart.x.scale === 'quantile';
  return {
    ...shared, type: 'scatter', mode: line.kind === 'dots' ? 'markers' : 'lines',
    line: { width: 2, color: shade, dash: line.dash ? 'dot' : 'solid' }, marker: { size: 7, color: shade },
    customdata: quantile ? line.x.map(percent) : undefined,
    hovertemplate: quantile ? `%{customdata} %: ${template(axis, name)}` : template(axis, name),
  };
}

function layout(chart, color) {
  const grid = { gridcolor: color('--grid'), linecolor: color('--line'), zeroline: false, fixedrange: true };
  const left = chart.lines.filter(({ right }) => !right);
  const fromZero = (axis) => (axis.scale === 'linear' ? { rangemode: 'tozero' } : {});
  const bars = chart.lines.some(({ kind }) => kind === 'bar');
  const shapes = chart.shade ? [{
    type: 'rect', xref: 'x', yref: 'paper', x0: chart.shade[0], x1: chart.shade[1], y0: 0, y1: 1,
    fillcolor: color('--shade'), opacity: 0.09, line: { width: 0 }, layer: 'below',
  }] : [];
  return {
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    hovermode: chart.x.scale === 'linear' && chart.shade ? 'x unified' : 'closest',
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color('--dim') },
    hoverlabel: { bgcolor: color('--card'), bordercolor: color('--line'), font: { color: color('--text') } },
    margin: { l: 64, r: chart.right ? 64 : 20, t: 10, b: 48 },
    showlegend: !bars,
    legend: { orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom', traceorder: 'normal', font: { color: color('--text') } },
    xaxis: { ...axisOf(chart.x, grid, chart.lines), ...(chart.x.scale === 'linear' ? { rangemode: 'tozero' } : {}), showgrid: false },
    yaxis: { ...axisOf(chart.y, grid, left), ...fromZero(chart.y), ...(bars ? { automargin: true } : {}) },
    ...(chart.right ? {
      yaxis2: { ...axisOf(chart.right, grid, []), ...fromZero(chart.right), overlaying: 'y', side: 'right', showgrid: false },
    } : {}),
    shapes,
  };
}

function draw() {
  const color = palette();
  charts.forEach((chart, index) => {
    const traces = chart.lines.map((line) => trace(line, chart, color));
    Plotly.react(`chart-${index}`, traces, layout(chart, color), { displayModeBar: false, responsive: true });
  });
}

draw();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
