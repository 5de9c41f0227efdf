// The dashboard. The current hour comes from /analytics/live, the last 24 hours from /analytics/range, the pipeline from /status.
"use strict";

const $ = (id) => document.getElementById(id);
const HOUR = 3600000;
const NAMES = { unique_users: "Unique users", clicks: "Clicks", impressions: "Impressions" };
const COLORS = { unique_users: "--users", clicks: "--clicks", impressions: "--impressions" };
const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const hourName = (ms) => new Date(ms).toISOString().slice(0, 13).replace("T", " ") + ":00";

const page = { day: new Map(), current: null, receivedAt: 0, rates: [], lastStatus: null, charts: {} };

function text(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value;
}

function connection(kind, label) {
  $("connection").className = "badge " + kind;
  text("connection", label);
}

function notice(message) {
  $("notice").hidden = !message;
  text("notice", message);
}

// --- the current hour ---

function showCurrent(answer) {
  page.current = answer;
  page.receivedAt = Date.now();
  for (const name of Object.keys(NAMES)) text(name, whole.format(answer[name]));
  text("current-hour", hourName(answer.timestamp) + " UTC");
  const stale = answer.stale === true;
  document.querySelector(".tiles").classList.toggle("stale", stale);
  const notes = [];
  if (answer.exactness === "approximate") notes.push("Unique users are approximate.");
  if (stale) notes.push("Stale: the read model is unavailable, so these are the last known counts.");
  notes.push(`As of ${answer.as_of.slice(11, 19)} UTC.`);
  text("current-note", notes.join(" "));
  connection(stale ? "stale" : "live", stale ? "stale" : "live");
  page.day.set(answer.timestamp, answer);
  drawDay();
}

function subscribe() {
  const stream = new EventSource("/analytics/live");
  stream.addEventListener("hour", (event) => showCurrent(JSON.parse(event.data)));
  stream.addEventListener("unavailable", () => {
    connection("stale", "unavailable");
    document.querySelector(".tiles").classList.add("stale");
  });
  stream.onerror = () => {
    connection("lost", "disconnected, reconnecting");
    document.querySelector(".tiles").classList.add("stale");
    // EventSource does not reconnect after an error status, such as 503 for too many streams.
    if (stream.readyState === EventSource.CLOSED) setTimeout(subscribe, 5000);
  };
}

// --- the last 24 hours ---

async function loadDay() {
  const now = Date.now();
  const to = (Math.floor(now / HOUR) + 1) * HOUR;
  const answer = await fetchJson(`/analytics/range?from=${to - 24 * HOUR}&to=${to}&step=hour`);
  if (answer === null) return;
  const rows = new Map();
  for (let hour = to - 24 * HOUR; hour < to; hour += HOUR) rows.set(hour, { unique_users: 0, clicks: 0, impressions: 0 });
  for (const row of answer.rows) rows.set(row.timestamp, row);
  if (page.current && rows.has(page.current.timestamp)) rows.set(page.current.timestamp, page.current);
  page.day = rows;
  drawDay();
}

function drawDay() {
  const hours = [...page.day.keys()].sort((a, b) => a - b).slice(-24);
  const series = Object.keys(NAMES).map((name) => hours.map((hour) => page.day.get(hour)[name]));
  const empty = hours.length === 24 && series.every((values) => values.every((value) => value === 0));
  $("day").hidden = empty;
  $("day-empty").hidden = !empty;
  const body = document.querySelector("#day-table tbody");
  body.replaceChildren(...hours.toReversed().map((hour) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = hourName(hour);
    row.append(head, ...Object.keys(NAMES).map((name) => {
      const cell = document.createElement("td");
      cell.textContent = whole.format(page.day.get(hour)[name]);
      return cell;
    }));
    return row;
  }));
  if (!empty && hours.length > 1) {
    chart("day", [hours.map((hour) => hour / 1000), ...series], Object.keys(NAMES), 280, true);
  }
}

// --- charts ---

