// What happened, the buttons that make it happen, and the banners about what is wrong now.

const clock = (ms) => new Date(ms).toLocaleTimeString('en-GB');

function drawEvents(events) {
  $('no-events').hidden = events.length > 0;
  replace($('events'), events.slice(-40).reverse().map((e) => {
    const li = element('li', e.verdict || (e.end ? 'plain' : 'going'));
    const text = element('span', '', withoutAddresses(e.text));
    if (e.outcome) text.append('; ', element('b', '', e.outcome));
    else if (!e.end) text.append(' …');
    li.append(element('span', 'mark', { good: '✓', bad: '✗', unproven: '?' }[e.verdict] || '•'), element('time', '', clock(e.time)), text);
    return li;
  }));
}

// send posts to the control API. The stack refuses what it cannot do, with a sentence.
async function send(path, body, button) {
  button.disabled = true;
  try {
    const res = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal: AbortSignal.timeout(45000) });
    const refused = res.ok ? '' : (await res.json()).detail;
    $('refusal').textContent = refused;
    $('refusal').hidden = !refused;
  } catch (err) {
    $('refusal').textContent = 'The stack does not answer: ' + err.message;
    $('refusal').hidden = false;
  }
  button.disabled = false;
}

// control returns a line of buttons with one sentence on what to look at. buttons are pairs of a label and a function
// that gets the button.
function control(hint, buttons, before) {
  const li = element('li');
  const row = element('div', 'row');
  if (before) row.append(before);
  for (const [label, act] of buttons) {
    const button = element('button', 'small', label);
    button.type = 'button';
    button.addEventListener('click', () => act(button));
    row.append(button);
  }
  li.append(row, element('p', 'hint', hint));
  return li;
}

const inRotation = () => processes.filter((p) => p.role === 'reader' && p.name !== 'reader-direct');

function makeControls() {
  const select = element('select');
  select.id = 'target';
  select.setAttribute('aria-label', 'Reader');
  const fault = (kind) => (button) => send('/api/fault', { fault: kind, process: select.value }, button);
  const ofRedis = (kind) => (button) => {
    const servers = processes.filter((p) => p.role === 'redis' && !p.external);
    const primary = servers.find((p) => (p.note || '').startsWith('primary')) || servers[0];
    send('/api/fault', { fault: kind, process: primary ? primary.name : 'redis' }, button);
  };
  const readers = (change) => (button) => send('/api/scale', { readers: inRotation().length + change }, button);
  $('buttons').append(
    control('400 reads/s with Zipf ids and 10 writes/s. Watch: the reads grow, the failed reads stay at 0.', [
      ['Start load', (b) => send('/api/load', { reads: 400, writes: 10 }, b)], ['Stop load', (b) => send('/api/load', { reads: 0 }, b)],
    ]),
    control('Watch: the gateway sends its reads to the other readers; it comes back with the same digest. A freeze and a cut last 5 s; cut off, it serves from memory.', [
      ['Kill', fault('kill')], ['Freeze', fault('freeze')], ['Cut off from Redis', fault('cut')],
    ], select),
    control('Watch: reads go on from memory, writes are refused until it is back, then every reader catches up.', [
      ['Kill Redis', ofRedis('kill')], ['Freeze Redis', ofRedis('freeze')],
    ]),
    control('Watch: a new reader gets reads once it has every post; one that leaves answers its last reads first.', [
      ['Add a reader', readers(1)], ['Remove a reader', readers(-1)],
    ]),
  );
}
makeControls();

// What a visitor can type in a terminal where the page may not break anything. The names are those of Docker Compose.
const commands = [
  [['make load'], 'Reads with Zipf ids, and writes, until Ctrl-C. Watch: the reads grow, the failed reads stay at 0.'],
  [['make demo'], 'Kills, freezes and cuts off readers and Redis under load, one after the other. Watch: the list of what happened.'],
  [['docker kill heavy-read-api-reader-2', 'docker start heavy-read-api-reader-2'], 'Watch: the gateway sends its reads to the other readers; it comes back with the same digest.'],
  [['docker pause heavy-read-api-redis-1', 'docker unpause heavy-read-api-redis-1'], 'Watch: reads go on from memory, writes are refused until it is back, then every reader catches up.'],
  [['make scale N=5'], 'Watch: a new reader gets reads once it has every post.'],
];
document.querySelector('#commands ul').append(...commands.map(([lines, hint]) => {
  const li = element('li');
  const row = element('div', 'row');
  row.append(...lines.map((line) => element('code', '', line)));
  li.append(row, element('p', 'hint', hint));
  return li;
}));

