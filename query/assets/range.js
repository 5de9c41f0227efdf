// The counts of a time range, as a chart and as a table, beside those of the period before. What is selected is in the URL.
import { $, el, here, text, whole } from "./page.js";
import { Chart } from "./chart.js";

const HOUR = 3600000;
const DAY = 24 * HOUR;
const LABELS = { unique_users: "Unique users", clicks: "Clicks", impressions: "Impressions" };
const COLORS = { unique_users: "--users", clicks: "--clicks", impressions: "--impressions" };
const NAMES = Object.keys(LABELS);
// Lines below others are wider: where they are equal, both are seen.
const WIDTHS = { unique_users: 3.5, clicks: 2.75, impressions: 2 };
const SPANS = { "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY };
const TITLES = { "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days" };

export const hourName = (ms) => `${new Date(ms).toISOString().slice(0, 13).replace("T", " ")}:00`;
const dayName = (ms) => new Date(ms).toISOString().slice(0, 10);
const change = (share) => {
  const percent = Math.round(share * 100);
  return `${percent === 0 ? "±" : percent < 0 ? "−" : "+"}${whole(Math.abs(percent))} %`;
};
const day = (name) => Date.parse(`${name}T00:00:00Z`);

export class Range {
  constructor(fetchJson) {
    this.fetchJson = fetchJson;
    this.rows = new Map();
    this.before = null;
    this.current = null;
    this.turn = 0;
    const parameters = new URLSearchParams(location.search);
    const one = (name, allowed) => (allowed.includes(parameters.get(name)) ? parameters.get(name) : allowed[0]);
    this.range = one("range", [...Object.keys(SPANS), "custom"]);
    this.step = one("step", ["hour", "day"]);
    this.compare = parameters.get("compare") === "1";
    this.hidden = new Set(parameters.getAll("hide").filter((name) => NAMES.includes(name)));
    [this.from, this.to] = ["from", "to"].map((name) => parameters.get(name) ?? dayName(Date.now()));
    if (Number.isNaN(day(this.from)) || Number.isNaN(day(this.to))) this.range = "24h";
    this.chart = new Chart($("day"), {
      series: NAMES.map((name) => ({ label: LABELS[name], color: COLORS[name], width: WIDTHS[name], hidden: this.hidden.has(name) })),
      height: 280,
      time: (seconds) => new Date(seconds * 1000).toISOString().slice(...(this.span > 2 * DAY ? [5, 10] : [11, 16])),
      title: (seconds) => (this.step === "day" ? dayName(seconds * 1000) : `${hourName(seconds * 1000)} UTC`),
      value: whole,
    });
    this.drawControls();
    this.listen();
  }

  // --- what is selected ---

  /** First and last ms (exclusive). */
  get bounds() {
    if (this.range === "custom") return [day(this.from), day(this.to) + DAY];
    const step = this.step === "day" ? DAY : HOUR;
    const to = (Math.floor(Date.now() / step) + 1) * step;
    return [to - SPANS[this.range], to];
  }

  get span() {
    const [from, to] = this.bounds;
    return to - from;
  }

  listen() {
    $("range").addEventListener("change", () => this.select({ range: $("range").value }));
    $("step").addEventListener("change", () => this.select({ step: $("step").value }));
    for (const id of ["from", "to"]) $(id).addEventListener("change", () => $(id).value && this.select({ [id]: $(id).value }));
    $("compare").addEventListener("change", () => this.select({ compare: $("compare").checked }));
    $("csv").addEventListener("click", () => this.saveCsv());
  }

  select(change) {
    Object.assign(this, change);
    this.remember();
    this.drawControls();
    this.load();
  }

  remember() {
    const parameters = new URLSearchParams();
    if (this.range !== "24h") parameters.set("range", this.range);
    if (this.range === "custom") for (const id of ["from", "to"]) parameters.set(id, this[id]);
    if (this.step !== "hour") parameters.set("step", this.step);
    if (this.compare) parameters.set("compare", "1");
    for (const name of this.hidden) parameters.append("hide", name);
    history.replaceState(null, "", parameters.size ? `?${parameters}` : location.pathname);
  }

  drawControls() {
    $("range").value = this.range;
    $("step").value = this.step;
    $("compare").checked = this.compare;
    $("custom").hidden = this.range !== "custom";
    for (const id of ["from", "to"]) $(id).value = this[id];
    text($("day-title"), TITLES[this.range] ?? (this.from === this.to ? this.from : `${this.from} to ${this.to}`));
    $("legend").replaceChildren(...NAMES.map((name, index) => {
      const button = el("button", { type: "button", class: name, "aria-pressed": String(!this.hidden.has(name)) }, el("span", {}, LABELS[name]), el("b", {}), el("small", {}));
      button.addEventListener("click", () => this.toggle(name, index, button));
      return button;
    }));
  }

  toggle(name, index, button) {
    const hidden = !this.hidden.has(name);
    if (hidden) this.hidden.add(name);
    else this.hidden.delete(name);
    button.setAttribute("aria-pressed", String(!hidden));
    this.chart.toggle(index, hidden);
    this.remember();
  }

  // --- loading ---

  query(from, to) {
    return `/analytics/range?from=${from}&to=${to}&step=${this.step}`;
  }

  /** Loads again what can have changed: not what is past. */
  async refresh() {
    const [, to] = this.bounds;
    if (this.rows.size === 0 || to > Date.now() - HOUR) await this.load();
  }

  async load() {
    const turn = ++this.turn;
    const [from, to] = this.bounds;
    if (to <= from) {
      text($("day-note"), "The last day is before the first one.");
      return;
    }
    const earliest = Math.max(0, 2 * from - to);
    const comparing = this.compare && earliest < from;
    // Two requests: the service bounds the hours of one.
    const [answer, earlier] = await Promise.all([
      this.fetchJson(this.query(from, to)), comparing ? this.fetchJson(this.query(earliest, from)) : null]);
    if (answer === null || (comparing && earlier === null) || turn !== this.turn) return;
    this.rows = this.collect(answer, from, Math.min(to, Date.now()));
    this.before = comparing ? this.collect(earlier, earliest, from) : null;
    this.withCurrent();
    this.draw();
  }

  /** The rows of an answer by their first ms; hours without one are zero. */
  collect(answer, from, to) {
    const step = this.step === "day" ? DAY : HOUR;
    const none = { unique_users: this.step === "day" ? null : 0, clicks: 0, impressions: 0 };
    const rows = new Map();
    for (let at = from; at < to; at += step) rows.set(at, none);
    for (const row of answer.rows) if (rows.has(row.timestamp)) rows.set(row.timestamp, row);
    return rows;
  }

  showCurrent(answer) {
    this.current = answer;
    if (this.step !== "hour" || this.rows.size === 0) return;
    const newest = Math.max(...this.rows.keys());
    // A new hour has begun: the window moves.
    if (this.range !== "custom" && answer.timestamp > newest) this.load();
    else if (this.withCurrent()) this.draw();
  }

  withCurrent() {
    const there = this.step === "hour" && this.current && this.rows.has(this.current.timestamp);
    if (there) this.rows.set(this.current.timestamp, this.current);
    return there;
  }

  // --- drawing ---

  draw() {
    const times = [...this.rows.keys()].sort((a, b) => a - b);
    const row = (at) => this.rows.get(at);
    const empty = times.every((at) => NAMES.every((name) => !row(at)[name]));
    for (const id of ["day", "legend", "day-details"]) $(id).hidden = empty;
    $("day-empty").hidden = !empty;
    $("how").hidden = this.bounds[1] < Date.now();
    const step = this.step === "day" ? DAY : HOUR;
    const running = times.length > 1 && times.at(-1) + step > Date.now();
    const notes = [];
    const shown = (at) => (this.step === "day" ? dayName(at) : hourName(at));
    const [from, to] = this.bounds;
    const earlier = (at) => this.before?.get(at - (to - from));
    this.drawTotals(times, running, row, earlier);
    if (!empty && running) notes.push(`The last ${this.step} is still running (dashed).`);
    if (!empty && this.step === "day") notes.push("Unique users of hours do not add up to those of a day.");
    if (!empty && this.before) {
      notes.push(`Dotted: the ${this.step}s from ${shown(2 * from - to)} on. Changes are of ${running ? `${this.step}s that are over` : "totals"}.`);
    }
    text($("day-note"), notes.join(" "));
    const cell = (value) => el("td", {}, value === null ? "–" : whole(value));
    document.querySelector("#day-table tbody").replaceChildren(...times.toReversed().map((at) =>
      el("tr", {}, el("th", { scope: "row" }, shown(at)), ...NAMES.map((name) => cell(row(at)[name])))));
    if (empty || times.length < 2) return;
    const lines = (of) => NAMES.map((name) => times.map((at) => of(at)?.[name] ?? null));
    this.chart.show([times.map((at) => at / 1000), ...lines(row)], running, this.before && lines(earlier));
  }

  /** The totals of what adds up, and their change since the period before: of what has ended, as that has. */
  drawTotals(times, running, row, earlier) {
    const ended = running ? times.slice(0, -1) : times;
    const sum = (all, of, name) => all.reduce((sum, at) => sum + (of(at)?.[name] ?? 0), 0);
    for (const name of ["clicks", "impressions"]) {
      const [now, before] = [sum(ended, row, name), this.before && sum(ended, earlier, name)];
      text(document.querySelector(`.legend .${name} b`), whole(sum(times, row, name)));
      text(document.querySelector(`.legend .${name} small`), before ? change(now / before - 1) : "");
    }
  }

  async saveCsv() {
    const [from, to] = this.bounds;
    const answer = await fetch(here(this.query(from, to)), { headers: { accept: "text/csv" } });
    if (!answer.ok) return;
    const url = URL.createObjectURL(await answer.blob());
    const link = el("a", { href: url, download: `millrace-${dayName(from)}-${dayName(to - 1)}-by-${this.step}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
}
