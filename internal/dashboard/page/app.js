// ofRoles returns the processes with one of the roles, in the order of the roles.
const ofRoles = (roles) => roles.flatMap((role) => processes.filter((p) => p.role === role));

// quantiles returns two lines per process: p50 dashed, p99 solid.
const quantiles = (roles, prefix) => () => ofRoles(roles).flatMap((p) => [
  { group: nameOf(p), label: nameOf(p) + ' p50', color: colorOf(p.name), dashed: true, get: (point) => value(point, p.name, prefix + 'p50') },
  { group: nameOf(p), label: nameOf(p) + ' p99', color: colorOf(p.name), get: (point) => value(point, p.name, prefix + 'p99') },
]);

// nameOf returns the name of a process in a legend.
const nameOf = (p) => (p.role === 'load-generator' ? 'clients' : p.name);

// each returns a line for one value of each process of the roles.
const each = (roles, name) => () => ofRoles(roles).map((p) => ({
  group: nameOf(p), label: nameOf(p), color: colorOf(p.name), get: (point) => value(point, p.name, name),
}));

// total adds up a value of all processes of a role; it is absent where no process has it.
function total(point, processes, role, name) {
  let sum;
  for (const p of processes) {
    if (p.role !== role) continue;
    const v = value(point, p.name, name);
    if (v !== undefined) sum = (sum || 0) + v;
  }
  return sum;
}

const totals = (names, variables) => (processes) => names.map((name, i) => ({
  group: name, label: name,
  color: getComputedStyle(document.documentElement).getPropertyValue(variables[i]).trim(),
  get: (point) => total(point, processes, 'reader', name),
}));

const definitions = [
  { title: 'Reads', note: 'requests per second, by reader and through the gateway', empty: 'nothing measured yet', format: format.number, least: 4, clip: true, lines: each(['gateway', 'reader'], 'reads') },
  { title: 'Read latency', note: 'p50 dashed, p99 solid; as clients see it, at the gateway, and in each reader', empty: 'no reads in the last five minutes', format: format.seconds, log: true, lines: quantiles(['load-generator', 'gateway', 'reader'], '') },
  { title: 'Propagation', note: "from the write to each reader's memory; p50 dashed, p99 solid", empty: 'no writes in the last five minutes', format: format.seconds, log: true, lines: quantiles(['reader'], 'propagation_') },
  {
    title: 'Writes', note: 'published and failed posts per second', empty: 'nothing measured yet', format: format.number, least: 4, clip: true,
    lines: (processes) => [
      { group: 'written', label: 'written', color: colorOf('writer'), get: (p) => total(p, processes, 'writer', 'writes') },
      { group: 'failed', label: 'failed', color: getComputedStyle(document.documentElement).getPropertyValue('--bad').trim(), get: (p) => total(p, processes, 'writer', 'failed_writes') },
    ],
  },
  { title: 'Answered from memory', note: 'hits, misses, and misses looked up in Redis, per second; all readers', empty: 'nothing measured yet', format: format.number, least: 4, clip: true, lines: totals(['hits', 'misses', 'fallbacks'], ['--c2', '--c1', '--bad']) },
  { title: 'Not modified', note: 'share of reads answered with 304, without a body', empty: 'no reads in the last five minutes', format: format.share, least: 1, lines: each(['gateway', 'reader'], 'not_modified_share') },
  { title: 'Lag', note: 'published writes that a reader has not applied yet', empty: 'nothing measured yet', format: format.number, least: 4, whole: true, clip: true, lines: each(['reader'], 'lag') },
  { title: 'Memory', note: 'resident memory of each process', empty: 'nothing measured yet', format: format.bytes, binary: true, least: 2 ** 25, lines: each(['reader', 'writer', 'gateway'], 'memory') },
];
const charts = definitions.map((d) => new Chart($('charts'), d));

