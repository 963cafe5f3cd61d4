// A snapshot, then live updates. The stream is judged by what it brings: when nothing comes, the page says so.

const POINTS_MAX = 300;
const STALE_MS = 5000;
const BACKOFF_MS = { min: 1000, max: 10000 };
const POLL_MS = 5000;

// `/dashboard` and `/dashboard/` are the same page, but only one of them is a directory to relative addresses.
const base = location.pathname.endsWith('/') ? location.pathname : `${location.pathname}/`;
const byId = (id) => document.getElementById(id);

let history = null;
let lastNews = null;
let lastProblems = [];
let serverAt = null;
let backoffMs = BACKOFF_MS.min;

function put(id, text, value) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
  if (value !== undefined && value !== null) {
    element.value = String(value);
    element.title = grouped.format(value);
  }
}

function rows(id, entries, columns, absent) {
  const body = byId(id);
  if (entries.length === 0) {
    const row = document.createElement('tr');
    const cell = row.insertCell();
    cell.colSpan = columns;
    cell.className = 'empty';
    cell.textContent = absent;
    body.replaceChildren(row);
    return;
  }
  body.replaceChildren(...entries.map(([name, ...values]) => {
    const row = document.createElement('tr');
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = name;
    head.title = name;
    row.append(head);
    for (const value of values) {
      const cell = row.insertCell();
      const { text, attention } = typeof value === 'object' ? value : { text: value };
      cell.textContent = text;
      if (attention) cell.className = 'attention';
    }
    return row;
  }));
}

function show(now) {
  const { figures, logs } = now;
  put('messages-per-s', rate(figures.messages_per_s), figures.messages_per_s);
  put('bytes-per-s', `${bytes(figures.bytes_per_s)}/s of payload`);
  put('messages', count(figures.messages), figures.messages);
  put('bytes', `${bytes(figures.bytes)} of payload`);
  const minute = figures.latency_minute;
  const [p99, unit] = duration(minute.p99_ms);
  put('p99', p99, minute.p99_ms);
  put('p99-unit', unit);
  put('p50', minute.messages > 0 ? `p50 ${duration(minute.p50_ms).join(' ')}, of ${count(minute.messages)} messages` : 'no messages in the last minute');
  put('devices', count(figures.devices), figures.devices);
  put('rooms', count(figures.rooms), figures.rooms);
  for (const note of document.querySelectorAll('.window')) note.textContent = `in the last ${span(now.active_window_s)}`;
  put('stored', logs.as_of === null ? '–' : count(logs.stored), logs.stored);
  put('stored-note', logs.as_of === null ? 'Kafka has not been asked yet' : `in ${logs.topics.length} topics, as of ${clock(logs.as_of)}`);
  put('lag', count(now.lag), now.lag);
  byId('lag-tile').classList.toggle('attention', now.lag > Math.max(1000, 10 * figures.messages_per_s));
  put('dead-letters', logs.as_of === null ? '–' : count(logs.dead_letters), logs.dead_letters);
  byId('dead-tile').classList.toggle('attention', logs.dead_letters > 0);
  put('viewers', `${count(now.viewers)} of at most ${count(now.viewers_max)} live viewers.`);

  const busiest = [...figures.prefixes].sort((a, b) => b.messages - a.messages);
  rows('prefixes', busiest.map((row) => [shownPrefix(row.prefix), rate(row.messages_per_s), count(row.messages), bytes(row.bytes)]), 4,
    'No message has been counted yet.');
  rows('topics', logs.topics.map((row) => row.partitions === 0
    ? [row.topic, { text: 'does not exist', attention: true }, '–', '–']
    : [row.topic, count(row.partitions), count(row.stored), { text: count(row.dead_letters), attention: row.dead_letters > 0 }]), 4,
    'Kafka has not been asked yet.');
  put('logs-as-of', logs.as_of === null ? '' : `as of ${clock(logs.as_of)}`);
  rows('groups', [['dashboard (this page)', count(now.lag)],
    ...logs.groups.map((row) => [row.group, row.lag === null ? 'has not read yet' : count(row.lag)])], 2, '');
  const all = figures.latency_all;
  rows('latencies', [['p50', 'p50_ms'], ['p95', 'p95_ms'], ['p99', 'p99_ms'], ['p99.9', 'p999_ms'], ['slowest', 'max_ms']]
    .map(([name, key]) => [name, duration(minute[key]).join(' '), duration(all[key]).join(' ')]), 3, '');
}

