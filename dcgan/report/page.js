"use strict";
// The curves and the slider. All that they show is in the page's own <script id="data">; nothing is fetched.

const data = JSON.parse(document.getElementById("data").textContent);

/** The numbers of an array of the page: {kind: "int32" or "float32", base64}, in the byte order of files. */
function decoded({ kind, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const at = kind === "int32" ? (i) => view.getInt32(4 * i, true) : (i) => view.getFloat32(4 * i, true);
  return Float64Array.from({ length: bytes.length / 4 }, (_, i) => at(i));
}

const arrays = data.arrays.map(decoded);

// -- numbers ---------------------------------------------------------------------------------------

/** The first place in rising numbers that is not below x. */
function lowerBound(numbers, x) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The place of the number nearest to x. */
function nearest(numbers, x) {
  const after = Math.min(lowerBound(numbers, x), numbers.length - 1);
  return after > 0 && x - numbers[after - 1] < numbers[after] - x ? after - 1 : after;
}

/** Means over `width` values around each, fewer at the ends; what is no number is left out of them. */
function means(values, width) {
  const sums = new Float64Array(values.length + 1);
  const counts = new Float64Array(values.length + 1);
  for (let i = 0; i < values.length; i++) {
    const known = Number.isFinite(values[i]);
    sums[i + 1] = sums[i] + (known ? values[i] : 0);
    counts[i + 1] = counts[i] + (known ? 1 : 0);
  }
  return values.map((_, i) => {
    const from = Math.max(0, i - Math.floor((width - 1) / 2));
    const to = Math.min(values.length, i + Math.floor(width / 2) + 1);
    return (sums[to] - sums[from]) / (counts[to] - counts[from]);
  });
}

/** Round numbers from low to high, about `count` of them; whole ones where that is asked for. */
function ticks(low, high, count, whole = false) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5, 10].find((f) => f * power >= rough);
  const step = whole ? Math.max(1, Math.round(factor * power)) : factor * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

/** Powers of ten from low to high, thinned to about `count`; where there are few, 2 and 5 times them too. */
function logTicks(low, high, count) {
  const from = Math.floor(Math.log10(low));
  const to = Math.ceil(Math.log10(high));
  const every = Math.max(1, Math.ceil((to - from) / count));
  const factors = to - from <= 2 ? [1, 2, 5] : [1];
  const found = [];
  for (let k = from; k <= to; k += every) for (const factor of factors) found.push(factor * 10 ** k);
  return found.filter((tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9));
}

/** A number for an axis, or with more digits for a reader. */
function shown(value, digits = 4) {
  if (!Number.isFinite(value)) return "no number";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) {
    return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  return String(Number(value.toPrecision(digits)));
}

const stepShown = (step) => Math.round(step).toLocaleString("en-US");

// -- elements --------------------------------------------------------------------------------------

function element(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...content);
  return made;
}

