// The picture of the data's path: reads go from the client through the gateway to the readers, writes through the writer
// and Redis to the same readers.

const kinds = { ready: 'ok', degraded: 'warn', 'not ready': 'bad', restarting: 'bad', stopping: 'warn' };

// node returns the box of a process. facts are short texts; what is undefined is left out.
function node(p, facts) {
  const li = element('li', 'node' + (p.name === 'reader-direct' || p.aside ? ' aside' : ''));
  li.dataset.name = p.name;
  const top = element('div', 'top');
  const name = element('span', 'name');
  name.append(swatch(colorOf(p.name)), p.name);
  const pill = element('span', 'pill ' + (kinds[p.state] || ''));
  pill.append(element('span', 'dot'), p.state);
  top.append(name, pill);
  li.append(top);
  if (p.note) li.append(element('p', p.note.startsWith('primary') ? 'note primary' : 'note', p.note));
  const line = element('p', 'facts');
  line.append(...facts.filter(Boolean).map((f) => element('span', '', f)));
  li.append(line);
  li.title = [p.address, p.pid && 'pid ' + p.pid, p.restarts && 'restarts: ' + p.restarts, p.detail].filter(Boolean).join('\n');
  return li;
}

function column(name, nodes) {
  const ul = element('ul', 'column ' + name);
  ul.append(...nodes);
  return ul;
}

// edge returns an arrow with a rate above it and a second value below it. It moves while something flows.
function edge(direction, rate, unit, below) {
  const div = element('div', 'edge ' + direction + (rate > 0 ? ' flows' : ''));
  div.append(element('span', 'rate', rate === undefined ? '–' : format.number(rate) + ' ' + unit), element('span', 'line'), element('span', 'below', below || ''));
  return div;
}

function drawPicture(series, point) {
  const of = (...roles) => processes.filter((p) => roles.includes(p.role));
  const get = (p, name) => (point ? value(point, p.name, name) : undefined);
  const show = (v, f, unit) => (v === undefined ? '' : f(v) + unit);
  const gateway = of('gateway')[0], writer = of('writer')[0], client = of('load-generator')[0];
  const through = gateway && get(gateway, 'reads'), writes = writer && get(writer, 'writes');

  const who = element('li', 'node');
  who.append(element('div', 'name', client ? 'clients' : 'client'),
    element('p', 'facts', client ? `load: ${show(get(client, 'reads'), format.number, ' reads/s')}, ${show(get(client, 'writes'), format.number, ' writes/s')}` : through > 0 ? 'load from elsewhere' : 'no load'));
  const reader = (p) => {
    const digest = (series.digests || {})[p.name];
    const lag = get(p, 'lag');
    const li = node(p, [
      show(get(p, 'reads'), format.number, ' reads/s'),
      show(get(p, 'entries'), format.number, get(p, 'entries') === 1 ? ' post' : ' posts'),
      lag > 0 ? format.number(lag) + ' behind' : '',
    ]);
    if (digest) li.querySelector('.facts').append(element('code', series.agreement === 'differ' ? 'bad' : '', digest.value.slice(0, 8)));
    return li;
  };
  const sentinels = of('sentinel');
  const redis = of('redis').map((p) => node(p, [p.external && p.address && 'REDIS_ADDR']));
  if (sentinels.length) {
    const worst = sentinels.find((p) => p.state !== 'ready') || sentinels[0];
    redis.push(node({ ...worst, name: `${sentinels.length} Sentinels`, note: '' }, [worst.note]));
  }
  const p99 = (p, name) => (p && get(p, name) !== undefined ? 'p99 ' + format.seconds(get(p, name)) : '');
  const slowest = Math.max(...of('reader').map((p) => get(p, 'propagation_p99') ?? -1));
  $('picture').replaceChildren(
    column('clients', [who]),
    edge('right', through, 'reads/s', p99(client, 'p99') || p99(gateway, 'p99')),
    column('gateways', of('gateway').map((p) => node(p, []))),
    edge('right', total(point || { v: {} }, processes, 'reader', 'reads'), 'reads/s'),
    column('readers', [...of('reader').map(reader), ...of('auditor').map((p) => ({ ...p, aside: true })).map((p) => node(p, []))]),
    edge('left', writes, 'updates/s', slowest >= 0 ? 'p99 ' + format.seconds(slowest) : ''),
    column('servers', redis),
    edge('left', writes, 'writes/s', p99(writer, 'publish_p99')),
    column('writers', of('writer').map((p) => node(p, []))),
  );
  $('picture').classList.toggle('many', of('reader').length > 5);
}
