// The live tab: what /metrics says, looked at every second while the tab is open.

import { inWords, request } from "./api.js";
import { Chart } from "./chart.js";
import { byId, el, formatCount, formatRate, formatSeconds } from "./dom.js";
import { histogram, History, parse, quantile, since, sum, total } from "./metrics.js";
import { pageCells } from "./pages.js";

const SECONDS = 300;          // of history
const NOW_SECONDS = 3;        // "now" is the mean over these
const PERIOD = { open: 1000, closed: 5000 };

const LATENCIES = [
  ["Time to first token", "atom_time_to_first_token_seconds"],
  ["Between tokens", "atom_inter_token_latency_seconds"],
  ["Whole request", "atom_e2e_request_latency_seconds"],
  ["In the queue", "atom_queue_time_seconds"],
];
const FINISHES = ["stop", "length", "cancelled", "deadline", "error"];

function shown(value) {
  return Number.isFinite(value) ? formatCount(value) : "\u2013";
}

// The layer with most saturated codes, where inputs have codes.
function mostSaturated(families) {
  const shares = families.get("atom_saturated_activation_share") || [];
  if (!shares.length) return [];
  const most = shares.reduce((a, b) => (b.value > a.value ? b : a));
  return [["Saturated codes, at most", `${(most.value * 100).toFixed(2)} %, layer ${most.labels.layer}`]];
}

export class Live {
  constructor(page) {
    this.page = page;
    this.open = false;
    this.started = false;
    this.history = new History(SECONDS);
    this.throughput = new Chart(byId("chart-throughput"), {
      series: [{ name: "prompt", class: "second" }, { name: "generated", class: "first" }],
      label: "Tokens a second over the last minutes",
    });
    this.batch = new Chart(byId("chart-batch"), {
      series: [{ name: "waiting", class: "third" }, { name: "running", class: "first" }],
      whole: true, label: "Requests over the last minutes",
    });
    document.addEventListener("visibilitychange", () => this.schedule(0));
  }

  // From the first successful talk with the server on.
  start() {
    if (this.started) return;
    this.started = true;
    this.schedule(0);
  }

  show(open) {
    this.open = open;
    if (this.started) this.schedule(0);
  }

  schedule(milliseconds) {
    clearTimeout(this.timer);
    if (this.started && !document.hidden) this.timer = setTimeout(() => this.look(), milliseconds);
  }

  async look() {
    clearTimeout(this.timer);
    if (this.looking) return;
    this.looking = true;
    let period = PERIOD[this.open ? "open" : "closed"];
    try {
      const text = await (await request("/metrics")).text();
      this.history.add(parse(text), performance.now() / 1000);
      this.page.reachable(true);
      this.fault(null);
      if (this.open) this.draw();
    } catch (error) {
      if (error.kind === "network") this.page.reachable(false);
      this.fault(error);
      period = error.kind === "network" || error.kind === "busy" ? 5000 : 0;
    }
    this.looking = false;
    if (period) this.schedule(period);
    else this.started = false;  // refused: not asked again until the key or the page changes
  }

  fault(error) {
    const place = byId("live-error");
    place.hidden = !error;
    if (!error) return;
    const { title, text } = inWords(error);
    place.replaceChildren(el("b", {}, title), el("span", {}, text));
    if (error.kind === "key") {
      place.append(el("button", { type: "button", onclick: () => this.page.askKey(() => this.start()) },
                      "Enter the key"));
    }
  }

  draw() {
    const { history } = this;
    const { families, time } = history.last;
    const generated = history.rates("atom_generation_tokens_total");
    const prompts = history.rates("atom_prompt_tokens_total");
    this.throughput.set([prompts, generated], time);
    this.batch.set([history.values("atom_requests_waiting"), history.values("atom_requests_running")], time);
    byId("now-generated").textContent = this.recent(generated, time);
    byId("now-prompt").textContent = this.recent(prompts, time);
    byId("now-running").textContent = shown(sum(families, "atom_requests_running"));
    byId("now-waiting").textContent = shown(sum(families, "atom_requests_waiting"));
    byId("now-rows").textContent = shown(sum(families, "atom_batch_rows"));
    this.drawPrefix(families);
    this.drawLatency(families);
    this.drawTotals(families);
    this.drawPages(families);
  }

