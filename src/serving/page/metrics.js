// The Prometheus text of /metrics: parsing, rates between two looks, quantiles of histograms.

const SAMPLE = /^([A-Za-z_:][\w:]*)(\{.*\})?\s+(\S+)(?:\s+-?\d+)?$/;
const LABEL = /([A-Za-z_]\w*)="((?:\\.|[^"\\])*)"/g;

function numberOf(text) {
  if (/^[+-]?Inf$/i.test(text)) return text[0] === "-" ? -Infinity : Infinity;
  return Number(text);
}

// Map of name -> [{ labels, value }].
export function parse(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    if (!line || line[0] === "#") continue;
    const match = line.match(SAMPLE);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    if (!families.has(match[1])) families.set(match[1], []);
    families.get(match[1]).push({ labels, value: numberOf(match[3]) });
  }
  return families;
}

// Sum of the samples of `name` whose label has the value; NaN where there are none.
export function sum(families, name, label, value) {
  const samples = (families.get(name) || []).filter((s) => !label || s.labels[label] === value);
  return samples.length ? samples.reduce((total, s) => total + s.value, 0) : NaN;
}

// Upper bounds and cumulative counts of a histogram, over all its other labels.
export function histogram(families, name) {
  const counts = new Map();
  for (const { labels, value } of families.get(`${name}_bucket`) || []) {
    const bound = numberOf(labels.le ?? "");
    if (!Number.isNaN(bound)) counts.set(bound, (counts.get(bound) || 0) + value);
  }
  return [...counts].sort((a, b) => a[0] - b[0]).map(([bound, count]) => ({ bound, count }));
}

// What came into `now` since `before`; all of `now` where the server started anew between.
export function since(now, before) {
  if (now.length !== before.length || now.some((b, i) => b.count < before[i].count)) return now;
  return now.map((bucket, i) => ({ bound: bucket.bound, count: bucket.count - before[i].count }));
}

export function total(buckets) {
  return buckets.length ? buckets[buckets.length - 1].count : 0;
}

// The quantile q, linear within its bucket as Prometheus reckons it; NaN where nothing was counted.
export function quantile(buckets, q) {
  const wanted = q * total(buckets);
  if (!(wanted > 0)) return NaN;
  const i = buckets.findIndex((bucket) => bucket.count >= wanted);
  const low = i > 0 ? buckets[i - 1] : { bound: 0, count: 0 };
  const high = buckets[i];
  if (high.bound === Infinity) return low.bound;
  return low.bound + (high.bound - low.bound) * (wanted - low.count) / (high.count - low.count);
}

// Samples of the last minutes, one a look.
export class History {
  constructor(seconds) {
    this.seconds = seconds;
    this.looks = [];
  }

  add(families, time) {
    const last = this.looks[this.looks.length - 1];
    const restarted = last && sum(families, "atom_steps_total") < sum(last.families, "atom_steps_total");
    if (restarted) this.looks = [];
    this.looks.push({ time, families });
    while (time - this.looks[0].time > this.seconds) this.looks.shift();
  }

  get first() {
    return this.looks[0];
  }

  get last() {
    return this.looks[this.looks.length - 1];
  }

  // Increase a second of a counter between neighbouring looks: [{ time, value }].
  rates(name) {
    return this.looks.slice(1).map(({ time, families }, i) => {
      const before = this.looks[i];
      const grown = sum(families, name) - sum(before.families, name);
      return { time, value: Math.max(0, grown) / (time - before.time) };
    });
  }

  values(name) {
    return this.looks.map(({ time, families }) => ({ time, value: sum(families, name) }));
  }
}
