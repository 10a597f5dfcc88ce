'use strict';

const $ = (id) => document.getElementById(id);

const MORE = [0, 95, 240, 320, 170, 35, 275, 125, 205, 60, 300, 15]; // hues of the readers above the eighth

// colorOf returns the colour of a process, the same everywhere. Readers above the eighth
// get darker colours in a light scheme and lighter ones in a dark scheme.
function colorOf(name) {
  const style = getComputedStyle(document.documentElement);
  const variable = (v) => style.getPropertyValue(v).trim();
  const number = /reader-(\d+)$/.exec(name);
  if (number && Number(number[1]) <= 8) return variable('--c' + (Number(number[1]) - 1));
  if (number) return `hsl(${MORE[(Number(number[1]) - 9) % MORE.length]} ${variable('--more')})`;
  return variable({ gateway: '--gateway', 'reader-direct': '--direct', writer: '--writer', load: '--client' }[name] || '--muted');
}

const value = (p, process, name) => (p.v[process] || {})[name];

// Formats of values, each with its unit.
const format = {
  number(v) {
    if (v >= 1e6) return trim(v / 1e6) + ' M';
    if (v >= 1e4) return trim(v / 1e3) + ' k';
    return v >= 100 || Number.isInteger(v) ? Math.round(v).toLocaleString('en') : trim(v);
  },
  seconds(v) {
    if (v >= 1) return trim(v) + ' s';
    if (v >= 1e-3) return trim(v * 1e3) + ' ms';
    return trim(v * 1e6) + ' µs';
  },
  share(v) { return trim(v * 100) + ' %'; },
  bytes(v) {
    const unit = [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]].find((u) => v >= u[1]);
    return unit ? trim(v / unit[1]) + ' ' + unit[0] : v + ' B';
  },
};

// trim formats a number with three significant digits at most.
function trim(v) {
  const digits = Math.abs(v) >= 100 ? 0 : Math.abs(v) >= 10 ? 1 : 2;
  return String(Number(v.toFixed(digits)));
}

// element returns a new element. text is inserted as text, never as markup.
function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function swatch(color) {
  const s = element('span', 'swatch');
  s.style.background = color;
  return s;
}

const SPAN = 300e3; // milliseconds that a chart shows at most
const SHORT = 60e3; // and at least
const MANY = 5; // readers above which they share a place in the legend
const OUTLIER = 6; // a peak is cut off if it is this many times higher than nearly all other values
const GAP = 2600; // above this many milliseconds between two points a line is broken

