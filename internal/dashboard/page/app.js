const $ = (id) => document.getElementById(id);

// colorOf returns the colour of a process, the same in every chart.
function colorOf(name) {
  const style = getComputedStyle(document.documentElement);
  const variable = (v) => style.getPropertyValue(v).trim();
  const number = /^reader-(\d+)$/.exec(name);
  if (number) return variable('--c' + ((Number(number[1]) - 1) % 8));
  return variable({ gateway: '--gateway', 'reader-direct': '--direct', writer: '--writer' }[name] || '--muted');
}

const value = (p, process, name) => (p.v[process] || {})[name];

// each returns a line for one value of each process of the roles.
const each = (roles, name) => (processes) => processes.filter((p) => roles.includes(p.role)).map((p) => ({
  group: p.name, label: p.name, color: colorOf(p.name), get: (point) => value(point, p.name, name),
}));

// quantiles returns two lines per process: p50 dashed, p99 solid.
const quantiles = (roles, prefix) => (processes) => processes.filter((p) => roles.includes(p.role)).flatMap((p) => [
  { group: p.name, label: p.name + ' p50', color: colorOf(p.name), dashed: true, get: (point) => value(point, p.name, prefix + 'p50') },
  { group: p.name, label: p.name + ' p99', color: colorOf(p.name), get: (point) => value(point, p.name, prefix + 'p99') },
]);

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
  { title: 'Reads', note: 'requests per second, by reader and through the gateway', empty: 'nothing measured yet', format: format.number, least: 4, lines: each(['gateway', 'reader'], 'reads') },
  { title: 'Read latency', note: 'p50 dashed, p99 solid; measured in the reader and at the gateway', empty: 'no reads in the last five minutes', format: format.seconds, log: true, lines: quantiles(['gateway', 'reader'], '') },
  { title: 'Propagation', note: "from the write to each reader's memory; p50 dashed, p99 solid", empty: 'no writes in the last five minutes', format: format.seconds, log: true, lines: quantiles(['reader'], 'propagation_') },
  {
    title: 'Writes', note: 'published and failed posts per second', empty: 'nothing measured yet', format: format.number, least: 4,
    lines: () => [
      { group: 'written', label: 'written', color: colorOf('writer'), get: (p) => value(p, 'writer', 'writes') },
      { group: 'failed', label: 'failed', color: getComputedStyle(document.documentElement).getPropertyValue('--bad').trim(), get: (p) => value(p, 'writer', 'failed_writes') },
    ],
  },
  { title: 'Answered from memory', note: 'hits, misses, and misses looked up in Redis, per second; all readers', empty: 'nothing measured yet', format: format.number, least: 4, lines: totals(['hits', 'misses', 'fallbacks'], ['--c2', '--c1', '--bad']) },
  { title: 'Not modified', note: 'share of reads answered with 304, without a body', empty: 'no reads in the last five minutes', format: format.share, least: 1, lines: each(['gateway', 'reader'], 'not_modified_share') },
  { title: 'Lag', note: 'published writes that a reader has not applied yet', empty: 'nothing measured yet', format: format.number, least: 4, whole: true, lines: each(['reader'], 'lag') },
  { title: 'Memory', note: 'resident memory of each process', empty: 'nothing measured yet', format: format.bytes, binary: true, least: 2 ** 25, lines: each(['reader', 'writer', 'gateway'], 'memory') },
];
const charts = definitions.map((d) => new Chart($('charts'), d));

let points = [];
let processes = [];
let failures = 0; // consecutive polls without an answer

// poll fetches the new points once a second, one request at a time.
async function poll() {
  try {
    const after = points.length ? points[points.length - 1].t : 0;
    const res = await fetch('/api/series?after=' + after, { signal: AbortSignal.timeout(4000) });
    if (!res.ok) throw new Error(res.statusText);
    const series = await res.json();
    const newest = (series.points || [])[(series.points || []).length - 1];
    if (newest) {
      points.push(...series.points);
      points = points.filter((p) => p.t > newest.t - SPAN - 2000);
    }
    processes = series.processes || [];
    failures = 0;
    render();
  } catch {
    failures++;
    renderLink();
    if (failures === 2) renderBanners();
  }
  setTimeout(poll, 1000);
}

function render() {
  renderLink();
  renderBanners();
  renderProcesses();
  renderTiles();
  const now = points.length ? points[points.length - 1].t : Date.now();
  for (const c of charts) c.update(points, processes, now);
}

function renderLink() {
  const lost = failures > 1;
  $('link').className = 'pill ' + (lost ? 'bad' : points.length ? 'ok' : '');
  $('link-text').textContent = lost ? 'no connection' : points.length ? 'live' : 'waiting for the first measurement';
}

