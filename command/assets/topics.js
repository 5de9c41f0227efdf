// The page of topics. Its data comes from /v1/topics, as for any client; search, page and open subscriptions are in the URL.
import { $, Rate, Refused, call, el, moment, now, plural, short, text, whole } from "./page.js";
import { SubscriptionRow } from "./subscription.js";

const TOPICS = 20;
const SUBSCRIPTIONS = 50;
const EVERY = 5000;

const parameters = new URLSearchParams(location.search);
const shown = {
  prefix: parameters.get("prefix") ?? "",
  after: parameters.get("after") ?? "",
  open: new Set(parameters.getAll("open")),
};
const sections = new Map();
let nextPage = null;
let newest = 0;
let loadedAt = null;

const allRows = () => [...sections.values()].flatMap((section) => [...section.rows.values()]);

function remember() {
  const parameters = new URLSearchParams();
  for (const name of ["prefix", "after"]) if (shown[name]) parameters.set(name, shown[name]);
  for (const name of shown.open) parameters.append("open", name);
  history.replaceState(null, "", parameters.size ? `?${parameters}` : location.pathname);
}

// --- one topic ---

class TopicSection {
  constructor(name) {
    this.name = name;
    this.rows = new Map();
    this.rate = new Rate();
    this.meta = el("p", { class: "quiet" });
    this.about = el("p", { class: "quiet description" });
    this.list = el("div");
    this.none = el("p", { class: "quiet none" });
    const title = el("h3", {}, name);
    this.element = el("section", { class: "topic", "aria-label": `Topic ${name}` }, el("header", {}, title, this.meta), this.about, this.list, this.none);
  }

  update({ topic, subscriptions, more, problem }, at) {
    this.rate.add(at, topic.messages, topic.id);
    const rate = this.rate.perSecond;
    const parts = [plural(topic.messages, "message"), topic.newest_at ? `newest ${moment(topic.newest_at)} UTC` : null, rate === null ? null : `${short(rate)} per second`];
    text(this.meta, parts.filter(Boolean).join(" · "));
    text(this.about, topic.settings.description);
    this.about.hidden = !topic.settings.description;
    const names = new Set(subscriptions.map(({ name }) => name));
    for (const name of this.rows.keys()) if (!names.has(name)) this.rows.delete(name);
    for (const view of subscriptions) this.row(view.name).update(view, at);
    arrange(this.list, [...names].map((name) => this.rows.get(name).element));
    const first = `The first ${SUBSCRIPTIONS} subscriptions are shown.`;
    const rest = problem ? `Subscriptions: ${problem}` : more ? first : subscriptions.length ? "" : "No subscriptions.";
    text(this.none, rest);
    this.none.hidden = !rest;
  }

  row(name) {
    if (!this.rows.has(name)) {
      const key = `${this.name}/${name}`;
      const onToggle = (open) => {
        if (open) shown.open.add(key);
        else shown.open.delete(key);
        remember();
        const row = this.rows.get(name);
        if (!open || !row) return;
        row.draw();
        loadOpen(row);
      };
      this.rows.set(name, new SubscriptionRow(this.name, name, { open: shown.open.has(key), onToggle }));
    }
    return this.rows.get(name);
  }
}

/** Puts elements into their order; those that are in it already are not touched, so that the focus stays. */
function arrange(parent, elements) {
  const present = [...parent.children];
  if (present.length === elements.length && present.every((element, index) => element === elements[index])) return;
  for (const element of present) if (!elements.includes(element)) element.remove();
  elements.forEach((element, index) => {
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
  });
}

// --- loading ---

async function subscriptionsOf(topic) {
  if (topic.subscriptions === 0) return { topic, subscriptions: [] };
  try {
    const { subscriptions, next } = await call(`/v1/topics/${encodeURIComponent(topic.name)}/subscriptions?limit=${SUBSCRIPTIONS}`);
    return { topic, subscriptions, more: next !== null };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { topic, subscriptions: [], problem: error.message };
  }
}

async function load() {
  const turn = ++newest;
  const query = new URLSearchParams({ limit: TOPICS });
  for (const name of ["prefix", "after"]) if (shown[name]) query.set(name, shown[name]);
  try {
    const { topics, next } = await call(`/v1/topics?${query}`);
    const loaded = await Promise.all(topics.map(subscriptionsOf));
    if (turn !== newest) return;
    nextPage = next;
    loadedAt = now();
    draw(loaded);
    connection("live", "live");
    notice("");
    allRows().filter((row) => row.isOpen).forEach((row) => row.loadAttempts().catch(() => {}));
  } catch (error) {
    if (turn !== newest) return;
    const since = loadedAt === null ? "" : ` Shown is what was there at ${new Date(loadedAt).toISOString().slice(11, 19)} UTC.`;
    connection("lost", error instanceof Refused ? "refused" : "disconnected");
    notice(error instanceof Refused ? `${error.message}.${since}` : `The command service is unreachable; trying again.${since}`);
  }
}

