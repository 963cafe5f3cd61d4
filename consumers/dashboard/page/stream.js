// The way to the server: a snapshot, then events. It is judged by what it brings, not by what the browser believes of it: a
// connection that a sleeping laptop or a silent router has lost looks open for hours.

const BACKOFF_MS = { min: 1000, max: 10000 };
const POLL_MS = 5000;
const ASK_MS = 5000;
const BEAT_MS = Number(document.body.dataset.beatMs);

/** The server says something every beat, whether there is news or not; after two of them and a bit it is not there. */
const STALE_MS = 2.4 * BEAT_MS;

/** Calls `take(now, history)` with a snapshot and `take(now)` with each event, and follows how it goes. */
function follow(base, take) {
  const way = { mode: 'connecting', heardAt: null, newsAt: null };
  let events = null;
  let openedAt = 0;
  let backoffMs = BACKOFF_MS.min;

  function heard() {
    way.mode = 'stream';
    way.heardAt = Date.now();
    backoffMs = BACKOFF_MS.min;
  }

  function again(afterMs) {
    events?.close();
    events = null;
    setTimeout(connect, afterMs);
  }

  function broken() {
    way.mode = 'broken';
    again(backoffMs);
    backoffMs = Math.min(backoffMs * 2, BACKOFF_MS.max);
  }

  async function connect() {
    try {
      const answer = await fetch(`${base}api/snapshot`, { cache: 'no-store', signal: AbortSignal.timeout(ASK_MS) });
      if (!answer.ok) throw new Error(`api/snapshot answers ${answer.status}`);
      const { now, history } = await answer.json();
      way.newsAt = Date.now();
      take({ ...now, point: null }, history);
    } catch {
      broken();
      return;
    }
    const stream = new EventSource(`${base}api/events`);
    openedAt = Date.now();
    events = stream;
    stream.addEventListener('beat', heard);
    stream.addEventListener('tick', (event) => {
      heard();
      way.newsAt = Date.now();
      take(JSON.parse(event.data));
    });
    stream.onerror = () => {
      if (stream.readyState !== EventSource.CLOSED) {
        broken();
        return;
      }
      // Refused rather than broken: too many viewers, while the snapshot is there for everybody.
      way.mode = 'polling';
      again(POLL_MS);
    };
  }

  /** To be called now and then: gives up a stream that has fallen silent. */
  way.look = () => {
    const since = Math.max(way.heardAt ?? 0, openedAt);
    if (events !== null && Date.now() - since > STALE_MS) broken();
  };

  /** `connecting`, `live`, `polling`, `reconnecting`, or `stale` after too long without anything. */
  way.state = () => {
    if (way.newsAt === null) return 'connecting';
    const last = Math.max(way.heardAt ?? 0, way.newsAt);
    if (Date.now() - last > STALE_MS) return 'stale';
    if (way.mode === 'stream') return 'live';
    if (way.mode === 'polling') return 'polling';
    return way.mode === 'broken' ? 'reconnecting' : 'connecting';
  };

  connect();
  return way;
}