const kinds = { ready: 'ok', degraded: 'warn', 'not ready': 'bad', restarting: 'bad', stopping: 'warn' };

const advice = {
  redis: () => (several('redis')
    ? 'Reads are served from memory. If it was the primary, writes are answered with 503 until another server has taken over, for about five seconds.'
    : 'Reads are served from memory; writes are answered with 503 until it is back.'),
  sentinel: 'Reads are not affected. Two Sentinels are needed to replace a primary that fails.',
  writer: 'Reads are not affected; writes fail until it is back.',
  reader: 'The gateway sends reads to the readers that are ready.',
  gateway: 'Read a reader directly until it is back.',
};

const degraded = {
  reader: 'Reads are served from memory.',
  gateway: 'It sends reads to the other readers.',
};

// several reports whether there is more than one process of a role.
const several = (role) => processes.filter((p) => p.role === role).length > 1;

// replace sets the children of a node when their text has changed, so that a screen reader does not repeat the
// same text every second.
function replace(node, children) {
  const text = children.map((c) => c.className + c.textContent).join('\n');
  if (node.dataset.text === text) return;
  node.dataset.text = text;
  node.replaceChildren(...children);
}

function banner(kind, title, text, code) {
  const p = element('p', 'banner ' + kind);
  p.append(element('strong', '', title + ' '), text);
  for (const c of code || []) p.append(' ', element('code', '', c));
  return p;
}

function renderBanners() {
  const out = [];
  if (failures > 1) {
    out.push(banner('bad', 'The stack does not answer.', 'The page shows its last state. If the stack was stopped, start it again:', ['make start']));
  }
  const same = new Map(); // processes in the same state for the same reason share a banner
  for (const p of processes) {
    if (p.state === 'ready') continue;
    const why = (p.detail || '').replace(/\d+(\.\d+)? s\b/g, 'some time');
    const key = [p.state, why, p.role].join('|');
    if (!same.has(key)) same.set(key, { ...p, why, names: [] });
    same.get(key).names.push(p.name);
  }
  for (const p of same.values()) {
    const title = `${list(p.names)} ${p.names.length > 1 ? 'are' : 'is'} ${p.state}${p.why ? ` (${p.why})` : ''}.`;
    const said = p.state === 'degraded' ? degraded[p.role] : p.state === 'stopping' ? '' : advice[p.role];
    const text = (typeof said === 'function' ? said() : said) || '';
    out.push(banner(kinds[p.state], title, text));
  }
  const traffic = points.some((p) => Object.values(p.v).some((v) => v.reads > 0 || v.writes > 0));
  if (points.length > 2 && !traffic) {
    out.push(banner('info', 'There were no reads or writes in the last five minutes.', 'Write a post with the form below, or in a terminal:', ['make test-write', 'make test-read POST_ID=hello']));
  }
  replace($('banners'), out);
}

// list joins names with commas and "and".
function list(names) {
  return names.length < 2 ? names.join() : names.slice(0, -1).join(', ') + ' and ' + names[names.length - 1];
}

// balance sets the number of columns of a grid so that its rows are equally long: eight cards of which seven fit into a
// row stand four and four. least is the width of the narrowest card, in pixels.
function balance(grid, count, least) {
  const gap = parseFloat(getComputedStyle(grid).columnGap);
  const fit = Math.max(1, Math.floor((grid.clientWidth + gap) / (least + gap)));
  const rows = Math.max(1, Math.ceil(count / fit));
  grid.style.setProperty('--columns', Math.max(1, Math.ceil(count / rows)));
}

function renderProcesses() {
  balance($('processes'), processes.length, 160);
  const newest = points[points.length - 1];
  $('processes').replaceChildren(...processes.map((p) => {
    const li = element('li');
    const top = element('div', 'top');
    const name = element('span', 'name');
    name.append(swatch(colorOf(p.name)), p.name);
    const pill = element('span', 'pill ' + (kinds[p.state] || ''));
    pill.append(element('span', 'dot'), p.state);
    top.append(name, pill);
    const facts = [p.address];
    if (p.pid) facts.push('pid ' + p.pid);
    if (p.external) facts.push('REDIS_ADDR');
    if (p.restarts) facts.push(p.restarts === 1 ? 'restarted once' : `restarted ${p.restarts} times`);
    const entries = newest && value(newest, p.name, 'entries');
    if (entries !== undefined) facts.push(format.number(entries) + (entries === 1 ? ' post' : ' posts'));
    const line = element('p', 'facts');
    line.append(...facts.map((f) => element('span', '', f)));
    li.append(top);
    if (p.note) li.append(element('p', p.note.startsWith('primary') ? 'note primary' : 'note', p.note));
    li.append(line);
    return li;
  }));
}

