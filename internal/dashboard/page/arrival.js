// The form: the server writes the post, watches the readers, and sends a line of JSON per event. The timeline shows when
// the writer had answered and when each reader had the post.
$('write').addEventListener('submit', async (e) => {
  e.preventDefault();
  const button = e.target.querySelector('button');
  const post = Object.fromEntries(new FormData(e.target));
  button.disabled = true;
  outcome('muted', 'Writing…');
  const arrived = new Map();
  drawTimeline(undefined, arrived);
  let written;
  try {
    const res = await fetch('/api/write', {
      method: 'POST', headers: { 'Content-Type': 'application/json', ...authorization() },
      body: JSON.stringify(post), signal: AbortSignal.timeout(20000),
    });
    if (!res.ok) throw new Error((await res.json()).detail);
    await lines(res.body, (event) => {
      switch (event.event) {
        case 'written':
          written = event.ms;
          outcome('ok', `The writer answered ${event.status} after ${event.ms.toFixed(2)} ms, version ${event.version}.`);
          break;
        case 'failed':
          if (event.status === 401) askForToken();
          outcome('bad', (event.status ? `The writer answered ${event.status}: ` : '') + event.detail);
          break;
        default:
          arrived.set(event.reader, event);
          drawTimeline(written, arrived);
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

// axisOf returns the ticks of a timeline and the place of a time on it, in percent. The axis is linear up to 20 ms, so
// that parts of a millisecond show, and logarithmic above, so that one late reader does not hide the others.
function axisOf(longest) {
  if (longest > 20) {
    const from = 0.1, to = 10 ** Math.ceil(Math.log10(longest));
    const ticks = [];
    for (let t = from; t <= to * 1.01; t *= 10) ticks.push(t);
    return { ticks, place: (ms) => (100 * Math.log10(Math.max(ms, from) / from)) / Math.log10(to / from) };
  }
  const step = [0.1, 0.25, 0.5, 1, 2.5, 5].find((s) => longest / s <= 8) || 5;
  const to = Math.max(step, Math.ceil((longest * 1.02) / step) * step);
  const ticks = [];
  for (let t = 0; t <= to + step / 2; t += step) ticks.push(t);
  return { ticks, place: (ms) => (100 * ms) / to };
}

function drawTimeline(written, arrived) {
  const readers = processes.filter((p) => p.role === 'reader' && arrived.has(p.name));
  if (!readers.length) {
    $('arrivals').replaceChildren();
    return;
  }
  const axis = axisOf(Math.max(written || 0, ...[...arrived.values()].map((a) => a.ms || 0), 0.1));
  const row = (name, color, ms, text, failed) => {
    const li = element('li');
    const who = element('span', 'who');
    who.append(swatch(color), name);
    const track = element('span', 'track');
    for (const t of axis.ticks) {
      const tick = element('i', 'tick');
      tick.style.left = axis.place(t) + '%';
      track.append(tick);
    }
    if (ms !== undefined) {
      const bar = element('i', 'bar'), dot = element('i', 'at');
      bar.style.width = dot.style.left = Math.max(0.5, axis.place(ms)) + '%';
      bar.style.background = dot.style.background = color;
      track.append(bar, dot);
    }
    li.append(who, track, element('span', failed ? 'ms bad' : 'ms', text));
    return li;
  };
  const scale = element('li', 'scale');
  const labels = element('span', 'track');
  axis.ticks.forEach((t, i) => {
    const label = element('span', i === 0 ? 'first' : i === axis.ticks.length - 1 ? 'last' : '', Number(t.toPrecision(3)));
    label.style.left = axis.place(t) + '%';
    labels.append(label);
  });
  scale.append(element('span', 'who', 'ms since sent'), labels, element('span', 'ms', ''));
  const rows = readers.map((p) => {
    const a = arrived.get(p.name), there = a.event === 'arrived';
    return row(p.name, colorOf(p.name), there ? a.ms : undefined, there ? a.ms.toFixed(2) + ' ms' : a.detail, !there);
  });
  if (written !== undefined) rows.unshift(row('written', colorOf('writer'), written, written.toFixed(2) + ' ms: answered'));
  $('arrivals').replaceChildren(...rows, scale);
}