/** Adds a second to the history; seconds that were missed leave no line behind. */
function add(point) {
  if (!history || !point || point.at <= (history.at.at(-1) ?? 0)) return;
  const length = history.at.length;
  history.at.push(point.at);
  for (const key of ['messages_per_s', 'p50_ms', 'p95_ms', 'p99_ms']) history[key].push(point[key]);
  for (const name of Object.keys(point.prefixes)) history.prefixes[name] ??= new Array(length).fill(0);
  for (const [name, line] of Object.entries(history.prefixes)) line.push(point.prefixes[name] ?? 0);
  while (history.at.length > POINTS_MAX) {
    history.at.shift();
    for (const key of ['messages_per_s', 'p50_ms', 'p95_ms', 'p99_ms']) history[key].shift();
    for (const line of Object.values(history.prefixes)) line.shift();
  }
  for (const [name, line] of Object.entries(history.prefixes)) {
    if (line.every((value) => value === 0)) delete history.prefixes[name];
  }
}

function take(now) {
  lastNews = Date.now();
  serverAt = now.at;
  lastProblems = now.problems;
  show(now);
  add(now.point);
  charts.draw(history);
  judge();
}

/** What is wrong now, said at the top: what the server says, and what only this page can know. */
function judge() {
  const silentMs = lastNews === null ? 0 : Date.now() - lastNews;
  const lost = lastNews !== null && silentMs > STALE_MS;
  const problems = lost ? [] : [...lastProblems];
  if (lost) {
    problems.push({ kind: 'stream', text: `The connection to the dashboard is lost. What is shown is ${Math.round(silentMs / 1000)} s old; this page tries again by itself.` });
  } else if (lastNews === null && backoffMs > BACKOFF_MS.min) {
    problems.push({ kind: 'stream', text: 'The dashboard does not answer; this page tries again by itself.' });
  } else if (polling) {
    problems.push({ kind: 'viewers', text: `As many viewers watch live as are allowed; this page looks every ${POLL_MS / 1000} s instead.` });
  }
  const texts = problems.map((problem) => ({
    mild: problem.kind === 'viewers',
    text: problem.since ? `${problem.text} (since ${clock(problem.since)})` : problem.text,
  }));
  const box = byId('problems');
  if (box.dataset.shown !== JSON.stringify(texts)) {
    box.dataset.shown = JSON.stringify(texts);
    box.replaceChildren(...texts.map(({ mild, text }) => {
      const line = document.createElement('p');
      line.className = mild ? 'problem mild' : 'problem';
      line.textContent = text;
      return line;
    }));
  }
  const state = lastNews === null ? 'waiting' : lost ? 'lost' : 'live';
  byId('state').dataset.state = state;
  put('state-text', state === 'waiting' ? 'connecting' : state === 'lost' ? 'connection lost' : `live, ${clock(serverAt)}`);
}

let polling = false;

async function snapshot() {
  const answer = await fetch(`${base}api/snapshot`, { cache: 'no-store' });
  if (!answer.ok) throw new Error(`api/snapshot answers ${answer.status}`);
  const { now, history: past } = await answer.json();
  history = past;
  take({ ...now, point: null });
}

function again() {
  setTimeout(connect, backoffMs);
  backoffMs = Math.min(backoffMs * 2, BACKOFF_MS.max);
}

async function connect() {
  try {
    await snapshot();
  } catch {
    again();
    return;
  }
  const events = new EventSource(`${base}api/events`);
  events.addEventListener('tick', (event) => {
    polling = false;
    backoffMs = BACKOFF_MS.min;
    take(JSON.parse(event.data));
  });
  events.onerror = () => {
    // Refused rather than broken: too many viewers, while the snapshot is there for everybody.
    polling = events.readyState === EventSource.CLOSED && lastNews !== null && Date.now() - lastNews < STALE_MS;
    events.close();
    if (polling) setTimeout(connect, POLL_MS);
    else again();
  };
}

connect();
setInterval(judge, 1000);
charts.load(base).then((there) => (there ? charts.draw(history ?? { at: [], messages_per_s: [], prefixes: {}, p50_ms: [], p95_ms: [], p99_ms: [] }) : charts.explainAbsence()));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => history && charts.draw(history));
document.addEventListener('visibilitychange', () => history && charts.draw(history));