function drawnElement(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A small bar of a line's colour. */
function swatch(colour) {
  const made = element("i");
  made.style.background = colour;
  return made;
}

/** The colour of a line: a named one, or, of layers, by its depth among the others. */
function colourOf(line, place, count) {
  if (line.colour) return `var(--${line.colour})`;
  const hue = count === 1 ? 25 : 262 - (262 - 8) * (place / (count - 1));
  return `hsl(${hue.toFixed(0)} 68% var(--depth))`;
}

// -- curves ----------------------------------------------------------------------------------------

const MARGIN = { left: 58, right: 12, top: 8, bottom: 24 };
const HEIGHT = 230;
const all = { from: Infinity, to: -Infinity }; // the steps of every curve, so that their axes agree
for (const chart of data.charts) {
  for (const line of chart.lines) {
    const steps = arrays[line.steps];
    all.from = Math.min(all.from, steps[0]);
    all.to = Math.max(all.to, steps[steps.length - 1]);
  }
}
if (all.from === all.to) {
  all.from -= 0.5;
  all.to += 0.5;
}
const LEAST = Math.min(1, all.to - all.from); // steps: nothing is to be seen nearer

const settings = { smoothing: 0, together: false, now: null };

class Curve {
  constructor(figure, chart) {
    this.figure = figure;
    this.chart = chart;
    this.from = all.from;
    this.to = all.to;
    this.log = chart.log;
    this.at = null; // the step under the cursor
    this.pointers = new Map();
    this.lines = chart.lines.map((line, i) => ({
      name: line.name,
      steps: arrays[line.steps],
      values: arrays[line.values],
      colour: colourOf(line, i, chart.lines.length),
      visible: true,
      means: new Map(),
    }));
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  build() {
    this.reset = element("button", { type: "button" }, "Reset");
    this.reset.addEventListener("click", () => this.zoom(all.from, all.to));
    this.range = element("span", { class: "range", "aria-live": "polite" });
    const box = element("input", { type: "checkbox" });
    box.checked = this.log;
    box.addEventListener("change", () => {
      this.log = box.checked;
      this.draw();
    });
    const tools = element("div", { class: "tools" }, this.range, element("label", {}, box, " log"), this.reset);
    this.svg = drawnElement("svg", {
      tabindex: 0, role: "group",
      "aria-label": `${this.chart.title}: ${this.lines.map((line) => line.name).join(", ")}. ${this.chart.about}`,
    });
    this.values = element("div", { class: "values", role: "status" });
    this.values.hidden = true;
    this.legend = element("div", { class: "legend" });
    this.lines.forEach((line) => this.addName(line));
    if (this.lines.length > 4) this.addAllOrNone();
    this.figure.append(tools, this.svg, this.values, this.legend);
    this.listen();
  }

  addName(line) {
    line.button = element("button", { type: "button", "aria-pressed": "true" }, swatch(line.colour), line.name);
    line.button.addEventListener("click", () => this.show([line], !line.visible));
    this.legend.append(line.button);
  }

  addAllOrNone() {
    for (const [name, visible] of [["all", true], ["none", false]]) {
      const button = element("button", { type: "button" }, name);
      button.addEventListener("click", () => this.show(this.lines, visible));
      this.legend.append(button);
    }
  }

  show(lines, visible) {
    for (const line of lines) {
      line.visible = visible;
      line.button.setAttribute("aria-pressed", String(visible));
    }
    this.draw();
  }

  // -- from numbers to places ---------------------------------------------------------------------

  x(step) {
    return MARGIN.left + ((step - this.from) / (this.to - this.from)) * this.width;
  }

  stepAt(x) {
    return this.from + ((x - MARGIN.left) / this.width) * (this.to - this.from);
  }

  y(value) {
    const scale = this.scale;
    const [v, low, high] = scale.log ? [Math.log(value), Math.log(scale.low), Math.log(scale.high)]
      : [value, scale.low, scale.high];
    return MARGIN.top + (1 - (v - low) / (high - low)) * this.height;
  }

  /** The places of a line that lie in sight, and one more on each side, where the line leaves the picture. */
  inSight(line) {
    const begin = Math.max(0, lowerBound(line.steps, this.from) - 1);
    return [begin, Math.min(line.steps.length, lowerBound(line.steps, this.to + 1e-9) + 1)];
  }

  /** A line as it is drawn: its own values, or means of them. */
  smoothed(line) {
    const width = this.chart.smooth ? settings.smoothing : 0;
    if (width < 2) return line.values;
    if (!line.means.has(width)) line.means.set(width, means(line.values, width));
    return line.means.get(width);
  }

  /** The axis of values: what the visible lines need of it. */
  findScale() {
    let low = Infinity;
    let high = -Infinity;
    let positive = Infinity;
    for (const line of this.lines.filter((one) => one.visible)) {
      const [begin, end] = this.inSight(line);
      for (let i = begin; i < end; i++) {
        const value = line.values[i];
        if (!Number.isFinite(value)) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
        if (value > 0) positive = Math.min(positive, value);
      }
    }
    if (this.log && positive < Infinity) {
      const room = Math.max(1.1, (high / positive) ** 0.04);
      return { log: true, low: positive / room, high: high * room };
    }
    if (low > high) [low, high] = [0, 1];
    const room = (high - low) * 0.05 || Math.abs(high) * 0.05 || 0.5;
    // A share has its limits at first: nothing lies beyond them, and no room is needed there.
    const limits = this.isZoomed() ? { low: null, high: null } : this.chart;
    return {
      log: false,
      low: limits.low !== null && low >= limits.low ? limits.low : low - room,
      high: limits.high !== null && high <= limits.high ? limits.high : high + room,
    };
  }

  isZoomed() {
    return this.from > all.from || this.to < all.to;
  }

  // -- drawing -------------------------------------------------------------------------------------

  draw() {
    const width = this.svg.clientWidth;
    if (!width) return; // not laid out yet: the observer calls again
    this.width = width - MARGIN.left - MARGIN.right;
    this.height = HEIGHT - MARGIN.top - MARGIN.bottom;
    this.scale = this.findScale();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...this.axes());
    const top = MARGIN.top - 3; // so much room that a line along the edge is whole
    const inside = drawnElement("svg", {
      x: MARGIN.left, y: top, width: this.width, height: this.height + 6,
      viewBox: `${MARGIN.left} ${top} ${this.width} ${this.height + 6}`, overflow: "hidden",
    });
    for (const line of this.lines.filter((one) => one.visible)) inside.append(...this.paths(line));
    this.over = drawnElement("g", {});
    inside.append(this.over);
    this.svg.append(inside);
    this.range.textContent = `steps ${stepShown(Math.max(this.from, 0))} to ${stepShown(this.to)}`;
    this.reset.disabled = !this.isZoomed();
    this.drawOver();
  }

  axes() {
    const made = [];
    const right = MARGIN.left + this.width;
    const bottom = MARGIN.top + this.height;
    const { log, low, high } = this.scale;
    for (const tick of log ? logTicks(low, high, 6) : ticks(low, high, 5)) {
      const y = this.y(tick);
      made.push(drawnElement("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y }));
      made.push(this.label(shown(tick), { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end", class: "y" }));
    }
    for (const tick of ticks(this.from, this.to, Math.max(2, Math.floor(this.width / 90)), true)) {
      const x = this.x(tick);
      made.push(drawnElement("line", { class: "grid", x1: x, x2: x, y1: MARGIN.top, y2: bottom }));
      made.push(this.label(stepShown(tick), { x, y: bottom + 16, "text-anchor": "middle", class: "x" }));
    }
    made.push(drawnElement("rect", {
      class: "frame", x: MARGIN.left, y: MARGIN.top, width: this.width, height: this.height,
    }));
    return made;
  }

  label(said, attributes) {
    const made = drawnElement("text", attributes);
    made.textContent = said;
    return made;
  }

  /** A line: faint as it is and clear as a mean where it is smoothed, with dots where its points are few. */
  paths(line) {
    const drawn = this.smoothed(line);
    const made = [];
    if (drawn !== line.values) made.push(this.path(this.through(line, line.values), line.colour, "faint"));
    made.push(this.path(this.through(line, drawn), line.colour, "line"));
    const [begin, end] = this.inSight(line);
    if (end - begin <= this.width / 8) made.push(this.path(this.dots(line, begin, end), line.colour, "dots"));
    return made;
  }

  path(d, colour, kind) {
    const made = drawnElement("path", { d, class: kind });
    made.style.stroke = colour;
    return made;
  }

  place(step, value) {
    return `${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`;
  }

  canBeDrawn(value) {
    return Number.isFinite(value) && (!this.scale.log || value > 0);
  }

  /**
   * The path through the values in sight. Where there are more than two for each column of pixels, a column
   * has its first, smallest, largest and last one: no spike is lost. What can't be drawn leaves a gap.
   */
  through(line, values) {
    const [begin, end] = this.inSight(line);
    const dense = end - begin > 2 * this.width;
    let d = "";
    let open = false;
    for (let i = begin; i < end; ) {
      if (!this.canBeDrawn(values[i])) {
        open = false;
        i++;
        continue;
      }
      const stop = dense ? this.columnEnd(line, values, i, end) : i + 1;
      for (const k of dense ? this.extremes(values, i, stop) : [i]) {
        d += `${open ? "L" : "M"}${this.place(line.steps[k], values[k])}`;
        open = true;
      }
      i = stop;
    }
    return d;
  }

  /** The place after the last value of the same column of pixels as i, with no gap between. */
  columnEnd(line, values, i, end) {
    const column = Math.floor(this.x(line.steps[i]));
    let stop = i + 1;
    while (stop < end && this.canBeDrawn(values[stop]) && Math.floor(this.x(line.steps[stop])) === column) stop++;
    return stop;
  }

  extremes(values, begin, end) {
    let low = begin;
    let high = begin;
    for (let i = begin; i < end; i++) {
      if (values[i] < values[low]) low = i;
      if (values[i] > values[high]) high = i;
    }
    return [...new Set([begin, low, high, end - 1])].sort((a, b) => a - b);
  }

  dots(line, begin, end) {
    let d = "";
    for (let i = begin; i < end; i++) {
      if (this.canBeDrawn(line.values[i])) d += `M${this.place(line.steps[i], line.values[i])}h0`;
    }
    return d;
  }

  /** What lies over the lines: the frame's step, the cursor with the values there, and what is being picked. */
  drawOver() {
    const bottom = MARGIN.top + this.height;
    const upright = (step, kind) => drawnElement("line", {
      class: kind, x1: this.x(step), x2: this.x(step), y1: MARGIN.top, y2: bottom,
    });
    const made = [];
    if (settings.now !== null) made.push(upright(settings.now, "now"));
    if (this.at !== null) made.push(upright(this.at, "cursor"));
    if (this.picked) {
      const [a, b] = this.picked;
      made.push(drawnElement("rect", {
        class: "picked", x: Math.min(a, b), y: MARGIN.top, width: Math.abs(b - a), height: this.height,
      }));
    }
    this.over.replaceChildren(...made);
    this.showValues();
  }

  showValues() {
    this.values.hidden = this.at === null;
    if (this.at === null) return;
    const rows = this.lines.filter((line) => line.visible).map((line) => {
      const value = this.smoothed(line)[nearest(line.steps, this.at)];
      return element("div", {}, swatch(line.colour), line.name, element("b", {}, shown(value)));
    });
    this.values.replaceChildren(element("div", {}, `step ${stepShown(this.at)}`), ...rows);
    const x = this.x(this.at);
    const beyond = x > this.svg.clientWidth / 2;
    this.values.style.left = beyond ? "" : `${x + 12}px`;
    this.values.style.right = beyond ? `${this.svg.clientWidth - x + 12}px` : "";
    const above = this.svg.getBoundingClientRect().top - this.figure.getBoundingClientRect().top;
    this.values.style.top = `${above + MARGIN.top + 4}px`;
  }

  /** Put the cursor at the point nearest to a step. */
  point(step) {
    const near = this.lines.filter((line) => line.visible).map((line) => line.steps[nearest(line.steps, step)]);
    const inside = near.filter((one) => one >= this.from && one <= this.to);
    inside.sort((a, b) => Math.abs(a - step) - Math.abs(b - step));
    this.at = inside.length ? inside[0] : null;
    this.drawOver();
  }

  // -- zooming -------------------------------------------------------------------------------------

  /** Show the steps from one to another: here, or in every curve where they go together. */
  zoom(from, to) {
    const width = Math.min(Math.max(to - from, LEAST), all.to - all.from);
    const middle = (from + to) / 2;
    const begin = Math.min(Math.max(middle - width / 2, all.from), all.to - width);
    for (const curve of settings.together ? curves : [this]) {
      [curve.from, curve.to, curve.at, curve.picked] = [begin, begin + width, null, null];
      curve.draw();
    }
  }

  /** Make the stretch `factor` times as long, with the step under x staying there. */
  zoomAround(x, factor) {
    const step = this.stepAt(x);
    this.zoom(step - (step - this.from) * factor, step + (this.to - step) * factor);
  }

  placeOf(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    return Math.min(Math.max(x, MARGIN.left), MARGIN.left + this.width);
  }

  listen() {
    const on = (name, act, options) => this.svg.addEventListener(name, act.bind(this), options);
    on("pointerdown", this.pressed);
    on("pointermove", this.moved);
    on("pointerup", this.released);
    on("pointercancel", this.cancelled);
    on("pointerleave", this.left);
    on("blur", this.left);
    on("dblclick", () => this.zoom(all.from, all.to));
    on("wheel", this.turned, { passive: false });
    on("keydown", this.keyed);
  }

  pressed(event) {
    if (event.button !== 0) return;
    this.svg.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.placeOf(event));
    const places = [...this.pointers.values()];
    this.picked = places.length === 1 ? [places[0], places[0]] : null;
    this.pinch = places.length === 2 ? { from: this.from, to: this.to, places } : null;
  }

  moved(event) {
    const x = this.placeOf(event);
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, x);
    if (this.pinch) {
      this.pinched();
      return;
    }
    if (this.picked) this.picked[1] = x;
    this.point(this.stepAt(x));
  }

  /** Two fingers: what was under each at first stays there. */
  pinched() {
    const { from, to, places } = this.pinch;
    const now = [...this.pointers.values()];
    if (now.length < 2 || Math.abs(now[0] - now[1]) < 1) return;
    const step = (x) => from + ((x - MARGIN.left) / this.width) * (to - from);
    const perPixel = (step(places[1]) - step(places[0])) / (now[1] - now[0]);
    if (!(perPixel > 0)) return;
    const begin = step(places[0]) - (now[0] - MARGIN.left) * perPixel;
    this.zoom(begin, begin + this.width * perPixel);
  }

  released(event) {
    this.pointers.delete(event.pointerId);
    if (this.pinch) {
      if (!this.pointers.size) this.pinch = null;
      return;
    }
    const picked = this.picked;
    this.picked = null;
    if (picked && Math.abs(picked[1] - picked[0]) > 5) {
      const [a, b] = picked.map((x) => this.stepAt(x));
      this.zoom(Math.min(a, b), Math.max(a, b));
    } else this.drawOver();
  }

  cancelled(event) {
    this.pointers.delete(event.pointerId);
    this.pinch = this.picked = null;
    this.left();
  }

  left() {
    if (this.pointers.size) return;
    this.at = null;
    if (this.over) this.drawOver();
  }

  /** The wheel scrolls the page, as everywhere, but with Ctrl (so pads pinch), or on the curve that has the focus. */
  turned(event) {
    if (!event.ctrlKey && document.activeElement !== this.svg) return;
    event.preventDefault();
    this.zoomAround(this.placeOf(event), 2 ** (Math.max(-400, Math.min(400, event.deltaY)) / 200));
  }

  keyed(event) {
    const act = this.keys(event.shiftKey)[event.key];
    if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    act();
  }

  keys(shift) {
    const length = this.to - this.from;
    const middle = this.at ?? (this.from + this.to) / 2;
    const pan = (share) => this.zoom(this.from + share * length, this.to + share * length);
    const move = (way) => this.point(this.neighbour(middle, way));
    const nearer = () => this.zoomAround(this.x(middle), 0.5);
    return {
      "+": nearer,
      "=": nearer,
      "-": () => this.zoomAround(this.x(middle), 2),
      Escape: () => this.zoom(all.from, all.to),
      ArrowLeft: () => (shift ? pan(-0.25) : move(-1)),
      ArrowRight: () => (shift ? pan(0.25) : move(1)),
    };
  }

  /** The step of the next point to one side of the cursor, a hundredth of the stretch away or more. */
  neighbour(step, way) {
    const wanted = step + (way * (this.to - this.from)) / 100;
    let best = step;
    for (const { steps } of this.lines.filter((line) => line.visible)) {
      const i = way > 0 ? lowerBound(steps, wanted) : lowerBound(steps, wanted + 1e-9) - 1;
      const found = steps[Math.min(Math.max(i, 0), steps.length - 1)];
      if ((found - step) * way > 0 && (best === step || (found - best) * way < 0)) best = found;
    }
    return Math.min(Math.max(best, this.from), this.to);
  }
}

const curves = [...document.querySelectorAll("[data-chart]")].map(
  (figure) => new Curve(figure, data.charts[Number(figure.dataset.chart)]),
);
document.getElementById("smoothing")?.addEventListener("change", (event) => {
  settings.smoothing = Number(event.target.value);
  curves.forEach((curve) => curve.draw());
});
document.getElementById("together")?.addEventListener("change", (event) => {
  settings.together = event.target.checked;
});

// -- the samples over time -------------------------------------------------------------------------

const PACE = Math.min(500, Math.max(60, 8000 / Math.max(1, data.frames.length))); // milliseconds a frame

function startPlayer() {
  const slider = document.getElementById("frame");
  const picture = document.getElementById("frame-picture");
  const label = document.getElementById("frame-label");
  const play = document.getElementById("play");
  let timer = null;

  function show(place) {
    const { step, src } = data.frames[place];
    slider.value = place;
    picture.src = src;
    picture.alt = `generated images after step ${step}`;
    label.textContent = `step ${stepShown(step)} (${place + 1} of ${data.frames.length})`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    settings.now = step;
    curves.forEach((curve) => curve.over && curve.drawOver());
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  function next() {
    show(Math.min(Number(slider.value) + 1, data.frames.length - 1));
    if (Number(slider.value) === data.frames.length - 1) stop();
  }

  play.addEventListener("click", () => {
    if (timer !== null) {
      stop();
      return;
    }
    if (Number(slider.value) >= data.frames.length - 1) show(0);
    timer = setInterval(next, PACE);
    play.textContent = "Pause";
  });
  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  show(data.frames.length - 1);
}

if (data.frames.length) startPlayer();
