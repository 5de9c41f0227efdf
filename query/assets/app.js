// The dashboard: the current hour, which comes from /analytics/live, and whether what the page shows can be relied upon.
import { $, here, text, whole } from "./page.js";
import { Chart } from "./chart.js";
import { Pipeline } from "./pipeline.js";
import { Range, hourName } from "./range.js";

const NAMES = ["unique_users", "clicks", "impressions"];
// Without an event for longer than this, heartbeats are missing, too.
const SILENCE = 40000;

const feed = { state: "connecting", stale: false, code: null, at: 0 };
let current = null;

/** The badge: "live" only if the counts move when they should. Something that is wrong is named, the worst first. */
function judge() {
  const silent = feed.state === "open" && Date.now() - feed.at > SILENCE;
  const [kind, label] =
    feed.state === "lost" ? ["lost", "disconnected, reconnecting"]
    : feed.state === "connecting" ? ["waiting", "connecting"]
    : silent ? ["lost", "no answer for a while"]
    : feed.code ? ["stale", feed.code]
    : feed.stale ? ["stale", pipeline.trouble ?? "stale"]
    : pipeline.trouble ? ["stale", pipeline.trouble]
    : ["live", "live"];
  $("connection").className = `badge ${kind}`;
  text($("connection"), label);
  // The page may be in a tab that is not looked at.
  document.title = kind === "live" || kind === "waiting" ? "Millrace" : `${label} – Millrace`;
  document.querySelector(".tiles").classList.toggle("stale", kind === "lost" || Boolean(feed.code) || feed.stale);
}

/** What is wrong with requests, by their path; the first is shown. */
const notices = new Map();

function notice(path, message) {
  notices.set(path.split("?")[0], message);
  const shown = [...notices.values()].find(Boolean) ?? "";
  $("notice").hidden = !shown;
  text($("notice"), shown);
}

/** A JSON answer; null after a failure, which the notice names. */
async function fetchJson(path) {
  try {
    const answer = await fetch(here(path), { headers: { accept: "application/json" }, cache: "no-store", signal: AbortSignal.timeout(10000) });
    const body = await answer.json();
    if (answer.ok) {
      notice(path, "");
      return body;
    }
    notice(path, body.code === "rebuilding" ? "The read models are being rebuilt. The counts shown may be outdated." : body.detail);
  } catch {
    notice(path, "The query service is unreachable. This page reconnects automatically.");
  }
  return null;
}

function showCurrent(answer) {
  current = answer;
  Object.assign(feed, { state: "open", stale: answer.stale === true, code: null, at: Date.now() });
  for (const name of NAMES) text($(name), whole(answer[name]));
  text($("current-hour"), `${hourName(answer.timestamp)} UTC`);
  const notes = [];
  if (answer.exactness === "approximate") notes.push("Unique users are approximate.");
  if (feed.stale) notes.push("Stale: the read model is unavailable, so these are the last known counts.");
  notes.push(`As of ${answer.as_of.slice(11, 19)} UTC.`);
  text($("current-note"), notes.join(" "));
  judge();
  range.showCurrent(answer);
}

function subscribe() {
  const stream = new EventSource(here("/analytics/live"));
  stream.addEventListener("hour", (event) => showCurrent(JSON.parse(event.data)));
  stream.addEventListener("unavailable", (event) => {
    Object.assign(feed, { state: "open", code: JSON.parse(event.data).code, at: Date.now() });
    judge();
  });
  stream.onerror = () => {
    feed.state = "lost";
    judge();
    // EventSource does not reconnect after an error status, such as 503 for too many streams.
    if (stream.readyState === EventSource.CLOSED) setTimeout(subscribe, 5000);
  };
}

function repeat(ms, work) {
  const run = async () => {
    if (!document.hidden) await work();
    setTimeout(run, ms);
  };
  run();
}

const pipeline = new Pipeline(fetchJson);
const range = new Range(fetchJson);

subscribe();
repeat(2000, async () => {
  await pipeline.load(current && Math.min(feed.at, Date.parse(current.as_of) || feed.at));
  judge();
});
repeat(30000, () => range.refresh());
addEventListener("resize", Chart.redrawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", Chart.redrawAll);