// Chart draws lines over the last five minutes. def has title, note, empty (the text without
// data), format, log (a logarithmic axis) and lines(processes), which returns for each line
// {group, label, color, dashed, get(point)}; lines of one group share a place in the legend.
class Chart {
  constructor(parent, def) {
    this.def = def;
    this.root = element('article', 'chart');
    const title = element('h2', '', def.title);
    this.canvas = element('canvas');
    this.canvas.setAttribute('role', 'img');
    this.legend = element('ul', 'legend');
    this.tip = element('div', 'tip');
    this.tip.hidden = true;
    this.root.append(title, element('p', 'note', def.note), this.canvas, this.legend, this.tip);
    parent.append(this.root);
    this.data = { points: [], lines: [], now: Date.now(), events: [] };
    this.canvas.addEventListener('pointermove', (e) => { this.at = e.offsetX; this.draw(); this.showTip(); });
    this.canvas.addEventListener('pointerleave', () => { this.at = undefined; this.tip.hidden = true; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  update(points, processes, now, events) {
    this.data = { points, lines: this.def.lines(processes), now, events };
    this.draw();
    this.showTip();
    this.writeLegend();
  }

  // newest returns the newest value of a line unless it is older than a few seconds.
  newest(line) {
    const { points } = this.data;
    for (let i = points.length - 1; i >= Math.max(0, points.length - 3); i--) {
      const v = line.get(points[i]);
      if (v !== undefined) return v;
    }
    return undefined;
  }

  // groups returns the lines by their group.
  groups() {
    const groups = new Map();
    for (const line of this.data.lines) {
      if (!groups.has(line.group)) groups.set(line.group, []);
      groups.get(line.group).push(line);
    }
    return groups;
  }

  // text formats the values of the lines of a group.
  text(values) {
    return values.every((v) => v === undefined) ? '–' : values.map((v) => (v === undefined ? '–' : this.def.format(v))).join(' / ');
  }

  // writeLegend shows the newest values of each group. Many readers share one place, with their lowest and highest value.
  writeLegend() {
    const groups = [...this.groups()];
    const readers = groups.filter(([group]) => /reader/.test(group));
    const many = readers.length > MANY ? readers : [];
    const items = [];
    const spoken = [];
    const add = (name, colors, text) => {
      const li = element('li');
      li.append(...colors.map(swatch), element('span', '', name), element('b', '', text));
      items.push(li);
      spoken.push(name + ' ' + (text === '–' ? 'no data' : text));
    };
    for (const [group, lines] of groups) {
      if (!many.some(([name]) => name === group)) add(group, [lines[0].color], this.text(lines.map((l) => this.newest(l))));
    }
    if (many.length) {
      const values = many.map(([, lines]) => this.newest(lines[lines.length - 1])).filter((v) => v !== undefined);
      const low = Math.min(...values), high = Math.max(...values);
      add(many.length + ' readers', many.map(([, lines]) => lines[0].color), !values.length ? '–' : low === high ? this.def.format(low) : this.def.format(low) + ' to ' + this.def.format(high));
    }
    this.legend.replaceChildren(...items);
    this.canvas.setAttribute('aria-label', `${this.def.title}, ${this.def.note}. Now: ${spoken.join('; ')}`);
  }

  // showTip shows the values at the pointer, and the events near it.
  showTip() {
    const { points, events } = this.data;
    if (this.at === undefined || !this.scaleX || points.length === 0) return;
    let best = points[0];
    for (const p of points) if (Math.abs(this.scaleX(p.t) - this.at) < Math.abs(this.scaleX(best.t) - this.at)) best = p;
    const rows = [element('p', 'muted', new Date(best.t).toLocaleTimeString())];
    for (const [group, lines] of this.groups()) {
      const values = lines.map((l) => l.get(best));
      if (values.every((v) => v === undefined)) continue;
      const row = element('p');
      row.append(swatch(lines[0].color), element('span', '', group), element('b', '', this.text(values)));
      rows.push(row);
    }
    for (const e of events.filter((e) => Math.abs(this.scaleX(e.time) - this.at) < 6)) rows.push(element('p', 'event', e.text));
    this.tip.replaceChildren(...rows);
    this.tip.hidden = false;
    const room = this.root.clientWidth;
    const x = this.canvas.offsetLeft + this.at;
    this.tip.style.left = Math.max(4, x > room / 2 ? x - this.tip.offsetWidth - 14 : x + 14) + 'px';
    this.tip.style.top = this.canvas.offsetTop + 8 + 'px';
  }

  // range returns the ends of the axis and its ticks for values between low and high.
  range(low, high) {
    const ticks = [];
    if (this.def.log) {
      const from = Math.floor(Math.log10(low)), to = Math.max(from + 1, Math.ceil(Math.log10(high)));
      for (let d = from; d <= to; d++) ticks.push(10 ** d);
      return { low: 10 ** from, high: 10 ** to, ticks };
    }
    const top = Math.max(high, this.def.least || 0) || 1;
    const rough = top / 4;
    const unit = this.def.binary ? 2 ** Math.floor(Math.log2(rough)) : 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 2.5, 5, 10].map((f) => f * unit).find((s) => s >= rough * 0.999);
    if (this.def.whole) step = Math.max(1, Math.ceil(step));
    for (let v = 0; v < top + step * 0.999; v += step) ticks.push(Number(v.toPrecision(12)));
    return { low: 0, high: ticks[ticks.length - 1], ticks };
  }

  draw() {
    const { points, lines, now } = this.data;
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (width === 0) return;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const g = this.canvas.getContext('2d');
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    g.font = '12px ' + getComputedStyle(document.body).fontFamily;

    let low = Infinity, high = -Infinity;
    for (const p of points) {
      for (const line of lines) {
        const v = line.get(p);
        if (v === undefined || (this.def.log && v <= 0)) continue;
        low = Math.min(low, v);
        high = Math.max(high, v);
      }
    }
    const empty = high === -Infinity;
    const usual = this.def.clip && !empty ? this.usual() : Infinity;
    const clipped = high > usual * OUTLIER;
    if (clipped) high = usual * 2;
    const axis = empty ? this.range(this.def.log ? 1e-4 : 0, this.def.log ? 1e-2 : 1) : this.range(low, high);
    const labels = axis.ticks.map((v) => this.def.format(v));
    const left = Math.ceil(Math.max(...labels.map((l) => g.measureText(l).width))) + 10;
    const right = width - 8, top = 8, bottom = height - 22;
    const span = Math.min(SPAN, Math.max(SHORT, points.length ? now - points[0].t : 0));
    const x = (t) => right - ((now - t) / span) * (right - left);
    const y = this.def.log
      ? (v) => bottom - (Math.log10(v / axis.low) / Math.log10(axis.high / axis.low)) * (bottom - top)
      : (v) => bottom - ((Math.min(v, axis.high * 1.02) - axis.low) / (axis.high - axis.low)) * (bottom - top);
    this.scaleX = x;

    g.lineWidth = 1;
    g.strokeStyle = color('--grid');
    g.fillStyle = color('--muted');
    g.textBaseline = 'middle';
    g.textAlign = 'right';
    axis.ticks.forEach((v, i) => {
      const line = Math.round(y(v)) + 0.5;
      g.beginPath();
      g.moveTo(left, line);
      g.lineTo(right, line);
      g.stroke();
      if (!empty) g.fillText(labels[i], left - 6, line);
    });
    g.textBaseline = 'alphabetic';
    const step = [15e3, 30e3, 60e3, 120e3].find((ms) => (ms / span) * (right - left) >= 58) || 120e3;
    for (let ago = 0; x(now - ago) - 24 >= left || ago === 0; ago += step) {
      g.textAlign = ago === 0 ? 'right' : 'center';
      const label = ago === 0 ? 'now' : ago % 60e3 ? `−${ago / 1e3} s` : `−${ago / 60e3} min`;
      g.fillText(label, x(now - ago), height - 4);
    }
    if (empty) {
      g.textAlign = 'center';
      g.font = '13px ' + getComputedStyle(document.body).fontFamily;
      g.fillText(this.def.empty, (left + right) / 2, (top + bottom) / 2 + 4);
      return;
    }

    g.save();
    g.beginPath();
    g.rect(left, 0, right - left + 4, bottom + 4);
    g.clip();
    g.lineJoin = 'round';
    this.drawEvents(g, x, top, bottom, color);
    for (const line of lines) this.drawLine(g, line, points, x, y);
    if (clipped) this.drawPeak(g, axis.high, x, top, left, right, color);
    if (this.at !== undefined && this.at >= left) {
      g.strokeStyle = color('--muted');
      g.setLineDash([2, 3]);
      g.lineWidth = 1;
      g.beginPath();
      g.moveTo(this.at + 0.5, top);
      g.lineTo(this.at + 0.5, bottom);
      g.stroke();
      g.setLineDash([]);
    }
    g.restore();
  }

  // usual returns the 95th percentile of the values above zero.
  usual() {
    const all = this.data.points.flatMap((p) => this.data.lines.map((l) => l.get(p))).filter((v) => v > 0).sort((a, b) => a - b);
    return all.length > 20 ? all[Math.floor(all.length * 0.95) - 1] : Infinity;
  }

  // drawPeak writes the highest value beside the place where it is cut off.
  drawPeak(g, limit, x, top, left, right, color) {
    let peak, at;
    for (const p of this.data.points) {
      for (const line of this.data.lines) {
        const v = line.get(p);
        if (v > limit && (peak === undefined || v > peak)) [peak, at] = [v, p.t];
      }
    }
    if (peak === undefined) return;
    g.fillStyle = color('--text');
    g.textAlign = x(at) > (left + right) / 2 ? 'right' : 'left';
    g.fillText((g.textAlign === 'left' ? '▲ ' : '') + this.def.format(peak) + (g.textAlign === 'right' ? ' ▲' : ''), x(at) + (g.textAlign === 'left' ? 5 : -5), top + 8);
  }

  // drawEvents marks each event with a line, and its duration with a band.
  drawEvents(g, x, top, bottom, color) {
    for (const e of this.data.events) {
      const from = x(e.time), to = x(e.end || this.data.now);
      const paint = color({ good: '--ok', bad: '--bad', unproven: '--warn' }[e.verdict] || (e.end ? '--muted' : '--warn'));
      g.fillStyle = g.strokeStyle = paint;
      if (to - from > 1) {
        g.globalAlpha = 0.12;
        g.fillRect(from, top, to - from, bottom - top);
      }
      g.globalAlpha = e.verdict || !e.end ? 0.9 : 0.35;
      g.lineWidth = 1;
      g.setLineDash(e.verdict || !e.end ? [] : [2, 3]);
      g.beginPath();
      g.moveTo(Math.round(from) + 0.5, top);
      g.lineTo(Math.round(from) + 0.5, bottom);
      g.stroke();
      g.setLineDash([]);
      g.globalAlpha = 1;
    }
  }

  drawLine(g, line, points, x, y) {
    g.strokeStyle = g.fillStyle = line.color;
    g.globalAlpha = line.dashed ? 0.75 : 1;
    g.lineWidth = line.dashed ? 1.25 : 1.75;
    g.setLineDash(line.dashed ? [4, 3] : []);
    let run = []; // of points without a gap between them
    const flush = () => {
      if (run.length === 1) { // a line of one point would not show
        g.beginPath();
        g.arc(run[0][0], run[0][1], 2.2, 0, 7);
        g.fill();
      } else if (run.length > 1) {
        g.beginPath();
        run.forEach(([px, py], i) => (i ? g.lineTo(px, py) : g.moveTo(px, py)));
        g.stroke();
      }
      run = [];
    };
    let before;
    for (const p of points) {
      const v = line.get(p);
      const none = v === undefined || (this.def.log && v <= 0);
      if (none || (before !== undefined && p.t - before > GAP)) flush();
      if (!none) run.push([x(p.t), y(v)]);
      before = p.t;
    }
    flush();
    g.globalAlpha = 1;
    g.setLineDash([]);
  }
}