  recent(rates, time) {
    const last = rates.filter((point) => time - point.time < NOW_SECONDS);
    return formatRate(last.reduce((all, point) => all + point.value, 0) / last.length);
  }

  drawPrefix(families) {
    const asked = sum(families, "atom_prefix_cache_queries_total");
    const hits = sum(families, "atom_prefix_cache_hits_total");
    byId("now-prefix").textContent = asked > 0 ? (hits / asked * 100).toFixed(1) : "\u2013";
    byId("now-prefix-of").textContent = asked > 0
      ? `${formatCount(hits)} of ${formatCount(asked)} prompt tokens` : "no prompts yet";
  }

  // Of the last minutes where requests ended in them, else since the server's start.
  drawLatency(families) {
    const first = this.history.first.families;
    let recent = true;
    const rows = LATENCIES.map(([label, name]) => {
      const now = histogram(families, name);
      let buckets = since(now, histogram(first, name));
      if (!total(buckets) && total(now)) {
        buckets = now;
        recent = false;
      }
      return el("tr", {}, el("th", { scope: "row" }, label),
                ...[0.5, 0.95, 0.99].map((q) => el("td", {}, formatSeconds(quantile(buckets, q)))));
    });
    byId("latency").replaceChildren(...rows);
    const minutes = Math.round((this.history.last.time - this.history.first.time) / 60);
    byId("latency-span").textContent = !recent ? "since the start"
      : minutes > 1 ? `last ${minutes} minutes` : "last minute";
  }

  drawTotals(families) {
    const counts = FINISHES.map((finish) => [finish, sum(families, "atom_requests_total", "finish", finish)])
      .filter(([, count]) => count > 0);
    const facts = [
      ["Requests", shown(sum(families, "atom_requests_total"))],
      ...counts.map(([finish, count]) => [`\u2003${finish}`, shown(count)]),
      ["Tokens generated", shown(sum(families, "atom_generation_tokens_total"))],
      ["Prompt tokens", shown(sum(families, "atom_prompt_tokens_total"))],
      ["Steps", shown(sum(families, "atom_steps_total"))],
      ["Preemptions", shown(sum(families, "atom_preemptions_total"))],
      ...mostSaturated(families),
    ];
    byId("totals").replaceChildren(...facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  drawPages(families) {
    const [held, cached, free] = ["held", "cached", "free"].map((state) =>
      sum(families, "atom_kv_pages", "state", state) || 0);
    pageCells(byId("pages"), { held, cached, free });
    const all = held + cached + free;
    byId("pages-share").textContent = all ? `${(held / all * 100).toFixed(0)} % held` : "";
    for (const [name, count] of [["held", held], ["cached", cached], ["free", free]]) {
      byId(`pages-${name}`).textContent = formatCount(count);
    }
  }
}

// The model's own words about itself, as rows.
export function drawModel(place, model) {
  const facts = [];
  const add = (name, value) => {
    if (value === null || value === undefined || facts.length > 30) return;
    if (typeof value === "object" && !Array.isArray(value)) {
      for (const [inner, deeper] of Object.entries(value)) add(inner, deeper);
    } else {
      facts.push([name.replaceAll("_", " "), Number.isInteger(value) ? formatCount(value) : String(value)]);
    }
  };
  for (const [name, value] of Object.entries(model || {})) {
    if (name === "created") add("started", new Date(value * 1000).toLocaleString());
    else if (name !== "object" && name !== "permission") add(name, value);
  }
  place.replaceChildren(...facts.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