function chart(id, data, names, height, legend) {
  const container = $(id);
  const width = container.clientWidth;
  if (width === 0) return;
  const existing = page.charts[id];
  if (existing) {
    existing.setSize({ width, height });
    existing.setData(data);
    return;
  }
  const grid = { stroke: color("--line"), width: 1 };
  const axis = { stroke: color("--quiet"), grid, ticks: grid };
  page.charts[id] = new uPlot({
    width, height,
    tzDate: (s) => uPlot.tzDate(new Date(s * 1000), "UTC"),
    legend: { show: legend },
    cursor: { drag: { x: false, y: false } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map((s) => new Date(s * 1000).toISOString().slice(11, legend ? 16 : 19)) }, { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => short.format(tick)) }],
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.05, 1)] } },
    series: [{ value: (_, s) => (s === null ? "–" : hourName(s * 1000)) }, ...names.map((name) => ({
      label: NAMES[name] || name, stroke: color(COLORS[name] || "--users"), width: 2,
      points: { show: legend && data[0].length <= 24 },
      value: (_, value) => (value === null ? "–" : whole.format(value)),
    }))],
  }, data, container);
}

function redrawCharts() {
  for (const [id, drawn] of Object.entries(page.charts)) {
    drawn.destroy();
    delete page.charts[id];
  }
  drawDay();
  drawRates();
}

// --- the pipeline ---

function bars(id, rows, placeholder) {
  const max = Math.max(1, ...rows.map(([, value]) => value));
  $(id).replaceChildren(...(rows.length ? rows.map(([name, value]) => {
    const row = document.createElement("div");
    row.className = "row";
    const label = document.createElement("span");
    label.textContent = name;
    const meter = document.createElement("meter");
    meter.max = max;
    meter.value = value;
    meter.setAttribute("aria-label", `${name}: ${whole.format(value)}`);
    const number = document.createElement("span");
    number.textContent = whole.format(value);
    row.append(label, meter, number);
    return row;
  }) : [Object.assign(document.createElement("p"), { className: "quiet", textContent: placeholder })]));
}

function drawRates() {
  if (page.rates.length > 1) {
    chart("ingest-chart", [page.rates.map(([at]) => at / 1000), page.rates.map(([, rate]) => rate)], ["accepted"], 130, false);
  }
}

async function loadStatus() {
  const status = await fetchJson("/status");
  if (status === null) return;
  const last = page.lastStatus;
  page.lastStatus = status;
  if (status.accepted === null) {
    text("ingest", "not available");
  } else if (last && last.accepted !== null && status.accepted >= last.accepted && status.at > last.at) {
    const rate = (status.accepted - last.accepted) * 1000 / (status.at - last.at);
    page.rates = [...page.rates, [status.at, rate]].slice(-150);
    text("ingest", short.format(rate));
    drawRates();
  }
  const lag = Object.entries(status.lag).flatMap(([role, partitions]) =>
    Object.entries(partitions).map(([partition, records]) => [`${role} ${partition}`, records]));
  text("lag", lag.length ? whole.format(lag.reduce((sum, [, records]) => sum + records, 0)) : "not available");
  bars("lag-rows", lag, "");
  const reads = Object.entries(status.reads);
  bars("reads", reads, "No reads yet.");
  bars("refused", Object.entries(status.refused), "No events refused.");
  text("age", page.receivedAt ? age(Date.now() - Math.min(page.receivedAt, Date.parse(page.current.as_of) || page.receivedAt)) : "–");
  $("health").replaceChildren(...status.health.map(({ name, ready }) => {
    const item = document.createElement("li");
    item.className = ready ? "ok" : "bad";
    item.textContent = name + (ready ? ": ready" : ": not ready");
    return item;
  }));
}

const age = (ms) => (ms < 1000 ? "under 1 s" : ms < 120000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60000)} min`);

async function fetchJson(path) {
  try {
    const answer = await fetch(path, { headers: { accept: "application/json" }, cache: "no-store" });
    const body = await answer.json();
    if (answer.ok) {
      notice("");
      return body;
    }
    notice(body.code === "rebuilding" ? "The read models are being rebuilt. The counts shown may be outdated." : body.detail);
  } catch {
    notice("The query service is unreachable. This page reconnects automatically.");
  }
  return null;
}

function repeat(ms, work) {
  const run = async () => {
    if (!document.hidden) await work();
    setTimeout(run, ms);
  };
  run();
}

subscribe();
repeat(2000, loadStatus);
repeat(30000, loadDay);
addEventListener("resize", redrawCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawCharts);
