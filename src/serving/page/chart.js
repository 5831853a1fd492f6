// A line chart over the last minutes, in SVG, with the values under the pointer.

import { el, formatRate, svg } from "./dom.js";

const LEFT = 44;
const BOTTOM = 20;
const TOP = 10;
const RIGHT = 8;

// The next number that is at least `value` and whose half is round too.
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].map((m) => m * power).find((candidate) => candidate >= value * 0.999);
}

export class Chart {
  // series: [{ name, class }], drawn in this order; whole: of whole numbers
  constructor(place, { series, whole = false, label }) {
    Object.assign(this, { place, series, whole });
    this.seconds = 60;
    this.root = svg("svg", { role: "img", "aria-label": label, class: "chart" });
    this.tip = el("div", { class: "chart-tip", hidden: true });
    place.append(this.root, this.tip);
    this.data = series.map(() => []);
    this.now = 0;
    place.addEventListener("pointermove", (event) => this.point(event));
    place.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(place);
  }

  // data: for each series [{ time, value }] in seconds; `now`: the right end. The time axis has as many
  // whole minutes as the data.
  set(data, now) {
    this.data = data;
    this.now = now;
    const first = Math.min(now, ...data.map((points) => points[0]?.time ?? now));
    this.seconds = Math.max(1, Math.ceil((now - first) / 60)) * 60;
    this.draw();
  }

  x(time) {
    return LEFT + (this.width - LEFT - RIGHT) * (1 + (time - this.now) / this.seconds);
  }

  y(value) {
    return TOP + (this.height - TOP - BOTTOM) * (1 - value / this.top);
  }

  text(value) {
    return this.whole || value >= 100 ? value.toLocaleString("en-US") : String(+value.toPrecision(3));
  }

  draw() {
    this.width = this.place.clientWidth;
    this.height = this.place.clientHeight;
    if (!this.width || !this.height) return;
    const values = this.data.flat().map((point) => point.value).filter(Number.isFinite);
    this.top = roundUp(Math.max(0, ...values) * 1.05);
    if (this.whole && this.top < 4) this.top = 4;
    this.root.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.mark = svg("g", { class: "mark" });
    this.root.replaceChildren(...this.axes(), ...this.series.flatMap((one, i) => this.line(one, i)),
                              this.mark);
  }

  axes() {
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const y = this.y(this.top * share);
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }),
                 svg("text", { x: LEFT - 8, y: y + 4, class: "axis end" }, this.text(this.top * share)));
    }
    const step = this.seconds === 60 ? 20 : 60;
    for (let ago = this.seconds; ago >= 0; ago -= step) {
      if (this.width < 420 && step === 60 && ago % 120 && ago !== this.seconds) continue;
      const side = ago === 0 ? "end" : ago === this.seconds ? "" : "middle";
      const text = ago === 0 ? "now" : step === 60 ? `\u2212${ago / 60} min` : `\u2212${ago} s`;
      parts.push(svg("text", { x: this.x(this.now - ago), y: this.height - 4, class: `axis ${side}` }, text));
    }
    return parts;
  }

  line(one, i) {
    const points = this.data[i].filter((point) => Number.isFinite(point.value))
      .map((point) => `${this.x(point.time).toFixed(1)},${this.y(point.value).toFixed(1)}`);
    if (points.length < 2) return [];
    const base = this.y(0);
    const first = points[0].split(",")[0];
    const last = points[points.length - 1].split(",")[0];
    return [
      svg("path", { class: `area ${one.class}`, d: `M${first},${base}L${points.join("L")}L${last},${base}Z` }),
      svg("path", { class: `line ${one.class}`, d: `M${points.join("L")}` }),
    ];
  }

  point(event) {
    const lines = this.data[0];
    if (!event || !lines.length || !this.width) {
      this.tip.hidden = true;
      this.mark?.replaceChildren();
      return;
    }
    const at = event.clientX - this.place.getBoundingClientRect().left;
    const nearest = lines.reduce((best, point, i) =>
      (Math.abs(this.x(point.time) - at) < Math.abs(this.x(lines[best].time) - at) ? i : best), 0);
    const x = this.x(lines[nearest].time);
    this.mark.replaceChildren(svg("line", { x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }),
      ...this.series.map((one, i) => svg("circle", {
        class: one.class, cx: x, cy: this.y(this.data[i][nearest]?.value || 0), r: 3 })));
    this.tip.hidden = false;
    this.tip.replaceChildren(
      el("b", {}, `${Math.round(this.now - lines[nearest].time)} s ago`),
      ...this.series.map((one, i) => {
        const value = this.data[i][nearest]?.value;
        return el("span", {}, `${one.name} ${this.whole ? this.text(value) : formatRate(value)}`);
      }));
    this.tip.style.left = `${Math.min(x + 10, this.width - this.tip.offsetWidth - 4)}px`;
  }
}
