// The dashboard: the current hour from /analytics/live, the last 24 hours from /analytics/range, the pipeline from /status.
"use strict";

const $ = (id) => document.getElementById(id);
const HOUR = 3600000;
const NAMES = { unique_users: "Unique users", clicks: "Clicks", impressions: "Impressions" };
const COLOURS = { unique_users: "--users", clicks: "--clicks", impressions: "--impressions" };
const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const hourName = (ms) => new Date(ms).toISOString().slice(0, 13).replace("T", " ") + ":00";

const page = { day: new Map(), current: null, heardAt: 0, rates: [], before: null, charts: {}, waited: 0 };

function text(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value;
}

function connection(kind, words) {
  $("connection").className = "badge " + kind;
  text("connection", words);
}

function notice(words) {
  $("notice").hidden = !words;
  text("notice", words || "");
}

// --- the current hour ---

function showCurrent(answer) {
  page.current = answer;
  page.heardAt = Date.now();
  for (const name of Object.keys(NAMES)) text(name, whole.format(answer[name]));
  text("current-hour", hourName(answer.timestamp) + " UTC");
  const stale = answer.stale === true;
  document.querySelector(".tiles").classList.toggle("stale", stale);
  const notes = [];
  if (answer.exactness === "approximate") notes.push("Unique users are approximate.");
  if (stale) notes.push("The store cannot be reached: these are the last numbers known.");
  text("current-note", notes.join(" "));
  connection(stale ? "stale" : "live", stale ? "stale" : "live");
  page.day.set(answer.timestamp, answer);
  drawDay();
}

function listen() {
  const stream = new EventSource("/analytics/live");
  stream.addEventListener("hour", (event) => showCurrent(JSON.parse(event.data)));
  stream.addEventListener("unavailable", () => {
    connection("stale", "no numbers at the moment");
    document.querySelector(".tiles").classList.add("stale");
  });
  stream.onerror = () => {
    connection("lost", "disconnected, trying again");
    document.querySelector(".tiles").classList.add("stale");
    // A refusal (too many readers, or no answer yet) closes the stream for good: ask again ourselves.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}

// --- the last 24 hours ---

async function readDay() {
  const now = Date.now();
  const to = (Math.floor(now / HOUR) + 1) * HOUR;
  const answer = await ask(`/analytics/range?from=${to - 24 * HOUR}&to=${to}&step=hour`);
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
  const place = $(id);
  const width = place.clientWidth;
  if (width === 0) return;
  const known = page.charts[id];
  if (known) {
    known.setSize({ width, height });
    known.setData(data);
    return;
  }
  const grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--quiet"), grid, ticks: grid };
  page.charts[id] = new uPlot({
    width, height,
    tzDate: (s) => uPlot.tzDate(new Date(s * 1000), "UTC"),
    legend: { show: legend },
    cursor: { drag: { x: false, y: false } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map((s) => new Date(s * 1000).toISOString().slice(11, legend ? 16 : 19)) }, { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => short.format(tick)) }],
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.05, 1)] } },
    series: [{ value: (_, s) => (s === null ? "–" : hourName(s * 1000)) }, ...names.map((name) => ({
      label: NAMES[name] || name, stroke: colour(COLOURS[name] || "--users"), width: 2,
      points: { show: legend && data[0].length <= 24 },
      value: (_, value) => (value === null ? "–" : whole.format(value)),
    }))],
  }, data, place);
}

function redraw() {
  for (const [id, drawn] of Object.entries(page.charts)) {
    drawn.destroy();
    delete page.charts[id];
  }
  drawDay();
  drawRates();
}

// --- the pipeline ---

function bars(id, rows, nothing) {
  const most = Math.max(1, ...rows.map(([, value]) => value));
  $(id).replaceChildren(...(rows.length ? rows.map(([name, value]) => {
    const row = document.createElement("div");
    row.className = "row";
    const label = document.createElement("span");
    label.textContent = name;
    const meter = document.createElement("meter");
    meter.max = most;
    meter.value = value;
    meter.setAttribute("aria-label", `${name}: ${whole.format(value)}`);
    const number = document.createElement("span");
    number.textContent = whole.format(value);
    row.append(label, meter, number);
    return row;
  }) : [Object.assign(document.createElement("p"), { className: "quiet", textContent: nothing })]));
}

function drawRates() {
  if (page.rates.length > 1) {
    chart("ingest-chart", [page.rates.map(([at]) => at / 1000), page.rates.map(([, rate]) => rate)], ["accepted"], 130, false);
  }
}

async function readStatus() {
  const status = await ask("/status");
  if (status === null) return;
  const before = page.before;
  page.before = status;
  if (status.accepted === null) {
    text("ingest", "not known here");
  } else if (before && before.accepted !== null && status.accepted >= before.accepted && status.at > before.at) {
    const rate = (status.accepted - before.accepted) * 1000 / (status.at - before.at);
    page.rates = [...page.rates, [status.at, rate]].slice(-150);
    text("ingest", short.format(rate));
    drawRates();
  }
  const lag = Object.entries(status.lag).flatMap(([role, parts]) =>
    Object.entries(parts).map(([partition, records]) => [`${role} ${partition}`, records]));
  text("lag", lag.length ? whole.format(lag.reduce((sum, [, records]) => sum + records, 0)) : "not known here");
  bars("lag-rows", lag, "");
  const reads = Object.entries(status.reads);
  bars("reads", reads, "No reads yet.");
  bars("refused", Object.entries(status.refused), "Nothing was refused.");
  text("age", page.heardAt ? age(Date.now() - Math.min(page.heardAt, Date.parse(page.current.as_of) || page.heardAt)) : "–");
  $("health").replaceChildren(...status.health.map(({ name, ready, why }) => {
    const item = document.createElement("li");
    item.className = ready ? "ok" : "bad";
    item.textContent = name + (why ? `: ${why}` : ready ? ": ready" : ": not ready");
    return item;
  }));
}

const age = (ms) => (ms < 1000 ? "under 1 s" : ms < 120000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60000)} min`);

async function ask(path) {
  try {
    const answer = await fetch(path, { headers: { accept: "application/json" }, cache: "no-store" });
    const body = await answer.json();
    if (answer.ok) {
      notice("");
      return body;
    }
    notice(body.code === "rebuilding" ? "The numbers are being built again; what is shown may be older." : body.detail);
  } catch {
    notice("The query service does not answer. The page goes on by itself when it does.");
  }
  return null;
}

function every(ms, work) {
  const run = async () => {
    if (!document.hidden) await work();
    setTimeout(run, ms);
  };
  run();
}

listen();
every(2000, readStatus);
every(30000, readDay);
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
