'use strict';

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
    this.data = { points: [], lines: [], now: Date.now() };
    this.canvas.addEventListener('pointermove', (e) => { this.at = e.offsetX; this.draw(); this.showTip(); });
    this.canvas.addEventListener('pointerleave', () => { this.at = undefined; this.tip.hidden = true; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  update(points, processes, now) {
    this.data = { points, lines: this.def.lines(processes), now };
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

  writeLegend() {
    const groups = new Map();
    for (const line of this.data.lines) {
      if (!groups.has(line.group)) groups.set(line.group, []);
      groups.get(line.group).push(line);
    }
    const items = [];
    const spoken = [];
    for (const [group, lines] of groups) {
      const values = lines.map((l) => this.newest(l));
      const text = values.every((v) => v === undefined) ? '–' : values.map((v) => (v === undefined ? '–' : this.def.format(v))).join(' / ');
      const li = element('li');
      li.append(swatch(lines[0].color), element('span', '', group), element('b', '', text));
      items.push(li);
      spoken.push(group + ' ' + (text === '–' ? 'no data' : text));
    }
    this.legend.replaceChildren(...items);
    this.canvas.setAttribute('aria-label', `${this.def.title}, ${this.def.note}. Now: ${spoken.join('; ')}`);
  }

  // showTip shows the values at the pointer.
  showTip() {
    const { points, lines } = this.data;
    if (this.at === undefined || !this.scaleX || points.length === 0) return;
    let best = points[0];
    for (const p of points) if (Math.abs(this.scaleX(p.t) - this.at) < Math.abs(this.scaleX(best.t) - this.at)) best = p;
    const rows = [element('p', 'muted', new Date(best.t).toLocaleTimeString())];
    for (const line of lines) {
      const v = line.get(best);
      if (v === undefined) continue;
      const row = element('p');
      row.append(swatch(line.color), element('span', '', line.label), element('b', '', this.def.format(v)));
      rows.push(row);
    }
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
    const axis = empty ? this.range(this.def.log ? 1e-4 : 0, this.def.log ? 1e-2 : 1) : this.range(low, high);
    const labels = axis.ticks.map((v) => this.def.format(v));
    const left = Math.ceil(Math.max(...labels.map((l) => g.measureText(l).width))) + 10;
    const right = width - 8, top = 8, bottom = height - 22;
    const span = Math.min(SPAN, Math.max(SHORT, points.length ? now - points[0].t : 0));
    const x = (t) => right - ((now - t) / span) * (right - left);
    const y = this.def.log
      ? (v) => bottom - (Math.log10(v / axis.low) / Math.log10(axis.high / axis.low)) * (bottom - top)
      : (v) => bottom - ((v - axis.low) / (axis.high - axis.low)) * (bottom - top);
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
    for (const line of lines) this.drawLine(g, line, points, x, y);
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