// On a phone, what is not looked at first is folded.
if (matchMedia('(max-width: 34rem)').matches) {
  for (const fold of document.querySelectorAll('details')) fold.open = false;
}

let points = [];
let processes = [];
let series = {}; // the newest answer of the server
let failures = 0; // consecutive polls without an answer

// byNumber orders names, reader-10 after reader-9 and the reader without the gateway last.
const byNumber = (a, b) => (a.role === 'reader' && b.role === 'reader'
  ? (a.name === 'reader-direct') - (b.name === 'reader-direct') || a.name.localeCompare(b.name, 'en', { numeric: true }) : 0);

// poll fetches the new points once a second, one request at a time.
async function poll() {
  try {
    const after = points.length ? points[points.length - 1].t : 0;
    const res = await fetch('/api/series?after=' + after, { signal: AbortSignal.timeout(4000) });
    if (!res.ok) throw new Error(res.statusText);
    series = await res.json();
    const newest = (series.points || [])[(series.points || []).length - 1];
    if (newest) {
      points.push(...series.points);
      points = points.filter((p) => p.t > newest.t - SPAN - 2000);
    }
    processes = (series.processes || []).sort(byNumber);
    failures = 0;
    render();
  } catch (err) {
    if (!(err instanceof DOMException) && !(err instanceof TypeError && /fetch/i.test(err.message))) console.error(err);
    failures++;
    drawLink();
    if (failures === 2) drawBanners(series);
  }
  setTimeout(poll, 1000);
}

function render() {
  const newest = points[points.length - 1];
  const events = series.events || [];
  drawLink();
  drawBanners(series);
  drawPrometheus(series.prometheus, series.alerts || []);
  drawFigures(newest);
  drawPicture(series, newest);
  drawControls(series.controls);
  drawEvents(events);
  for (const c of charts) c.update(points, processes, newest ? newest.t : Date.now(), events);
}

function drawLink() {
  const lost = failures > 1;
  $('link').className = 'pill ' + (lost ? 'bad' : points.length ? 'ok' : '');
  $('link-text').textContent = lost ? 'no connection' : points.length ? 'live' : 'waiting for the first measurement';
}

// drawFigures shows the reads and the failed reads so far, and what is measured now.
function drawFigures(newest) {
  if (!newest) return;
  const all = (role, name) => processes.filter((p) => p.role === role).map((p) => value(newest, p.name, name)).filter((v) => v !== undefined);
  const worst = (role, name) => (all(role, name).length ? Math.max(...all(role, name)) : undefined);
  const show = (v, f) => (v === undefined ? '–' : f(v));
  const seen = worst('load-generator', 'p99') ?? worst('gateway', 'p99'); // by clients, else by the gateway
  const { reads, failed } = series.totals || { reads: 0, failed: 0 };
  const figures = [
    ['Reads', reads.toLocaleString('en'), '', 'big'],
    ['Failed reads', failed.toLocaleString('en'), '', failed ? 'big failed' : 'big fine'],
    ['Through the gateway', show(worst('gateway', 'reads'), format.number), 'reads/s'],
    ['Latency at the gateway', show(seen, format.seconds), 'p99'],
    ['Propagation, slowest', show(worst('reader', 'propagation_p99'), format.seconds), 'p99'],
    ['Written', show(worst('writer', 'writes'), format.number), 'posts/s'],
  ];
  const digests = Object.values(series.digests || {});
  if (digests.length) {
    figures.push(['Digests of the readers', series.agreement || 'not known', series.agreement === 'identical' ? digests[0].value.slice(0, 8) : '', series.agreement === 'differ' ? 'failed' : '']);
  }
  $('figures').replaceChildren(...figures.map(([name, text, unit, kind]) => {
    const div = element('div', kind);
    const dd = element('dd', '', text + ' ');
    dd.append(element('small', '', unit));
    div.append(element('dt', '', name), dd);
    return div;
  }));
}

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', render);
poll();