function loadOpen(row) {
  row.loadAttempts().catch(() => {});
  row.loadLetters().catch(() => {});
}

/**
 * Dead letters are read one subscription after the other, the longest unread first. Each list is a scan of the log, so that
 * reading takes a twentieth of the time at most, however long the scans are.
 */
async function watchLetters() {
  for (;;) {
    let pause = 100;
    const due = allRows().sort((a, b) => a.lettersDue - b.lettersDue)[0];
    if (due && due.lettersDue <= performance.now() && !document.hidden) {
      const began = performance.now();
      await due.loadLetters().catch(() => {});
      pause = Math.max(pause, 20 * (performance.now() - began));
      summarize();
    }
    await new Promise((resume) => setTimeout(resume, pause));
  }
}

// --- drawing ---

function connection(kind, label) {
  $("connection").className = `badge ${kind}`;
  text($("connection"), label);
  $("main").classList.toggle("stale", kind === "lost");
}

function notice(message) {
  $("notice").hidden = !message;
  text($("notice"), message);
}

function draw(loaded) {
  const names = new Set(loaded.map(({ topic }) => topic.name));
  for (const name of sections.keys()) if (!names.has(name)) sections.delete(name);
  for (const one of loaded) {
    const { name } = one.topic;
    if (!sections.has(name)) sections.set(name, new TopicSection(name));
    sections.get(name).update(one, loadedAt);
  }
  arrange($("topics"), [...names].map((name) => sections.get(name).element));
  const none = loaded.length === 0;
  $("empty").hidden = !none;
  if (none) drawEmpty();
  $("pages").hidden = !shown.after && nextPage === null;
  $("first").disabled = !shown.after;
  $("next").disabled = nextPage === null;
  text($("found"), none ? "" : `${plural(loaded.length, "topic")}${nextPage === null && !shown.after ? "" : " on this page"}`);
  summarize();
}

function drawEmpty() {
  const searched = shown.prefix || shown.after;
  text($("empty-title"), searched ? "No such topic" : "No topics yet");
  text($("empty-text"), searched ? `No topic that you may see begins with “${shown.prefix}”${shown.after ? ` after “${shown.after}”` : ""}.` : "A topic with a subscription and a first message:");
  const api = `${location.origin}/v1/topics`;
  text($("empty-how"), [
    `curl -X PUT ${api}/orders`,
    `curl -X PUT ${api}/orders/subscriptions/worker -d '{"mode":"pull"}'`,
    `curl -X POST ${api}/orders/messages -d 'order 17'`,
  ].join("\n"));
  $("empty-how").parentElement.hidden = Boolean(searched);
}

function summarize() {
  const rows = allRows();
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const rate = (of) => {
    const known = of.map(({ rate }) => rate.perSecond).filter((value) => value !== null);
    return known.length ? short(sum(known)) : "–";
  };
  text($("published"), rate([...sections.values()]));
  text($("settled"), rate(rows));
  text($("waiting"), whole(sum(rows.map(({ view }) => view.backlog))));
  const troubled = rows.filter((row) => row.needsAttention).length;
  text($("attention"), rows.length ? `${troubled} of ${rows.length}` : "–");
  document.querySelector(".tile.attention").classList.toggle("some", troubled > 0);
}

// --- what a person does ---

let typing = null;
$("prefix").value = shown.prefix;
$("prefix").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    Object.assign(shown, { prefix: $("prefix").value, after: "" });
    remember();
    load();
  }, 250);
});

function turnTo(after) {
  shown.after = after;
  remember();
  load();
  $("main").focus();
  scrollTo(0, 0);
}
$("first").addEventListener("click", () => turnTo(""));
$("next").addEventListener("click", () => turnTo(nextPage));

async function forever() {
  for (;;) {
    if (!document.hidden) await load();
    await new Promise((resume) => setTimeout(resume, EVERY));
  }
}

forever();
watchLetters();
setInterval(() => allRows().forEach((row) => row.draw()), 1000);
document.addEventListener("visibilitychange", () => document.hidden || load());
