// The page: what came is shown, with what is wrong said at the top.

const POINTS_MAX = 300;
const ROWS_FOLDED = 8;
const STATUS_MS = 5000;

// `/dashboard` and `/dashboard/` are the same page, but only one of them is a directory to relative addresses.
const base = location.pathname.endsWith('/') ? location.pathname : `${location.pathname}/`;
const byId = (id) => document.getElementById(id);

let history = null;
let shown = null;
const unfolded = new Set();

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
  body.replaceChildren(...fold(id, entries).map(([name, ...values]) => {
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

/** The first of many rows, with a button below for the others. */
function fold(id, entries) {
  const button = byId(`${id}-fold`);
  if (!button) return entries;
  const all = unfolded.has(id);
  button.hidden = entries.length <= ROWS_FOLDED;
  button.setAttribute('aria-expanded', String(all));
  button.textContent = all ? `Show the first ${ROWS_FOLDED}` : `Show all ${count(entries.length)}`;
  button.onclick = () => {
    if (!unfolded.delete(id)) unfolded.add(id);
    if (shown) show(shown);
  };
  return all ? entries : entries.slice(0, ROWS_FOLDED);
}

function show(now) {
  shown = now;
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

function take(now, past) {
  if (past) history = past;
  show(now);
  add(now.point);
  charts.draw(history);
  judge();
}

/** What this page knows better than the server. */
function ownProblem(state) {
  const age = way.newsAt === null ? null : `${Math.round((Date.now() - way.newsAt) / 1000)} s`;
  switch (state) {
    case 'stale':
      return { kind: 'stream', text: `The connection to the dashboard is lost. What is shown is ${age} old; this page tries again by itself.` };
    case 'connecting':
      return way.mode === 'broken' ? { kind: 'stream', text: 'The dashboard does not answer; this page tries again by itself.' } : null;
    case 'polling':
      return { kind: 'viewers', text: `As many viewers watch live as are allowed; this page looks every ${POLL_MS / 1000} s instead.` };
    case 'live':
      // The server is there, and has nothing new to say: it cannot read its own figures.
      return Date.now() - way.newsAt > STALE_MS ? { kind: 'figures', text: `The figures stand still: they are ${age} old.` } : null;
    default:
      return null;
  }
}

/** What is wrong now, said at the top: what the server says, and what only this page can know. */
function judge() {
  const state = way.state();
  // What an old answer complained of may be long over.
  const problems = state === 'stale' || shown === null ? [] : [...shown.problems];
  const own = ownProblem(state);
  if (own) problems.push(own);
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
  byId('state').dataset.state = state;
  const at = shown === null ? '' : clock(shown.at);
  put('state-text', { live: `live, ${at}`, polling: `as of ${at}`, stale: `stale since ${at}, reconnecting`, reconnecting: 'reconnecting', connecting: 'connecting' }[state]);
}

/** What the process that serves this page says of itself: with a broker in it, how many are connected. */
async function askStatus() {
  if (document.hidden) return;
  let status;
  try {
    const answer = await fetch(new URL('../api/status', location.origin + base), { cache: 'no-store', signal: AbortSignal.timeout(STATUS_MS) });
    status = answer.ok ? await answer.json() : {};
  } catch {
    // The stream notices a server that is away, and says so.
    return;
  }
  const { broker, consumers, listen } = status;
  byId('connections-tile').hidden = !broker;
  if (broker) {
    put('connections', count(broker.connections), broker.connections);
    put('connections-note', listen?.mqtt ? `to MQTT at ${listen.mqtt}` : 'to the broker in this process');
  }
  linkParts(broker ? Object.keys(consumers ?? {}) : []);
}

/** The other backends of this process; each of them lists its paths. */
function linkParts(names) {
  const others = names.filter((name) => name !== 'dashboard');
  const line = byId('part-links');
  if (line.dataset.names === others.join()) return;
  line.dataset.names = others.join();
  line.replaceChildren(...others.flatMap((name, index) => {
    const link = document.createElement('a');
    link.href = new URL(`../${name}/`, location.origin + base);
    link.textContent = name;
    return [index === 0 ? 'APIs: ' : ' · ', link];
  }));
}

for (const link of document.querySelectorAll('nav a')) link.href = new URL(link.getAttribute('href'), location.origin + base);
const way = follow(base, take);
setInterval(() => {
  way.look();
  judge();
}, 1000);
askStatus();
setInterval(askStatus, STATUS_MS);
charts.load(base).then((there) => (there ? charts.draw(history ?? { at: [], messages_per_s: [], prefixes: {}, p50_ms: [], p95_ms: [], p99_ms: [] }) : charts.explainAbsence()));
for (const change of ['(prefers-color-scheme: dark)', NARROW]) matchMedia(change).addEventListener('change', () => history && charts.draw(history));
document.addEventListener('visibilitychange', () => {
  if (history) charts.draw(history);
  askStatus();
});