function renderTiles() {
  const newest = points[points.length - 1];
  if (!newest) return;
  const worst = (role, name) => {
    const all = processes.filter((p) => p.role === role).map((p) => value(newest, p.name, name)).filter((v) => v !== undefined);
    return all.length ? Math.max(...all) : undefined;
  };
  const hits = total(newest, processes, 'reader', 'hits'), misses = total(newest, processes, 'reader', 'misses');
  const show = (v, f) => (v === undefined ? '–' : f(v));
  const tiles = [
    ['Through the gateway', show(value(newest, 'gateway', 'reads'), format.number), 'reads/s'],
    ['All readers', show(total(newest, processes, 'reader', 'reads'), format.number), 'reads/s'],
    ['Latency, slowest', show(worst('reader', 'p99'), format.seconds), 'p99'],
    ['Propagation, slowest', show(worst('reader', 'propagation_p99'), format.seconds), 'p99'],
    ['From memory', hits + misses > 0 ? format.share(hits / (hits + misses)) : '–', 'of reads'],
    ['Written', show(value(newest, 'writer', 'writes'), format.number), 'posts/s'],
    ['Failed reads', show(total(newest, processes, 'gateway', 'errors'), format.number), '5xx/s, gateway'],
  ];
  balance($('tiles'), tiles.length, 160);
  $('tiles').replaceChildren(...tiles.map(([name, text, unit]) => {
    const div = element('div');
    const dd = element('dd', '', text + ' ');
    dd.append(element('small', '', unit));
    div.append(element('dt', '', name), dd);
    return div;
  }));
}

// The form: the server writes the post, watches the readers, and sends a line of JSON per event.
$('write').addEventListener('submit', async (e) => {
  e.preventDefault();
  const button = e.target.querySelector('button');
  const post = Object.fromEntries(new FormData(e.target));
  button.disabled = true;
  outcome('muted', 'Writing…');
  const arrived = new Map();
  renderArrivals(arrived);
  try {
    const res = await fetch('/api/write', {
      method: 'POST', headers: { 'Content-Type': 'application/json', ...authorization() },
      body: JSON.stringify(post), signal: AbortSignal.timeout(20000),
    });
    if (!res.ok) throw new Error((await res.json()).detail);
    await lines(res.body, (event) => {
      switch (event.event) {
        case 'written':
          outcome('ok', `The writer answered ${event.status} after ${event.ms.toFixed(2)} ms, version ${event.version}. Below: the time from sending the post until each reader had it.`);
          break;
        case 'failed':
          if (event.status === 401) askForToken();
          outcome('bad', (event.status ? `The writer answered ${event.status}: ` : '') + event.detail);
          break;
        default:
          arrived.set(event.reader, event);
          renderArrivals(arrived);
      }
    });
  } catch (err) {
    outcome('bad', 'Failed: ' + err.message);
  }
  button.disabled = false;
});

// The token is not part of the form data, so it is not sent with the post; only its field keeps it.
function authorization() {
  const token = document.querySelector('#token input').value;
  return token ? { Authorization: 'Bearer ' + token } : {};
}

function askForToken() {
  $('token').hidden = false;
  document.querySelector('#token input').focus();
}

function outcome(kind, text) {
  $('outcome').className = kind;
  $('outcome').textContent = text;
}

// lines calls visit with each line of JSON in a stream.
async function lines(stream, visit) {
  let rest = '';
  for (const reader = stream.pipeThrough(new TextDecoderStream()).getReader(); ;) {
    const { value: chunk, done } = await reader.read();
    if (done) return;
    const parts = (rest + chunk).split('\n');
    rest = parts.pop();
    parts.filter(Boolean).forEach((line) => visit(JSON.parse(line)));
  }
}

function renderArrivals(arrived) {
  const slowest = Math.max(...[...arrived.values()].map((a) => a.ms || 0), 1);
  const names = processes.filter((p) => p.role === 'reader').map((p) => p.name).filter((n) => arrived.has(n));
  $('arrivals').replaceChildren(...names.map((name) => {
    const a = arrived.get(name);
    const li = element('li');
    const who = element('span', 'who');
    who.append(swatch(colorOf(name)), name);
    const bar = element('span', 'bar');
    const fill = element('div', 'fill');
    fill.style.width = a.event === 'arrived' ? Math.max(1, (a.ms / slowest) * 100) + '%' : '0';
    fill.style.background = colorOf(name);
    bar.append(fill);
    let text = a.detail;
    if (a.event === 'arrived') {
      const after = a.ms_from_answer;
      text = `${a.ms.toFixed(2)} ms, ${Math.abs(after).toFixed(2)} ms ${after < 0 ? 'before' : 'after'} the answer`;
    }
    li.append(who, bar, element('span', a.event === 'arrived' ? 'ms' : 'ms bad', text));
    return li;
  }));
}

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', render);
poll();