function drawControls(shown) {
  $('controls').hidden = false;
  $('buttons').hidden = !shown;
  $('commands').hidden = shown;
  const names = inRotation().map((p) => p.name), select = $('target');
  if ([...select.options].map((o) => o.value).join() === names.join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((n) => element('option', '', n)));
  select.value = names.includes(chosen) ? chosen : names[1] || names[0] || '';
}

const advice = {
  redis: () => (several('redis')
    ? 'Reads are served from memory. If it was the primary, writes are answered with 503 until another server has taken over, for about five seconds.'
    : 'Reads are served from memory; writes are answered with 503 until it is back.'),
  sentinel: 'Reads are not affected. Two Sentinels are needed to replace a primary that fails.',
  writer: 'Reads are not affected; writes fail until it is back.',
  reader: 'The gateway sends reads to the readers that are ready.',
  gateway: 'Read a reader directly until it is back.',
  auditor: 'Reads and writes are not affected; nothing compares the readers until it is back.',
  prometheus: 'Reads and writes are not affected; there are no alerts until it is back.',
};

const degraded = {
  reader: 'Reads are served from memory.',
  gateway: 'It sends reads to the other readers.',
  auditor: 'Reads and writes are not affected. A reader that differs from Redis loads a snapshot, if the auditor can compare it.',
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

// withoutAddresses leaves the addresses of a connection out of a text.
const withoutAddresses = (text) => text.replace(/\b(dial|read|write) tcp \S+: (connect: )?/g, '');

// brief leaves out of a reason what changes from second to second or from process to process, and addresses.
const brief = (why) => withoutAddresses(why).replace(/ of the last [\d.]+ ?m?s\b/g, '').replace(/\b[\d.]+ ?s\b/g, 'some time');

// explained reports whether another process is the cause of a problem, and has a banner of its own: writer and readers
// follow Redis, and the gateway follows the readers.
function explained(p) {
  const down = (...roles) => processes.some((q) => roles.includes(q.role) && q.state !== 'ready' && q.name !== p.name);
  switch (p.role) {
    case 'writer': return p.state === 'not ready' && down('redis', 'sentinel');
    case 'reader': return p.state === 'degraded' && down('redis', 'sentinel');
    case 'gateway': return p.state === 'degraded' && down('reader');
    case 'sentinel': return down('redis');
  }
  return false;
}

function drawBanners(series) {
  const out = [];
  if (failures > 1) {
    out.push(banner('bad', 'The stack does not answer.', 'The page shows its last state. If the stack was stopped, start it again:', ['make start']));
  }
  if (series.agreement === 'differ') {
    out.push(banner('bad', 'The readers hold different posts.', 'Their digests at the same version differ. The auditor finds the reader that differs from Redis and has it load a snapshot.'));
  }
  const same = new Map(); // processes in the same state for the same reason share a banner
  for (const p of processes) {
    if (p.state === 'ready' || explained(p)) continue;
    const why = brief(p.detail || '');
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
    out.push(series.controls
      ? banner('info', 'There were no reads or writes in the last five minutes.', 'Start the load with the button below, or in a terminal:', ['make load'])
      : banner('info', 'There were no reads or writes in the last five minutes.', 'Write a post with the form below, or put load on the stack in a terminal:', ['make load']));
  }
  replace($('banners'), out);
}

// list joins names with commas and "and".
function list(names) {
  return names.length < 2 ? names.join() : names.slice(0, -1).join(', ') + ' and ' + names[names.length - 1];
}

// drawPrometheus shows the alerts that fire, with a link to all of them.
function drawPrometheus(link, alerts) {
  $('prometheus').hidden = !link;
  if (!link) return;
  const a = element('a', alerts.length ? 'pill bad' : 'pill', alerts.length ? 'Alerts: ' + list([...new Set(alerts.map((x) => x.name))]) : 'Prometheus: no alert fires');
  a.href = link + '/alerts';
  a.title = alerts.map((x) => x.summary).join('\n');
  replace($('prometheus'), [a]);
}
