// The two charts, drawn by Plotly, which is served beside this page. Without it the figures are shown all the same.

const PREFIX_LINES_MAX = 7;
const NARROW = '(max-width: 520px)';
const LEGEND_CHARS_MAX = 30;

const charts = {
  /** Loads Plotly; resolves to whether it is there. */
  load(base) {
    return new Promise((resolve) => {
      const script = document.createElement('script');
      script.src = `${base}plotly.js`;
      script.onload = () => resolve(Boolean(window.Plotly));
      script.onerror = () => resolve(false);
      document.head.append(script);
    });
  },

  explainAbsence() {
    for (const chart of document.querySelectorAll('.chart')) {
      const note = document.createElement('p');
      note.textContent = 'The chart library could not be loaded; the figures are not affected.';
      chart.replaceChildren(note);
    }
  },

  /** Draws both charts of `history`, whose last point is now. */
  draw(history) {
    if (!window.Plotly || document.hidden) return;
    const color = palette();
    const now = history.at.at(-1) ?? Date.now();
    const x = history.at.map((at) => (at - now) / 1000);
    const lines = prefixLines(history).map(({ name, y }, index) => ({
      name: plain(short(shownPrefix(name))), x, y, type: 'scatter', mode: 'lines', stackgroup: 'one', hovertemplate: '%{y:,.1f}/s',
      line: { width: 1, color: color(`--c${index + 1}`) },
    }));
    const percentile = (name, y, index) => ({
      name, x, y, type: 'scatter', mode: 'lines', hovertemplate: '%{y:,.2f} ms', connectgaps: false,
      line: { width: 2, color: color(`--c${index}`) },
    });
    const latency = [
      percentile('p99', history.p99_ms, 6),
      percentile('p95', history.p95_ms, 2),
      percentile('p50', history.p50_ms, 1),
    ];
    const settings = { displayModeBar: false, responsive: true };
    const time = timeAxis(x[0] ?? 0);
    window.Plotly.react('rate-chart', lines, layout(color, time, { rangemode: 'tozero' }), settings);
    window.Plotly.react('latency-chart', latency, layout(color, time, { type: 'log', ...latencyTicks(latency) }), settings);
  },
};

/** A topic prefix as a filter: what ends in `/` has more levels below it. */
function shownPrefix(prefix) {
  return prefix.endsWith('/') ? `${prefix}#` : prefix;
}

/** So short that it leaves room for the chart. Prefixes differ at their ends. */
function short(name) {
  const letters = [...name];
  if (letters.length <= LEGEND_CHARS_MAX) return name;
  return `${letters.slice(0, 8).join('')}…${letters.slice(9 - LEGEND_CHARS_MAX).join('')}`;
}

/** The busiest prefixes, and all others as one line. */
function prefixLines(history) {
  const sum = (y) => y.reduce((total, value) => total + value, 0);
  const lines = Object.entries(history.prefixes).map(([name, y]) => ({ name, y })).sort((a, b) => sum(b.y) - sum(a.y));
  const shown = lines.slice(0, PREFIX_LINES_MAX);
  const rest = lines.slice(PREFIX_LINES_MAX);
  if (rest.length > 0) {
    shown.push({ name: 'all others', y: history.at.map((_, index) => sum(rest.map(({ y }) => y[index]))) });
  }
  // The alphabet keeps a line's color when another becomes busier.
  return shown.sort((a, b) => a.name.localeCompare(b.name));
}

/** A logarithmic axis over whole powers of ten around the values, so that it does not tremble. */
function latencyTicks(lines) {
  const values = lines.flatMap(({ y }) => y).filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(1, ...values)));
  const high = Math.ceil(Math.log10(Math.max(10, ...values)));
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  return { range: [low, high], tickvals: ticks, ticktext: ticks.map((value) => duration(value).join(' ').replace('.0', '')) };
}

/** The axis of time, from the first point to now; it grows in whole steps, so that it does not creep. */
function timeAxis(first) {
  const [range, usual] = [[60, 15], [120, 30], [300, 60]].find(([seconds]) => -first <= seconds) ?? [300, 60];
  // On a telephone there is room for the ends and one between.
  const step = matchMedia(NARROW).matches ? range / 2 : usual;
  const ticks = Array.from({ length: range / step + 1 }, (_, index) => -index * step);
  return { range: [-range, 0], tickvals: ticks, ticktext: ticks.map((at) => (at === 0 ? 'now' : `${span(-at)} ago`)) };
}

function layout(color, time, yaxis) {
  const axis = { gridcolor: color('--grid'), linecolor: color('--line'), zeroline: false, fixedrange: true };
  return {
    paper_bgcolor: 'transparent', plot_bgcolor: 'transparent', hovermode: 'x unified', uirevision: 'same',
    font: { family: 'inherit', size: 12, color: color('--dim') },
    hoverlabel: { bgcolor: color('--card'), bordercolor: color('--line'), font: { color: color('--text') } },
    margin: { l: 58, r: 30, t: 6, b: 30 }, showlegend: true,
    legend: { orientation: 'h', traceorder: 'normal', x: 0, y: 1.02, yanchor: 'bottom', font: { color: color('--text') } },
    xaxis: {
      tickangle: 0, ...axis, ...time, hoverformat: '.0f', showgrid: false, unifiedhovertitle: { text: '%{x:.0f} s' },
    },
    yaxis: { ...axis, ...yaxis },
  };
}

/** Colors of the style sheet, which follow the system's light or dark. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(name).trim();
}

/** Plotly reads some HTML in names; a topic is text. */
function plain(name) {
  return name.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
